//! Follows IPv6 extension headers to TCP, as the IP stack does (RFC 8200 section 4).
//!
//! A function of its own, which is no part of the common path: headers between IPv6 and TCP are rare.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use gateway_common::outcome;

use crate::packet::{TCP, at};

/// Each of the kinds there are, and two to spare. The stack follows as many as fit into a packet.
const EXTENSIONS_MAX: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const ENCRYPTED: u8 = 50;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

/// Where a chain of headers led.
pub(crate) enum Chain {
    Tcp {
        /// Octets of extension headers.
        extensions: usize,
        /// Octets of TCP in this packet.
        octets: usize,
        is_first_fragment: bool,
    },
    /// A fragment of TCP that is not the first, at so many times eight octets.
    LaterFragment(usize),
    /// Nobody can say, for this reason: an outcome.
    Unreadable(u32),
    /// Not to TCP: an outcome.
    Pass(u32),
}

#[repr(C)]
struct Extension {
    next: u8,
    length: u8,
    offset_more: [u8; 2],
    rest: [u8; 4],
}

/// A [`Chain`] as one word, which is what a function in the kernel can return: a number in the lower half, in the upper
/// half what it means.
mod word {
    pub(super) const NUMBER: u64 = 0xffff_ffff;
    pub(super) const TCP: u64 = 0;
    pub(super) const TCP_FIRST_FRAGMENT: u64 = 1 << 32;
    pub(super) const LATER_FRAGMENT: u64 = 2 << 32;
    pub(super) const UNREADABLE: u64 = 3 << 32;
    pub(super) const PASS: u64 = 4 << 32;
}

/// Follows the chain that begins at `start` with a header of the kind `first`. `payload` is what the IPv6 header says comes
/// after it.
#[inline(always)]
pub(crate) fn follow(ctx: &XdpContext, start: usize, first: u8, payload: usize) -> Chain {
    // Without a length, a packet with hop-by-hop options is as long as its frame (RFC 2675; the stack does not look whether
    // there is a jumbo payload option).
    let payload = if payload == 0 && first == HOP_BY_HOP { 0xffff } else { payload };
    let found = walk(ctx.ctx, start as u64, first.into(), payload as u64);
    let number = found & word::NUMBER;
    match found & !word::NUMBER {
        kind @ (word::TCP | word::TCP_FIRST_FRAGMENT) => Chain::Tcp {
            // Bounded again, for the verifier: eight headers of at most 2 KiB.
            extensions: number as usize & 0x7fff,
            octets: payload.wrapping_sub(number as usize),
            is_first_fragment: kind == word::TCP_FIRST_FRAGMENT,
        },
        word::LATER_FRAGMENT => Chain::LaterFragment(number as usize),
        word::UNREADABLE => Chain::Unreadable(number as u32),
        _ => Chain::Pass(number as u32),
    }
}

#[inline(never)]
fn walk(ctx: *mut xdp_md, start: u64, first: u64, payload: u64) -> u64 {
    let ctx = &XdpContext::new(ctx);
    let unreadable = |why: u32| word::UNREADABLE | u64::from(why);
    let pass = |outcome: u32| word::PASS | u64::from(outcome);
    let mut next = first as u8;
    let mut passed = 0_u64;
    let mut tcp = word::TCP;
    for _ in 0..EXTENSIONS_MAX {
        match next {
            TCP => break,
            HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION => {}
            // Only who shares a key with this host gets further than that.
            ENCRYPTED => return pass(outcome::PASS_EXTENSIONS),
            _ => return pass(outcome::PASS_NOT_TCP),
        }
        if passed + size_of::<Extension>() as u64 > payload {
            return beyond(tcp);
        }
        let Some(extension) = at::<Extension>(ctx, (start + passed) as usize & 0x7fff) else {
            return unreadable(outcome::PASS_TRUNCATED);
        };
        let length = u64::from(extension.length);
        passed += match next {
            FRAGMENT => {
                let offset_more = u16::from_be_bytes(extension.offset_more);
                if offset_more & 0xfff8 != 0 {
                    return later(extension.next, offset_more >> 3);
                }
                if offset_more & 1 != 0 {
                    tcp = word::TCP_FIRST_FRAGMENT;
                }
                size_of::<Extension>() as u64
            }
            AUTHENTICATION => (length + 2) * 4,
            _ => (length + 1) * 8,
        };
        next = extension.next;
    }
    if next != TCP {
        return unreadable(outcome::PASS_EXTENSIONS);
    }
    if passed > payload {
        return beyond(tcp);
    }
    tcp | passed
}

/// A chain that goes on behind the packet's end: in the next fragment, or nowhere.
#[inline(always)]
fn beyond(tcp: u64) -> u64 {
    match tcp {
        word::TCP_FIRST_FRAGMENT => word::UNREADABLE | u64::from(outcome::PASS_FRAGMENT),
        _ => word::PASS | u64::from(outcome::PASS_MALFORMED),
    }
}

/// A fragment that is not the first.
#[inline(always)]
fn later(next: u8, place: u16) -> u64 {
    match next {
        TCP => word::LATER_FRAGMENT | u64::from(place),
        _ => word::PASS | u64::from(outcome::PASS_FRAGMENT),
    }
}
