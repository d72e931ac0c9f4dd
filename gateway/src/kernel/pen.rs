//! Who writes the maps: one process at a time. A gateway that hands over to another lays the pen down before that one writes,
//! and takes it up again only if the other does not come to serve.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One gateway's pen; all clones are the same one.
#[derive(Debug, Clone, Default)]
pub(super) struct Pen(Arc<Mutex<State>>);

#[derive(Debug, Clone, Copy, Default)]
struct State {
    is_down: bool,
    /// Grows whenever it is laid down: another may have written since.
    times_down: u64,
}

/// In hand: nobody lays it down meanwhile.
#[derive(Debug)]
pub(super) struct InHand<'p>(MutexGuard<'p, State>);

impl Pen {
    /// In hand, unless it is laid down.
    pub(super) fn take(&self) -> Option<InHand<'_>> {
        let state = self.state();
        (!state.is_down).then_some(InHand(state))
    }

    /// From now on nobody of this process writes. Waits for who is writing.
    pub(super) fn lay_down(&self) {
        let mut state = self.state();
        state.is_down = true;
        state.times_down += 1;
    }

    /// This process writes again.
    pub(super) fn take_up(&self) {
        self.state().is_down = false;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InHand<'_> {
    /// Whether it was laid down since `seen`, which is then brought up to date.
    pub(super) fn was_down(&self, seen: &mut u64) -> bool {
        std::mem::replace(seen, self.0.times_down) != self.0.times_down
    }
}
