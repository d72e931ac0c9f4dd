//! The clock itself. The pure rooms may not ask it.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use super::{Millis, WallClock};

/// Where this clock, which the kernel calls the monotonic one, has its zero, as timers want it; never before.
static START: LazyLock<Instant> = LazyLock::new(|| {
    let (since_boot, now) = (clock_gettime(ClockId::Monotonic), Instant::now());
    let seconds = u64::try_from(since_boot.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(since_boot.tv_nsec).unwrap_or(0);
    now.checked_sub(Duration::new(seconds, nanos)).unwrap_or(now)
});

/// Now.
pub fn now() -> Millis {
    Millis(now_ns() / 1_000_000)
}

/// The wall clock: how long it is since 1970.
pub fn since_1970() -> Duration {
    // A clock that shows a time before 1970 was never set.
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// What the date is at this time.
pub fn wall_clock(at: Millis) -> WallClock {
    WallClock { at, unix_seconds: i64::try_from(since_1970().as_secs()).unwrap_or(i64::MAX) }
}

/// Nanoseconds of the same clock, as the kernel counts them.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let (seconds, ns) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
    seconds.unwrap_or(0).saturating_mul(1_000_000_000).saturating_add(ns.unwrap_or(0))
}

/// As tokio's timers want it.
pub fn instant(at: Millis) -> tokio::time::Instant {
    // Far beyond any deadline, and still representable.
    const FOREVER_MS: u64 = 1 << 40;
    tokio::time::Instant::from_std(*START + Duration::from_millis(at.0.min(FOREVER_MS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else a session would be woken before its time, and find nothing to do.
    #[test]
    fn a_timer_goes_off_no_sooner_than_the_clock_says_so() {
        for _ in 0..10_000 {
            let before = now();
            let between = tokio::time::Instant::now();
            let after = now();
            assert!(instant(before) <= between + Duration::from_millis(1));
            assert!(between < instant(Millis(after.0 + 1)), "{before:?} {after:?}");
        }
    }
}
