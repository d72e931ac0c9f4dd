//! The core's time: milliseconds of the machine's monotonic clock, which began at boot. So what the kernel side remembers
//! over a restart of the gateway still has its place in time.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::session::{Millis, WallClock};

static START: LazyLock<Instant> = LazyLock::new(|| {
    let (now, since_boot) = (Instant::now(), clock_gettime(ClockId::Monotonic));
    let seconds = u64::try_from(since_boot.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(since_boot.tv_nsec).unwrap_or(0);
    now.checked_sub(Duration::new(seconds, nanos)).unwrap_or(now)
});

/// Now.
pub fn now() -> Millis {
    Millis(u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX))
}

/// What the date is at this time.
pub(super) fn wall_clock(at: Millis) -> WallClock {
    // A clock that shows a time before 1970 was never set.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallClock { at, unix_seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX) }
}

/// As tokio's timers want it.
pub(super) fn instant(at: Millis) -> tokio::time::Instant {
    // Far beyond any deadline, and still representable.
    const FOREVER_MS: u64 = 1 << 40;
    tokio::time::Instant::from_std(*START + Duration::from_millis(at.0.min(FOREVER_MS)))
}
