//! What was made of earlier configurations, for as long as sessions hold it. Whoever lets go of it last frees it, and lists of
//! domains may be long: nobody who serves clients is to be kept busy with that, so this room lets go last.

use std::sync::{Mutex, PoisonError};

use crate::accept::Entry;

/// What no gate leads to any more.
#[derive(Debug, Default)]
pub(super) struct Retired(Mutex<Vec<Entry>>);

impl Retired {
    /// Keeps it until only this holds it.
    pub(super) fn add(&self, entry: Entry) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
    }

    /// Frees what nobody else holds; whether there was any. For a thread that may wait.
    pub(super) fn sweep(&self) -> bool {
        let is_over = |entry: &mut Entry| !entry.is_shared();
        let over: Vec<_> = self.0.lock().unwrap_or_else(PoisonError::into_inner).extract_if(.., is_over).collect();
        let any = !over.is_empty();
        drop(over);
        any
    }
}
