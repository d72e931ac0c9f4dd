//! The core's time: milliseconds since this process first asked.

use std::sync::LazyLock;
use std::time::Instant;

use crate::session::Millis;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Now.
pub fn now() -> Millis {
    Millis(u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX))
}

/// As tokio's timers want it.
pub(super) fn instant(at: Millis) -> tokio::time::Instant {
    // Far beyond any deadline, and still representable.
    const FOREVER_MS: u64 = 1 << 40;
    tokio::time::Instant::from_std(*START + std::time::Duration::from_millis(at.0.min(FOREVER_MS)))
}
