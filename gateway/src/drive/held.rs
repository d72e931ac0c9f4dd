//! What all sessions together hold of what is on its way: bytes that were read and not used yet, or used and not taken by the
//! other side. A session's own share is bounded; twenty thousand of them are not, so new messages wait while it is too much.
//!
//! One number for the process, whatever listeners and configurations its sessions have: memory is one, too.

use std::sync::atomic::{AtomicUsize, Ordering};

static TOTAL: AtomicUsize = AtomicUsize::new(0);

/// Octets that all sessions hold.
pub(super) fn total() -> usize {
    TOTAL.load(Ordering::Relaxed)
}

/// One session's share; given back when it ends.
#[derive(Debug, Default)]
pub(super) struct Held(u32);

impl Held {
    /// The session holds so many octets now. Most hold none whenever they wait, and then nothing is shared.
    pub(super) fn set(&mut self, octets: usize) {
        // A session's share is bounded far below what this can hold.
        let octets = u32::try_from(octets).unwrap_or(u32::MAX);
        let (before, octets) = (std::mem::replace(&mut self.0, octets) as usize, octets as usize);
        if octets > before {
            TOTAL.fetch_add(octets - before, Ordering::Relaxed);
        } else if octets < before {
            TOTAL.fetch_sub(before - octets, Ordering::Relaxed);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set(0);
    }
}
