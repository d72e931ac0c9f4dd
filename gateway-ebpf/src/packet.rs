//! From a frame to a TCP segment for a listener, or the reason why it is none.
//!
//! Every read is preceded by a comparison with the frame's end, in the one form the kernel's verifier understands.

use aya_ebpf::programs::XdpContext;
use gateway_common::{SourceKey, outcome};

use crate::{Stop, maps};

const ETHERNET: usize = 14;
const VLAN_TAGS_MAX: usize = 2;
const EXTENSIONS_MAX: usize = 4;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;
const VLAN_SERVICE: u16 = 0x88a8;

const TCP: u8 = 6;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const ENCRYPTED: u8 = 50;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

const TCP_HEADER: usize = 20;
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// Who sent it, as the wire has it.
#[derive(Clone, Copy)]
pub(crate) enum Address {
    V4([u8; 4]),
    V6([u8; 16]),
}

/// A TCP segment to a listener's port.
#[derive(Clone, Copy)]
pub(crate) struct Segment {
    pub(crate) address: Address,
    /// `None`: an address that no source can have.
    pub(crate) key: Option<SourceKey>,
    pub(crate) port: [u8; 2],
    flags: u8,
}

impl Segment {
    /// Whether it asks for a connection.
    #[inline(always)]
    pub(crate) fn is_attempt(&self) -> bool {
        self.flags & (SYN | ACK) == SYN
    }

    /// Whether it ends one.
    #[inline(always)]
    pub(crate) fn is_end(&self) -> bool {
        self.flags & (FIN | RST) != 0
    }
}

/// The headers that are looked at, as the wire has them; all of bytes, so they may lie anywhere.
#[repr(C)]
struct Ipv4 {
    version_length: u8,
    service: u8,
    total_length: [u8; 2],
    identification: [u8; 2],
    fragment: [u8; 2],
    ttl: u8,
    protocol: u8,
    checksum: [u8; 2],
    source: [u8; 4],
    destination: [u8; 4],
}

#[repr(C)]
struct Ipv6 {
    version_class_flow: [u8; 4],
    payload_length: [u8; 2],
    next: u8,
    hops: u8,
    source: [u8; 16],
    destination: [u8; 16],
}

#[repr(C)]
struct Extension {
    next: u8,
    length: u8,
    offset_more: [u8; 2],
    rest: [u8; 4],
}

#[repr(C)]
struct Tcp {
    source: [u8; 2],
    destination: [u8; 2],
    sequence: [u8; 4],
    acknowledgement: [u8; 4],
    offset: u8,
    flags: u8,
    window_checksum_urgent: [u8; 6],
}

/// A header at an offset, if the frame holds all of it.
#[inline(always)]
fn at<T>(ctx: &XdpContext, offset: usize) -> Result<&T, Stop> {
    let start = ctx.data() + offset;
    if start + size_of::<T>() > ctx.data_end() {
        return Err(Stop::Pass(outcome::PASS_TRUNCATED));
    }
    // SAFETY: checked to lie within the frame; every T here consists of bytes, so any content and any place will do.
    Ok(unsafe { &*(start as *const T) })
}

#[inline(always)]
pub(crate) fn parse(ctx: &XdpContext) -> Result<Segment, Stop> {
    let mut offset = ETHERNET;
    let mut ether_type = u16::from_be_bytes(*at::<[u8; 2]>(ctx, ETHERNET - 2)?);
    for _ in 0..VLAN_TAGS_MAX {
        if ether_type != VLAN && ether_type != VLAN_SERVICE {
            break;
        }
        ether_type = u16::from_be_bytes(*at::<[u8; 2]>(ctx, offset + 2)?);
        offset += 4;
    }
    match ether_type {
        IPV4 => ipv4(ctx, offset),
        IPV6 => ipv6(ctx, offset),
        VLAN | VLAN_SERVICE => Err(Stop::Pass(outcome::PASS_VLAN_DEPTH)),
        _ => Err(Stop::Pass(outcome::PASS_NOT_IP)),
    }
}

#[inline(always)]
fn ipv4(ctx: &XdpContext, offset: usize) -> Result<Segment, Stop> {
    let header: &Ipv4 = at(ctx, offset)?;
    let length = usize::from(header.version_length & 0x0f) * 4;
    if header.version_length >> 4 != 4 || length < size_of::<Ipv4>() {
        return Err(Stop::Pass(outcome::PASS_MALFORMED));
    }
    if header.protocol != TCP {
        return Err(Stop::Pass(outcome::PASS_NOT_TCP));
    }
    let total = usize::from(u16::from_be_bytes(header.total_length));
    let fragment = u16::from_be_bytes(header.fragment);
    let source = header.source;
    // A first fragment with a whole TCP header is treated as what it begins; else a split SYN would pass by every list.
    let is_first = fragment & 0x3fff == 0x2000;
    if fragment & 0x1fff != 0 || (is_first && total < length + TCP_HEADER) {
        return Err(Stop::Pass(outcome::PASS_FRAGMENT));
    }
    if total < length + TCP_HEADER {
        return Err(Stop::Pass(outcome::PASS_MALFORMED));
    }
    tcp(ctx, offset + length, Address::V4(source), Some(SourceKey::v4(source)))
}

#[inline(always)]
fn ipv6(ctx: &XdpContext, offset: usize) -> Result<Segment, Stop> {
    let header: &Ipv6 = at(ctx, offset)?;
    if header.version_class_flow[0] >> 4 != 6 {
        return Err(Stop::Pass(outcome::PASS_MALFORMED));
    }
    let source = header.source;
    let payload = usize::from(u16::from_be_bytes(header.payload_length));
    let mut next = header.next;
    let mut extensions = 0;
    let mut is_fragment = false;
    for _ in 0..EXTENSIONS_MAX {
        if next == TCP {
            break;
        }
        let extension: &Extension = match next {
            HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION => {
                at(ctx, offset + size_of::<Ipv6>() + extensions)?
            }
            ENCRYPTED => return Err(Stop::Pass(outcome::PASS_EXTENSIONS)),
            _ => return Err(Stop::Pass(outcome::PASS_NOT_TCP)),
        };
        let length = usize::from(extension.length);
        extensions += match next {
            FRAGMENT => {
                if u16::from_be_bytes(extension.offset_more) & 0xfff8 != 0 {
                    return Err(Stop::Pass(outcome::PASS_FRAGMENT));
                }
                is_fragment = true;
                size_of::<Extension>()
            }
            AUTHENTICATION => (length + 2) * 4,
            _ => (length + 1) * 8,
        };
        next = extension.next;
    }
    if next != TCP {
        return Err(Stop::Pass(outcome::PASS_EXTENSIONS));
    }
    if payload < extensions + TCP_HEADER {
        let reason = if is_fragment { outcome::PASS_FRAGMENT } else { outcome::PASS_MALFORMED };
        return Err(Stop::Pass(reason));
    }
    tcp(ctx, offset + size_of::<Ipv6>() + extensions, Address::V6(source), SourceKey::v6(source))
}

#[inline(always)]
fn tcp(ctx: &XdpContext, offset: usize, address: Address, key: Option<SourceKey>) -> Result<Segment, Stop> {
    let header: &Tcp = at(ctx, offset)?;
    if !maps::is_listener(u16::from_be_bytes(header.destination)) {
        return Err(Stop::Pass(outcome::PASS_OTHER_PORT));
    }
    if usize::from(header.offset >> 4) * 4 < TCP_HEADER {
        return Err(Stop::Pass(outcome::PASS_MALFORMED));
    }
    Ok(Segment { address, key, port: header.destination, flags: header.flags })
}
