//! What the lists say of a segment's source: allowed, denied, or nothing.
//!
//! The allow list is asked first, and who is on it is neither banned nor limited. Two bit maps say which lists can know
//! the source at all, so long lists cost strangers nothing.

use aya_ebpf::programs::XdpContext;
use gateway_common::{Config, DENY_ALL_PACKETS, Deny, INTERFACE_OUTSIDE, net_bits_v4, net_bits_v6, outcome};

use crate::account::announce;
use crate::packet::{Address, Segment};
use crate::{Stop, maps, refuse};

const ASK_ALLOW: u64 = 1;
const ASK_DENY: u64 = 2;

/// How a source stands with the lists; what a packet that is not dropped counts as.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// On no list.
    Stranger,
    /// On the allow list.
    Allowed,
    /// Denied, but spared, under this outcome: mail in transfer, or monitor-only mode.
    Spared(u32),
}

#[inline(always)]
pub(crate) fn standing(ctx: &XdpContext, config: &Config, segment: &Segment) -> Result<Standing, Stop> {
    let asked = maps::net_bits(match segment.address {
        Address::V4(address) => net_bits_v4(address),
        Address::V6(address) => net_bits_v6(address),
    });
    if asked & ASK_ALLOW != 0 && is_allowed(segment) {
        return Ok(Standing::Allowed);
    }
    if let Some(key) = segment.key
        && maps::may_be_banned(key)
        && let Some(ban) = maps::ban(key)
        && let Some(standing) = denied(ctx, config, segment, ban)?
    {
        return Ok(standing);
    }
    if asked & ASK_DENY != 0 {
        let entry = match segment.address {
            Address::V4(address) => maps::denied_v4(address),
            Address::V6(address) => maps::denied_v6(address),
        };
        if let Some(entry) = entry
            && let Some(standing) = denied(ctx, config, segment, entry)?
        {
            return Ok(standing);
        }
    }
    Ok(Standing::Stranger)
}

#[inline(always)]
fn is_allowed(segment: &Segment) -> bool {
    match segment.address {
        Address::V4(address) => maps::allowed_v4(address),
        Address::V6(address) => maps::allowed_v6(address),
    }
}

/// What an entry of the deny lists means for this segment; `None`: nothing, because its time is over, or because the
/// packet came from inside.
#[inline(always)]
fn denied(ctx: &XdpContext, config: &Config, segment: &Segment, entry: *mut Deny) -> Result<Option<Standing>, Stop> {
    // SAFETY: a map value; userspace replaces entries and never writes into them, so what is read belongs together.
    let Deny { until_ns, cause, flags, reason, .. } = unsafe { *entry };
    let is_address_fault = cause == outcome::DROP_BOGON || cause == outcome::DROP_SPOOFED;
    if is_address_fault {
        // SAFETY: the context is the kernel's.
        let interface = unsafe { (*ctx.ctx).ingress_ifindex };
        if maps::interface_flags(interface) & INTERFACE_OUTSIDE == 0 {
            return Ok(None);
        }
    } else if cause != outcome::DROP_BAN && cause != outcome::DROP_BAN_NETWORK {
        return Err(Stop::Pass(outcome::PASS_FAULT));
    }
    let now = maps::now();
    if now >= until_ns {
        maps::count(outcome::BANS_EXPIRED);
        return Ok(None);
    }
    if flags & DENY_ALL_PACKETS == 0 && !segment.is_attempt() {
        return Ok(Some(Standing::Spared(outcome::PASS_BANNED_ESTABLISHED)));
    }
    // SAFETY: fields of the same map value.
    let dropped = unsafe {
        (&raw mut (*entry).last_dropped_ns).write(now);
        maps::add_one(&raw mut (*entry).dropped)
    };
    let spared = refuse(config, cause);
    announce(ctx, config, segment, &spared, reason, dropped, now);
    Ok(Some(Standing::Spared(spared?)))
}
