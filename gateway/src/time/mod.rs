//! Time: the bottom of the house. The pure rooms are handed the time as a [`Millis`] and name these types only; whoever may
//! look at a clock asks [`clock`], of which there is one for the whole process.
//!
//! Milliseconds of the machine's monotonic clock, which began at boot: what the kernel side remembers over a restart of the
//! gateway still has its place in time, and no change of the date moves a deadline.

pub mod clock;

use std::time::Duration;

/// What the date is at any time, from one look at the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WallClock {
    /// When it was looked at.
    pub at: Millis,
    /// What it showed: seconds since 1970.
    pub unix_seconds: i64,
}

impl WallClock {
    /// Seconds since 1970, at a time that is not before the look.
    pub fn unix_seconds(self, now: Millis) -> i64 {
        self.unix_seconds.saturating_add_unsigned(now.since(self.at) / 1000)
    }
}

/// Milliseconds since the machine's boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Millis(pub u64);

impl Millis {
    /// This much later.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }

    /// This long before.
    pub fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Milliseconds from `earlier` until now; 0 if that lies ahead.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
