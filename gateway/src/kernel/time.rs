//! The kernel side's time: nanoseconds of `CLOCK_MONOTONIC`, whose milliseconds are the core's.

use crate::time::Millis;

const NS_PER_MS: u64 = 1_000_000;

/// The kernel's time of the core's.
pub(super) fn ns_of(at: Millis) -> u64 {
    at.0.saturating_mul(NS_PER_MS)
}

/// The core's time of the kernel's.
pub(super) fn millis_of(ns: u64) -> Millis {
    Millis(ns / NS_PER_MS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::clock::now_ns;

    #[test]
    fn both_tell_the_same_time() {
        let (before, core, after) = (now_ns(), crate::time::clock::now(), now_ns());
        assert!(ns_of(core) <= after && before <= ns_of(core) + 2 * NS_PER_MS, "{before} {core:?} {after}");
        assert_eq!(millis_of(ns_of(core)), core);
    }
}
