//! The kernel side: looks at every packet to the listeners' ports, counts it for its source, and drops what is banned,
//! forged or too much.
//!
//! It fails open: whatever it cannot read or look up passes, and is counted under the cause. It must not know SMTP; what
//! it is told about sources comes through the maps, by one writer. One function per question: `packet` reads headers,
//! `verdict` asks the lists, `account` counts and limits, and the match below is the only place that makes an XDP action.

#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "the target has atomics in its instructions, but not in core::sync::atomic")]

mod account;
mod maps;
mod packet;
mod verdict;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use gateway_common::{CONFIG_MAGIC, CONFIG_MONITOR_ONLY, Config, outcome};

use crate::maps::count_packet;

/// Why a packet's way through the program ended early.
enum Stop {
    /// Nobody's business here, or not to be read: it passes, under this outcome.
    Pass(u32),
    /// Refused, under this outcome.
    Drop(u32),
}

/// From a refused outcome to the one that monitor-only mode counts.
const SPARED: u32 = outcome::WOULD_DROP - outcome::DROP;

#[xdp]
fn smtp_gateway(ctx: XdpContext) -> u32 {
    let bytes = (ctx.data_end() - ctx.data()) as u64;
    let mut attempts = 0;
    match judge(&ctx, bytes, &mut attempts) {
        Ok(outcome) | Err(Stop::Pass(outcome)) => {
            count_packet(outcome, bytes, attempts);
            XDP_PASS
        }
        Err(Stop::Drop(outcome)) => {
            count_packet(outcome, bytes, attempts);
            XDP_DROP
        }
    }
}

/// The outcome of a packet that goes its way; `attempts` becomes 1 if it asks a listener for a connection.
#[inline(always)]
fn judge(ctx: &XdpContext, bytes: u64, attempts: &mut u64) -> Result<u32, Stop> {
    let segment = packet::parse(ctx)?;
    let config = maps::config().ok_or(Stop::Pass(outcome::PASS_FAULT))?;
    if config.magic != CONFIG_MAGIC {
        return Err(Stop::Pass(outcome::PASS_UNCONFIGURED));
    }
    *attempts = u64::from(segment.is_attempt());
    let standing = verdict::standing(ctx, config, &segment)?;
    account::account(ctx, config, &segment, standing, bytes)
}

/// A refusal, or in monitor-only mode the outcome that says there would have been one.
#[inline(always)]
fn refuse(config: &Config, cause: u32) -> Result<u32, Stop> {
    if config.flags & CONFIG_MONITOR_ONLY != 0 { Ok(cause + SPARED) } else { Err(Stop::Drop(cause)) }
}

/// Nothing here panics: indices are checked by hand, because the kernel's verifier wants to see the checks. What the
/// compiler leaves of a panic would be refused at load.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
