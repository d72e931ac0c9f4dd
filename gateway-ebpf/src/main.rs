//! The kernel side: looks at every packet to the listeners' ports, counts it for its source, and drops what is banned,
//! forged or too much.
//!
//! It fails open: whatever it cannot read or look up passes, and is counted under the cause. It must not know SMTP; what
//! it is told about sources comes through the maps, by one writer. One function per question: `packet` reads headers,
//! `verdict` asks the lists, `account` counts and limits, and `decide` below is the only place that makes an XDP action.

#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "the target has atomics in its instructions, but not in core::sync::atomic")]

mod account;
mod announce;
mod chain;
mod maps;
mod packet;
mod stop;
mod verdict;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use gateway_common::{CONFIG_MAGIC, Config, outcome};

use crate::maps::count_packet;
use crate::packet::Segment;
use crate::stop::{Stop, refuse};

/// For cards whose packets begin with an Ethernet header.
#[xdp]
fn smtp_gateway(ctx: XdpContext) -> u32 {
    decide(&ctx, packet::ethernet)
}

/// For tunnels, whose packets begin with an IP header.
#[xdp]
fn smtp_gateway_ip(ctx: XdpContext) -> u32 {
    decide(&ctx, packet::ip)
}

#[inline(always)]
fn decide(ctx: &XdpContext, parse: fn(&XdpContext) -> Result<Segment, Stop>) -> u32 {
    let bytes = (ctx.data_end() - ctx.data()) as u64;
    let mut attempts = 0;
    match judge(ctx, parse, bytes, &mut attempts) {
        Ok(outcome) | Err(Stop::Pass(outcome)) => {
            count_packet(outcome, bytes, attempts);
            XDP_PASS
        }
        Err(Stop::Drop(outcome) | Stop::Refuse(outcome)) => {
            count_packet(outcome, bytes, attempts);
            XDP_DROP
        }
    }
}

/// The outcome of a packet that goes its way; `attempts` becomes 1 if it asks a listener for a connection.
#[inline(always)]
fn judge(
    ctx: &XdpContext,
    parse: fn(&XdpContext) -> Result<Segment, Stop>,
    bytes: u64,
    attempts: &mut u64,
) -> Result<u32, Stop> {
    let segment = match parse(ctx) {
        Err(Stop::Refuse(cause)) => return refuse(configuration()?, cause),
        parsed => parsed?,
    };
    let config = configuration()?;
    *attempts = u64::from(segment.is_sure_attempt());
    let standing = verdict::standing(ctx, config, &segment)?;
    account::account(ctx, config, &segment, standing, bytes)
}

#[inline(always)]
fn configuration() -> Result<&'static Config, Stop> {
    let config = maps::config().ok_or(Stop::Pass(outcome::PASS_FAULT))?;
    if config.magic != CONFIG_MAGIC {
        return Err(Stop::Pass(outcome::PASS_UNCONFIGURED));
    }
    Ok(config)
}

/// Nothing here panics: indices are checked by hand, because the kernel's verifier wants to see the checks. What the
/// compiler leaves of a panic would be refused at load.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
