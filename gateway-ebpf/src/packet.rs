//! From a packet to a TCP segment for a listener, or the reason why it is none.
//!
//! Whatever the IP stack would go on with must come out of here as a segment: what passed unread would pass every list. So
//! headers are followed as the stack follows them. Where that ends before the port, because a fragment is too small or a
//! chain of headers too long, the segment is [unreadable](Segment::unreadable), and its source is judged by itself.
//! What passes unseen is what is for nobody here, or what the stack discards.
//!
//! Every read is preceded by a comparison with the packet's end, in the one form the kernel's verifier understands.

use aya_ebpf::programs::XdpContext;
use gateway_common::{SourceKey, outcome};

use crate::chain::{self, Chain};
use crate::maps;
use crate::stop::Stop;

const ETHERNET: usize = 14;
/// Two are in use. The stack takes off any number of those for VLAN 0, which only say a priority.
const VLAN_TAGS_MAX: usize = 8;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;
const VLAN_SERVICE: u16 = 0x88a8;

pub(crate) const TCP: u8 = 6;
const TCP_HEADER: usize = 20;
const TCP_PORTS: usize = 4;
const FIN: u16 = 1;
const SYN: u16 = 2;
const RST: u16 = 4;
const ACK: u16 = 16;
/// Above TCP's flags stands why a segment is unreadable: an outcome below `LISTENER`, or 0.
const WHY_SHIFT: u32 = 8;

/// Who sent it, as the wire has it. No enum: of one the compiler would copy octets that nobody ever wrote, which the kernel's
/// verifier refuses to read.
#[derive(Clone, Copy)]
pub(crate) struct Address {
    is_v4: bool,
    /// The octets in their order, an IPv4 address's first; the rest of its is zero. Words of four, for so the look-ups' keys
    /// are aligned.
    words: [[u8; 4]; 4],
}

/// An address of either family.
pub(crate) enum Octets {
    V4([u8; 4]),
    V6([u8; 16]),
}

impl Address {
    #[inline(always)]
    fn v4(octets: [u8; 4]) -> Self {
        Self { is_v4: true, words: [octets, [0; 4], [0; 4], [0; 4]] }
    }

    #[inline(always)]
    fn v6([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]: [u8; 16]) -> Self {
        Self { is_v4: false, words: [[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]] }
    }

    #[inline(always)]
    pub(crate) fn octets(self) -> Octets {
        let [[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]] = self.words;
        if self.is_v4 {
            return Octets::V4([a, b, c, d]);
        }
        Octets::V6([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p])
    }

    /// The key of an address that no source can have is zero, for the same reason.
    #[inline(always)]
    fn key(self) -> SourceKey {
        match self.octets() {
            Octets::V4(octets) => SourceKey::v4(octets),
            Octets::V6(octets) => SourceKey::v6(octets).unwrap_or(SourceKey([0; 8])),
        }
    }
}

/// A TCP segment to a listener's port, or one of which nobody can say whether it is.
#[derive(Clone, Copy)]
pub(crate) struct Segment {
    pub(crate) address: Address,
    key: SourceKey,
    /// Zero if it cannot be read.
    pub(crate) port: [u8; 2],
    flags: u16,
}

impl Segment {
    /// One whose port cannot be read, and why: an outcome. It may be a connection attempt, and so is treated as one.
    #[inline(always)]
    fn unreadable(address: Address, why: u32) -> Self {
        Self { address, key: address.key(), port: [0; 2], flags: (why as u16) << WHY_SHIFT | SYN }
    }

    /// `None`: an address that no source can have.
    #[inline(always)]
    pub(crate) fn key(&self) -> Option<SourceKey> {
        if self.key.word() == 0 { None } else { Some(self.key) }
    }

    /// Why its port cannot be read, if so.
    #[inline(always)]
    pub(crate) fn why_unreadable(&self) -> Option<u32> {
        let why = self.flags >> WHY_SHIFT;
        if why == 0 { None } else { Some(why.into()) }
    }

    /// Whether it asks for a connection, or may do so.
    #[inline(always)]
    pub(crate) fn is_attempt(&self) -> bool {
        self.flags & (SYN | ACK) == SYN
    }

    /// Whether it is to a listener and asks for a connection.
    #[inline(always)]
    pub(crate) fn is_sure_attempt(&self) -> bool {
        self.flags & (!0 << WHY_SHIFT | SYN | ACK) == SYN
    }

    /// Whether it ends one.
    #[inline(always)]
    pub(crate) fn is_end(&self) -> bool {
        self.flags & (FIN | RST) != 0
    }
}

