//! The kernel side's time: nanoseconds of `CLOCK_MONOTONIC`, which is what the core's milliseconds are counted by too, from
//! another start.

use rustix::time::{ClockId, clock_gettime};

use crate::drive;
use crate::session::Millis;

const NS_PER_MS: u64 = 1_000_000;

/// How the two are apart, which never changes while the gateway runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct KernelTime {
    /// The kernel's time at the core's zero.
    zero_ns: u64,
}

impl KernelTime {
    pub(super) fn now() -> Self {
        Self { zero_ns: monotonic_ns().saturating_sub(drive::now().0.saturating_mul(NS_PER_MS)) }
    }

    pub(super) fn now_ns(self) -> u64 {
        monotonic_ns()
    }

    /// The kernel's time of the core's.
    pub(super) fn ns(self, at: Millis) -> u64 {
        self.zero_ns.saturating_add(at.0.saturating_mul(NS_PER_MS))
    }

    /// The core's time of the kernel's. What was before the core's zero is zero, as far as the core is concerned.
    pub(super) fn millis(self, ns: u64) -> Millis {
        Millis(ns.saturating_sub(self.zero_ns) / NS_PER_MS)
    }
}

fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let (seconds, ns) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
    seconds.unwrap_or(0).saturating_mul(1_000_000_000).saturating_add(ns.unwrap_or(0))
}
