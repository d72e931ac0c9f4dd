//! Logins as they are shown: since the start, and what users may log in by.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Logins since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginTotals {
    /// By how they ended; `ok` are those that the mail server accepted.
    pub outcomes_total: BTreeMap<String, u64>,
    /// Those that it accepted, by mechanism.
    pub mechanisms_total: BTreeMap<String, u64>,
}

impl LoginTotals {
    /// A line for a page; `None` where nobody has tried.
    pub(super) fn line(&self) -> Option<String> {
        let of = |outcome: &str| self.outcomes_total.get(outcome).copied().unwrap_or_default();
        if self.outcomes_total.values().all(|count| *count == 0) {
            return None;
        }
        let mut line = format!("{} accepted, {} refused", of("ok"), of("wrong-password") + of("refused"));
        for outcome in ["unavailable", "cancelled"].into_iter().filter(|outcome| of(outcome) > 0) {
            line += &format!(", {} {outcome}", of(outcome));
        }
        let by = super::tls::counted(&self.mechanisms_total);
        Some(if by.is_empty() { line } else { format!("{line}; {by}") })
    }
}

/// What users may log in by, through one backend.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginStatus {
    /// The mechanisms that they are offered, the strongest first.
    pub mechanisms: Vec<String>,
    /// Why others that the backend offers, and that would work by themselves, are not.
    pub withheld: Option<String>,
    /// Why nobody can log in.
    pub refused: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(counts: &[(&str, u64)]) -> BTreeMap<String, u64> {
        counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn only_what_there_was_is_said() {
        let totals = |outcomes, mechanisms| LoginTotals {
            outcomes_total: counts(outcomes),
            mechanisms_total: counts(mechanisms),
        };
        for (totals, expected) in [
            (totals(&[("ok", 0)], &[]), None),
            (totals(&[("ok", 0), ("wrong-password", 2), ("refused", 1)], &[]), Some("0 accepted, 3 refused")),
            (
                totals(&[("ok", 5), ("unavailable", 1), ("cancelled", 2)], &[("LOGIN", 1), ("PLAIN", 4)]),
                Some("5 accepted, 0 refused, 1 unavailable, 2 cancelled; 4 PLAIN, 1 LOGIN"),
            ),
        ] {
            assert_eq!(totals.line().as_deref(), expected);
        }
    }
}
