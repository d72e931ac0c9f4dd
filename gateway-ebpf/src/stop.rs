//! Ways through the program that end early, and what monitor-only mode makes of a refusal.

use gateway_common::{CONFIG_MONITOR_ONLY, Config, outcome};

/// Why a packet's way through the program ended early.
pub(crate) enum Stop {
    /// Nobody's business here, or not to be read: it passes, under this outcome.
    Pass(u32),
    /// To be refused for this cause, unless in monitor-only mode.
    Refuse(u32),
    /// Refused, under this outcome.
    Drop(u32),
}

/// From a refused outcome to the one that monitor-only mode counts.
const SPARED: u32 = outcome::WOULD_DROP - outcome::DROP;

/// A refusal, or in monitor-only mode the outcome that says there would have been one.
#[inline(always)]
pub(crate) fn refuse(config: &Config, cause: u32) -> Result<u32, Stop> {
    if config.flags & CONFIG_MONITOR_ONLY != 0 { Ok(cause + SPARED) } else { Err(Stop::Drop(cause)) }
}
