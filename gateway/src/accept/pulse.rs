//! Whether every worker's loop still goes round. A worker that hangs serves nobody, and nothing else would tell.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A worker that has ended hangs no more.
const ENDED: u64 = u64::MAX;

/// One worker's.
#[derive(Debug, Clone, Default)]
pub(super) struct Beat(Arc<AtomicU64>);

impl Beat {
    /// The loop has gone round.
    pub(super) fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// It will not do so again.
    pub(super) fn end(&self) {
        self.0.store(ENDED, Ordering::Relaxed);
    }
}

/// All workers', for whoever watches them.
#[derive(Debug, Clone, Default)]
pub struct Pulse(Vec<(Beat, u64)>);

impl Pulse {
    pub(super) fn new(beats: impl IntoIterator<Item = Beat>) -> Self {
        Self(beats.into_iter().map(|beat| (beat, 0)).collect())
    }

    /// Whether every worker has gone round since this was asked last; workers do so every second.
    pub fn all_beat(&mut self) -> bool {
        let mut all = true;
        for (beat, seen) in &mut self.0 {
            let now = beat.0.load(Ordering::Relaxed);
            all &= now != *seen || now == ENDED;
            *seen = now;
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_worker_that_hangs_is_seen_and_one_that_ended_is_not_missed() {
        let beats = [Beat::default(), Beat::default()];
        let mut pulse = Pulse::new(beats.clone());
        assert!(!pulse.all_beat(), "none has begun");
        beats.iter().for_each(Beat::beat);
        assert!(pulse.all_beat());
        beats[0].beat();
        assert!(!pulse.all_beat(), "the second hangs");
        beats[0].beat();
        beats[1].end();
        assert!(pulse.all_beat());
        beats[0].beat();
        assert!(pulse.all_beat(), "the second has ended");
    }
}