/// Where a packet's TCP header is.
#[derive(Clone, Copy)]
struct Transport {
    offset: usize,
    /// Octets of TCP that the IP header says there are in this packet.
    octets: usize,
    /// Whether the rest comes in other fragments.
    is_first_fragment: bool,
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
struct Tcp {
    source: [u8; 2],
    destination: [u8; 2],
    sequence: [u8; 4],
    acknowledgement: [u8; 4],
    offset: u8,
    flags: u8,
    window_checksum_urgent: [u8; 6],
}

/// A header at an offset, if the packet holds all of it.
#[inline(always)]
pub(crate) fn at<T>(ctx: &XdpContext, offset: usize) -> Option<&T> {
    let start = ctx.data() + offset;
    if start + size_of::<T>() > ctx.data_end() {
        return None;
    }
    // SAFETY: checked to lie within the packet; every T here consists of bytes, so any content and any place will do.
    Some(unsafe { &*(start as *const T) })
}

const TRUNCATED: Stop = Stop::Pass(outcome::PASS_TRUNCATED);
const MALFORMED: Stop = Stop::Pass(outcome::PASS_MALFORMED);

/// A packet that begins with an Ethernet header.
#[inline(always)]
pub(crate) fn ethernet(ctx: &XdpContext) -> Result<Segment, Stop> {
    let mut offset = ETHERNET;
    let mut ether_type = u16::from_be_bytes(*at::<[u8; 2]>(ctx, ETHERNET - 2).ok_or(TRUNCATED)?);
    for _ in 0..VLAN_TAGS_MAX {
        if ether_type != VLAN && ether_type != VLAN_SERVICE {
            break;
        }
        ether_type = u16::from_be_bytes(*at::<[u8; 2]>(ctx, offset + 2).ok_or(TRUNCATED)?);
        offset += 4;
    }
    match ether_type {
        IPV4 => ipv4(ctx, offset),
        IPV6 => ipv6(ctx, offset),
        VLAN | VLAN_SERVICE => Err(Stop::Refuse(outcome::DROP_VLAN_DEPTH)),
        _ => Err(Stop::Pass(outcome::PASS_NOT_IP)),
    }
}

/// A packet that begins with an IP header, as those of a tunnel do.
#[inline(always)]
pub(crate) fn ip(ctx: &XdpContext) -> Result<Segment, Stop> {
    // The shorter of the two headers; a lone octet would be compared with the end in a form the verifier does not know.
    match at::<Ipv4>(ctx, 0).ok_or(TRUNCATED)?.version_length >> 4 {
        4 => ipv4(ctx, 0),
        6 => ipv6(ctx, 0),
        _ => Err(Stop::Pass(outcome::PASS_NOT_IP)),
    }
}

#[inline(always)]
fn ipv4(ctx: &XdpContext, offset: usize) -> Result<Segment, Stop> {
    let header: &Ipv4 = at(ctx, offset).ok_or(TRUNCATED)?;
    let length = usize::from(header.version_length & 0x0f) * 4;
    if header.version_length >> 4 != 4 || length < size_of::<Ipv4>() {
        return Err(MALFORMED);
    }
    if header.protocol != TCP {
        return Err(Stop::Pass(outcome::PASS_NOT_TCP));
    }
    let total = usize::from(u16::from_be_bytes(header.total_length));
    let fragment = u16::from_be_bytes(header.fragment);
    let address = Address::v4(header.source);
    if fragment & 0x1fff != 0 {
        return later_fragment(usize::from(fragment & 0x1fff), address);
    }
    // None at all is what the stack's own segments of more than 64 KiB have.
    let octets = if total == 0 { TCP_HEADER } else { total.wrapping_sub(length) };
    if total != 0 && total < length {
        return Err(MALFORMED);
    }
    let transport = Transport { offset: offset + length, octets, is_first_fragment: fragment & 0x2000 != 0 };
    tcp(ctx, transport, address)
}

#[inline(always)]
fn ipv6(ctx: &XdpContext, offset: usize) -> Result<Segment, Stop> {
    let header: &Ipv6 = at(ctx, offset).ok_or(TRUNCATED)?;
    if header.version_class_flow[0] >> 4 != 6 {
        return Err(MALFORMED);
    }
    let address = Address::v6(header.source);
    let payload = usize::from(u16::from_be_bytes(header.payload_length));
    let start = offset + size_of::<Ipv6>();
    if header.next == TCP {
        let transport = Transport { offset: start, octets: payload, is_first_fragment: false };
        return tcp(ctx, transport, address);
    }
    match chain::follow(ctx, start, header.next, payload) {
        Chain::Tcp { extensions, octets, is_first_fragment } => {
            tcp(ctx, Transport { offset: start + extensions, octets, is_first_fragment }, address)
        }
        Chain::LaterFragment(place) => later_fragment(place, address),
        Chain::Unreadable(why) => Ok(Segment::unreadable(address, why)),
        Chain::Pass(outcome) => Err(Stop::Pass(outcome)),
    }
}

/// A fragment of a TCP segment that is not its first, `place` times eight octets behind it: the first one is judged. But the
/// first has all of TCP's header, so one that would hold a part of it, too, wants to have it read in two ways.
#[inline(always)]
fn later_fragment(place: usize, address: Address) -> Result<Segment, Stop> {
    if place * 8 < TCP_HEADER {
        return Ok(Segment::unreadable(address, outcome::PASS_FRAGMENT));
    }
    Err(Stop::Pass(outcome::PASS_FRAGMENT))
}

#[inline(always)]
fn tcp(
    ctx: &XdpContext,
    Transport { offset, octets, is_first_fragment }: Transport,
    address: Address,
) -> Result<Segment, Stop> {
    if octets < TCP_HEADER {
        if !is_first_fragment {
            return Err(MALFORMED);
        }
        // Of so much at least the port is there, and what is for nobody here is nobody's business.
        if octets >= TCP_PORTS
            && let Some([_, _, high, low]) = at::<[u8; TCP_PORTS]>(ctx, offset)
            && !maps::is_listener(u16::from_be_bytes([*high, *low]))
        {
            return Err(Stop::Pass(outcome::PASS_OTHER_PORT));
        }
        return Ok(Segment::unreadable(address, outcome::PASS_FRAGMENT));
    }
    let Some(header) = at::<Tcp>(ctx, offset) else {
        return Ok(Segment::unreadable(address, outcome::PASS_TRUNCATED));
    };
    if !maps::is_listener(u16::from_be_bytes(header.destination)) {
        return Err(Stop::Pass(outcome::PASS_OTHER_PORT));
    }
    if usize::from(header.offset >> 4) * 4 < TCP_HEADER {
        return Err(MALFORMED);
    }
    Ok(Segment { address, key: address.key(), port: header.destination, flags: header.flags.into() })
}
