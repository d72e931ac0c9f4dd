//! How fast a server may be asked: what the probes put to it so far have taught.
//!
//! Servers slow strangers down. Exchange waits five seconds before each refusal and ends a session at the fifth; Postfix
//! sleeps once a session has erred often; others take so many sessions of one source and no more. A prober that minds
//! neither loses its cases, or its verdict to the deadline. Pure: durations and counts in, answers out.

use std::time::Duration;

/// Answers that take longer are waited for in several sessions at once.
const SLOW: Duration = Duration::from_millis(400);
/// Sessions side by side with a slow server. Few enough for every usual limit of sessions per source.
const SESSIONS_MAX: usize = 4;
/// Cases in one session: fewer errors than servers begin to slow down for.
const CASES_PER_SESSION_MAX: usize = 8;

/// What was learned of one server's pace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pace {
    slowest: Duration,
    errors_max: Option<usize>,
    sessions_max: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { slowest: Duration::ZERO, errors_max: None, sessions_max: SESSIONS_MAX }
    }
}

impl Pace {
    /// A recipient was answered after so long.
    pub(super) fn answered_after(&mut self, wait: Duration) {
        self.slowest = self.slowest.max(wait);
    }

    /// A session was ended by the server after so many refusals, of which at least one belongs to every session.
    pub(super) fn ended_after(&mut self, errors: usize) {
        let known = self.errors_max.unwrap_or(usize::MAX);
        self.errors_max = Some(errors.clamp(1, known.max(1)));
    }

    /// It takes no more than so many sessions at once.
    pub(super) fn refused_beside(&mut self, sessions: usize) {
        self.sessions_max = sessions.clamp(1, self.sessions_max);
    }

    /// Whether it is to be asked in several sessions side by side.
    pub(super) fn is_slow(&self) -> bool {
        self.slowest >= SLOW
    }

    /// Sessions that may be open at once.
    pub(super) fn sessions(&self) -> usize {
        if self.is_slow() { self.sessions_max } else { 1 }
    }

    /// Whether a session that saw so many cases, and so many of them refused, is to be given up before it is ended.
    pub(super) fn is_spent(&self, cases: usize, errors: usize) -> bool {
        cases >= CASES_PER_SESSION_MAX || self.errors_max.is_some_and(|most| errors >= most)
    }

    /// For people: `it waits up to 5.0 s before it answers, and ends sessions after 5 errors`.
    pub(super) fn described(&self) -> String {
        let waits = format!("it waits up to {:.1} s before it answers", self.slowest.as_secs_f32());
        match self.errors_max {
            Some(1) => format!("{waits}, and ends sessions after one error"),
            Some(errors) => format!("{waits}, and ends sessions after {errors} errors"),
            None => waits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quick_server_is_asked_in_one_session() {
        let mut pace = Pace::default();
        pace.answered_after(Duration::from_millis(30));
        assert_eq!(pace.sessions(), 1);
        assert!(!pace.is_spent(7, 7) && pace.is_spent(8, 0));
    }

    #[test]
    fn a_slow_one_in_as_many_as_it_takes() {
        let mut pace = Pace::default();
        pace.answered_after(Duration::from_secs(5));
        pace.answered_after(Duration::from_millis(1));
        assert_eq!(pace.sessions(), 4);
        pace.refused_beside(2);
        pace.refused_beside(3);
        assert_eq!(pace.sessions(), 2);
        pace.refused_beside(0);
        assert_eq!(pace.sessions(), 1);
    }

    #[test]
    fn sessions_are_left_before_they_are_ended() {
        let mut pace = Pace::default();
        pace.ended_after(5);
        assert!(pace.is_spent(5, 5) && !pace.is_spent(6, 4));
        pace.ended_after(7);
        assert!(pace.is_spent(5, 5), "the least counts");
        pace.ended_after(0);
        assert!(!pace.is_spent(0, 0) && pace.is_spent(1, 1), "one case is asked in every session");
        assert!(pace.described().ends_with("ends sessions after one error"), "{}", pace.described());
    }
}
