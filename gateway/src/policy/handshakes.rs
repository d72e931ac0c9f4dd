//! How many TLS handshakes one source may begin: they cost the gateway far more than the client.
//!
//! A fixed table of counters, twice: each source has one in each half, found by a hash that nobody can foresee. It is refused
//! where both are used up, so that whoever shares one with a flood is served by the other; memory does not grow with sources.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::identity::Source;
use crate::time::Millis;

/// Counters of each half.
const CELLS: usize = 4096;
/// The time in which a source may begin as many as are allowed, in microseconds.
const WINDOW: u64 = 60_000_000;

/// Counts handshakes by source.
#[derive(Debug)]
pub struct HandshakeLimit {
    halves: [Half; 2],
    /// In one [`WINDOW`].
    allowed: AtomicU32,
}

#[derive(Debug)]
struct Half {
    hasher: RandomState,
    /// Until when, in microseconds, the sources of each are served at the allowed rate.
    served: Box<[AtomicU64]>,
}

impl HandshakeLimit {
    /// Nobody has begun any; so many are allowed a minute.
    pub fn new(allowed: u32) -> Self {
        let half = || Half { hasher: RandomState::new(), served: (0..CELLS).map(|_| AtomicU64::new(0)).collect() };
        Self { halves: [half(), half()], allowed: AtomicU32::new(allowed) }
    }

    /// So many are allowed a minute from now on.
    pub fn allow(&self, allowed: u32) {
        self.allowed.store(allowed, Ordering::Relaxed);
    }

    /// Whether the source has begun as many as it may.
    pub fn is_used_up(&self, source: Source, now: Millis) -> bool {
        let latest = now.0 * 1000 + WINDOW - self.each();
        self.halves.iter().all(|half| half.of(source).load(Ordering::Relaxed) > latest)
    }

    /// The source begins one. False if it may not.
    pub fn begins(&self, source: Source, now: Millis) -> bool {
        if self.is_used_up(source, now) {
            return false;
        }
        let (now, each) = (now.0 * 1000, self.each());
        for half in &self.halves {
            // Both count; one that is used up already is not made to last longer.
            let later = |served: u64| (served <= now + WINDOW - each).then(|| served.max(now) + each);
            let _ = half.of(source).fetch_update(Ordering::Relaxed, Ordering::Relaxed, later);
        }
        true
    }

    fn each(&self) -> u64 {
        WINDOW / u64::from(self.allowed.load(Ordering::Relaxed)).clamp(1, WINDOW)
    }
}

impl Half {
    fn of(&self, source: Source) -> &AtomicU64 {
        // Below the number of cells, so that it fits.
        let cell = usize::try_from(self.hasher.hash_one(source) % CELLS as u64).unwrap_or_default();
        &self.served[cell]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(number: u32) -> Source {
        Source::of(std::net::Ipv4Addr::from_bits(number).into())
    }

    fn begun(limit: &HandshakeLimit, source: Source, tries: u32, at: u64) -> usize {
        (0..tries).filter(|_| limit.begins(source, Millis(at))).count()
    }

    #[test]
    fn a_minute_s_share_may_be_used_at_once_and_comes_back_steadily() {
        let limit = HandshakeLimit::new(60);
        assert_eq!(begun(&limit, source(1), 1000, 5), 60);
        assert!(limit.is_used_up(source(1), Millis(5)) && !limit.is_used_up(source(2), Millis(5)));
        assert_eq!(begun(&limit, source(1), 1000, 10_005), 10);
        assert_eq!(begun(&limit, source(1), 1000, 500_000), 60);
        limit.allow(1);
        assert_eq!(begun(&limit, source(1), 10, 900_000), 1);
        limit.allow(u32::MAX);
        assert!(begun(&limit, source(1), 1000, 2_000_000) == 1000);
    }

    #[test]
    fn a_flood_from_many_hinders_few_others() {
        let limit = HandshakeLimit::new(10);
        for number in 0..100 {
            begun(&limit, source(number), 100, 7);
        }
        let hindered = (1000..11_000).filter(|number| limit.is_used_up(source(*number), Millis(7))).count();
        assert!(hindered < 60, "{hindered} of 10,000 share both counters with one of the hundred");
    }
}
