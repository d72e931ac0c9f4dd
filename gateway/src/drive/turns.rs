//! Whose end comes next, where many come at once.
//!
//! Ten thousand sessions may end at one moment: their clients hang up together, or places run out and they all get the same
//! deadline. To end one costs the kernel more than most steps of a session, and the runtime polls who was woken in order, so
//! a session with mail would stand behind all of them at every step of its own. Ends therefore take turns, so many a
//! millisecond, and who has to wait sleeps until then. The longer the queue, the more: who waits to end has a place that others
//! may want, and a flood of clients that hang up must not fill all of them. Who says QUIT waits for nobody.

use std::cell::Cell;

use crate::time::Millis;

/// Ends in a millisecond on one worker: so few that others have most of its time even where the machine gives it little.
const EACH_MS: u64 = 2;
/// For so many milliseconds that the queue is long, one more.
const MORE_BY_MS: u64 = 50;

/// A millisecond, and how many turns in it are taken.
#[derive(Debug, Clone, Copy)]
struct Slot {
    at: Millis,
    taken: u64,
}

thread_local! {
    static LAST: Cell<Slot> = const { Cell::new(Slot { at: Millis(0), taken: 0 }) };
}

/// Takes this worker's next turn: when it is. At once, but where others are before it.
pub(super) fn take(now: Millis) -> Millis {
    LAST.with(|last| {
        let next = last.get().next(now);
        last.set(next);
        next.at
    })
}

impl Slot {
    fn next(self, now: Millis) -> Self {
        match self {
            Self { at, .. } if at < now => Self { at: now, taken: 1 },
            Self { at, taken } if taken < EACH_MS + at.since(now) / MORE_BY_MS => Self { at, taken: taken + 1 },
            Self { at, .. } => Self { at: Millis(at.0 + 1), taken: 1 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_end_at_once_and_many_one_behind_the_other() {
        let mut slot = Slot { at: Millis(0), taken: 0 };
        let mut take = |now| {
            slot = slot.next(Millis(now));
            slot.at.0
        };
        let all: Vec<u64> = (0..10_000).map(|_| take(5)).collect();
        assert_eq!(all[..4], [5, 5, 6, 6]);
        assert!(all.windows(2).all(|pair| pair[0] <= pair[1] && pair[1] - pair[0] <= 1));
        assert_eq!(all[9_999], 932, "within a second");
        // Behind those who wait, and at once when they are gone.
        assert_eq!([6, 931, 1000, 1000].map(take), [932, 933, 1000, 1000]);
    }
}
