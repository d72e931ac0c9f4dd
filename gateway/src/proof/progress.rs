//! How far a proof has come, for whoever watches it.

/// Where a proof stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Cases tried.
    pub done: usize,
    /// Cases planned.
    pub total: usize,
    /// What is under way: `outsider, IPv4, A07`.
    pub what: String,
}

/// Whoever watches a proof.
pub type Watcher<'a> = dyn FnMut(&Progress) + Send + 'a;
