//! Memory that a burst of sessions has left behind goes back to the system.
//!
//! The C library keeps what was freed for later, each thread's in an arena of its own, and gives back only what lies at its end:
//! one small piece that lives on holds all below it. Ten thousand sessions that end would leave the process as large as they
//! were. It is asked for the rest once a burst is over, because asking takes each arena's lock for some milliseconds.
#![expect(unsafe_code, reason = "what the C library holds of the kernel's is given back by a call of it")]

use std::time::{Duration, Instant};

use tracing::debug;

/// How far the number of sessions must have fallen, and to less than half of what it was.
const FALL_MIN: usize = 256;
/// How long it must have stayed there.
const QUIET: Duration = Duration::from_secs(10);

/// How many sessions there have been since memory was given back.
#[derive(Debug, Default)]
pub(super) struct HighWater {
    most: usize,
    fallen_since: Option<Instant>,
}

impl HighWater {
    /// There are so many sessions now. Whether a burst is over, which is told once.
    pub(super) fn has_fallen(&mut self, sessions: usize, now: Instant) -> bool {
        self.most = self.most.max(sessions);
        if sessions > self.most / 2 || self.most - sessions < FALL_MIN {
            self.fallen_since = None;
            return false;
        }
        let over = now.duration_since(*self.fallen_since.get_or_insert(now)) >= QUIET;
        if over {
            *self = Self { most: sessions, fallen_since: None };
        }
        over
    }
}

/// Gives back what is free. For a thread that may wait.
pub(super) fn give_back() {
    let begun = Instant::now();
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer, and touches nothing that is in use.
    let any = unsafe { nix::libc::malloc_trim(0) } != 0;
    #[cfg(not(target_env = "gnu"))]
    let any = false;
    debug!(any, took = ?begun.elapsed(), "memory that was free is given back");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_over_once_when_it_has_been_over_for_a_while() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut water = HighWater::default();
        let steps = [
            (0, 1000, false),
            (1, 100, false),
            (8, 900, false),
            (9, 400, false),
            (18, 300, false),
            (19, 300, true),
            (40, 300, false),
            (41, 200, false),
            (60, 200, false),
            (61, 500, false),
            (62, 20, false),
            (72, 20, true),
        ];
        for (second, sessions, over) in steps {
            assert_eq!(water.has_fallen(sessions, at(second)), over, "{sessions} sessions in second {second}");
        }
    }
}
