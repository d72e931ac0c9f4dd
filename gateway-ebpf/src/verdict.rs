//! What the lists say of a segment's source: allowed, denied, or nothing.
//!
//! The allow list is asked first, and who is on it is neither banned nor limited. Two bit maps say which lists can know
//! the source at all, so long lists cost strangers nothing.

use aya_ebpf::programs::XdpContext;
use gateway_common::{
    BanRow, Config, DENY_ALL_PACKETS, Deny, INTERFACE_OUTSIDE, SourceKey, net_bits_v4, net_bits_v6, outcome,
};

use crate::announce::announce;
use crate::maps;
use crate::packet::{Octets, Segment};
use crate::stop::{Stop, refuse};

const ASK_ALLOW: u64 = 1;
const ASK_DENY: u64 = 2;

/// How a source stands with the lists. One word, and no enum with something in it: of that the compiler would copy octets
/// that nobody ever wrote, which the kernel's verifier refuses to read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing(u32);

impl Standing {
    /// On no list.
    pub(crate) const STRANGER: Self = Self(u32::MAX);
    /// On the allow list.
    pub(crate) const ALLOWED: Self = Self(outcome::PASS_ALLOWED);

    /// What a packet that is not dropped counts as: only a stranger's as what it was `accounted`, else what the lists said of
    /// it. That may be that it is denied and spared, as mail in transfer, or in monitor-only mode.
    #[inline(always)]
    pub(crate) fn outcome_or(self, accounted: u32) -> u32 {
        if self == Self::STRANGER { accounted } else { self.0 }
    }
}

#[inline(always)]
pub(crate) fn standing(ctx: &XdpContext, config: &Config, segment: &Segment) -> Result<Standing, Stop> {
    let asked = maps::net_bits(match segment.address.octets() {
        Octets::V4(address) => net_bits_v4(address),
        Octets::V6(address) => net_bits_v6(address),
    });
    if asked & ASK_ALLOW != 0 && is_allowed(segment) {
        return Ok(Standing::ALLOWED);
    }
    if let Some(key) = segment.key()
        && maps::may_be_banned(key)
    {
        let standing = banned(ctx, config, segment, key)?;
        if standing != Standing::STRANGER {
            return Ok(standing);
        }
    }
    if asked & ASK_DENY != 0 {
        let entry = match segment.address.octets() {
            Octets::V4(address) => maps::denied_v4(address),
            Octets::V6(address) => maps::denied_v6(address),
        };
        if let Some(entry) = entry {
            return denied(ctx, config, segment, entry);
        }
    }
    Ok(Standing::STRANGER)
}

/// What the bans of single sources say.
#[inline(always)]
fn banned(ctx: &XdpContext, config: &Config, segment: &Segment, key: SourceKey) -> Result<Standing, Stop> {
    if let Octets::V4(address) = segment.address.octets() {
        let Some(row) = maps::ban_row(key) else { return Ok(Standing::STRANGER) };
        // SAFETY: a map value. Userspace changes it in place: what is read half-way is at worst a ban that is over.
        let [first, second] = unsafe { (*row).address };
        if first == address {
            return in_row(ctx, config, segment, row, 0);
        }
        if second == address {
            return in_row(ctx, config, segment, row, 1);
        }
        // SAFETY: as above.
        if unsafe { (*row).elsewhere } == 0 {
            return Ok(Standing::STRANGER);
        }
    }
    match maps::ban(key) {
        Some(ban) => denied(ctx, config, segment, ban),
        None => Ok(Standing::STRANGER),
    }
}

/// What a ban of the rows means for this segment.
#[inline(always)]
fn in_row(
    ctx: &XdpContext,
    config: &Config,
    segment: &Segment,
    row: *mut BanRow,
    place: usize,
) -> Result<Standing, Stop> {
    // SAFETY: fields of a map value, `place` being 0 or 1.
    let (until_ns, reason) = unsafe { ((*row).until_ns[place], (*row).reason[place]) };
    let now = maps::now();
    if now >= until_ns {
        maps::count(outcome::BANS_EXPIRED);
        return Ok(Standing::STRANGER);
    }
    if !segment.is_attempt() {
        return Ok(Standing(outcome::PASS_BANNED_ESTABLISHED));
    }
    // SAFETY: as above.
    let dropped = maps::add_one(unsafe { &raw mut (*row).dropped[place] });
    let spared = refuse(config, outcome::DROP_BAN);
    announce(ctx, config, segment, &spared, reason.into(), dropped, now);
    Ok(Standing(spared?))
}

#[inline(always)]
fn is_allowed(segment: &Segment) -> bool {
    match segment.address.octets() {
        Octets::V4(address) => maps::allowed_v4(address),
        Octets::V6(address) => maps::allowed_v6(address),
    }
}

/// What an entry of the deny lists means for this segment: nothing, if its time is over, or the packet came from inside.
#[inline(always)]
fn denied(ctx: &XdpContext, config: &Config, segment: &Segment, entry: *mut Deny) -> Result<Standing, Stop> {
    // SAFETY: a map value; userspace replaces entries and never writes into them, so what is read belongs together.
    let Deny { until_ns, cause, flags, reason, .. } = unsafe { *entry };
    let is_address_fault = cause == outcome::DROP_BOGON || cause == outcome::DROP_SPOOFED;
    if is_address_fault {
        // SAFETY: the context is the kernel's.
        let interface = unsafe { (*ctx.ctx).ingress_ifindex };
        if maps::interface_flags(interface) & INTERFACE_OUTSIDE == 0 {
            return Ok(Standing::STRANGER);
        }
    } else if cause != outcome::DROP_BAN && cause != outcome::DROP_BAN_NETWORK {
        return Err(Stop::Pass(outcome::PASS_FAULT));
    }
    let now = maps::now();
    if now >= until_ns {
        maps::count(outcome::BANS_EXPIRED);
        return Ok(Standing::STRANGER);
    }
    if flags & DENY_ALL_PACKETS == 0 && !segment.is_attempt() {
        return Ok(Standing(outcome::PASS_BANNED_ESTABLISHED));
    }
    // SAFETY: fields of the same map value.
    let dropped = unsafe {
        (&raw mut (*entry).last_dropped_ns).write(now);
        maps::add_one(&raw mut (*entry).dropped)
    };
    let spared = refuse(config, cause);
    announce(ctx, config, segment, &spared, reason, dropped, now);
    Ok(Standing(spared?))
}
