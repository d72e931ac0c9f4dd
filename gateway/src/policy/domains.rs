//! The set of domains the backend receives mail for.

/// Exact domains and `.suffix` entries, normalised to lower-case A-labels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DomainSet {
    // placeholder
}
