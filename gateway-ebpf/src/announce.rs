//! Tells userspace of refusals.

use aya_ebpf::programs::XdpContext;
use gateway_common::maps::BUCKET_EVENT;
use gateway_common::{Config, Event, outcome};

use crate::maps;
use crate::packet::{Octets, Segment};
use crate::stop::Stop;

/// Tells userspace of a refusal, at the 1st, 2nd, 4th, 8th … of one source or network.
#[inline(always)]
pub(crate) fn announce(
    ctx: &XdpContext,
    config: &Config,
    segment: &Segment,
    refusal: &Result<u32, Stop>,
    reason: u32,
    dropped: u64,
    now: u64,
) {
    if dropped & dropped.wrapping_sub(1) != 0
        || !maps::take(BUCKET_EVENT, config.event_interval_ns, config.event_burst_ns, now)
    {
        return;
    }
    let (Ok(outcome) | Err(Stop::Drop(outcome) | Stop::Pass(outcome) | Stop::Refuse(outcome))) = *refusal;
    let source = match segment.address.octets() {
        Octets::V4([a, b, c, d]) => [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d],
        Octets::V6(address) => address,
    };
    let Some(mut entry) = maps::EVENTS.reserve::<Event>(0) else {
        maps::count(outcome::EVENTS_LOST);
        return;
    };
    // SAFETY: the context is the kernel's.
    let interface = unsafe { (*ctx.ctx).ingress_ifindex };
    let port = segment.port;
    entry.write(Event { time_ns: now, source, dropped, outcome, reason, interface, port, reserved: [0; 2] });
    entry.submit(0);
}
