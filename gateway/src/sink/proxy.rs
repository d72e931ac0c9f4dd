//! The PROXY protocol as a server reads it: a header of version 1 or 2 that must come before anything else.
//!
//! Malformed is malformed: leading zeros, double spaces, a wrong checksum close the connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::event::{By, Client};
use super::options::SinkIdentity;

const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest header of version 1, with its CRLF.
const V1_LEN_MAX: usize = 107;
/// The longest header of version 2 taken: nobody needs more, and nothing may grow without bound.
const V2_LEN_MAX: usize = 2048;
/// Version 2, command LOCAL: the balancer speaks for itself.
const LOCAL: u8 = 0x20;
/// Version 2, command PROXY.
const PROXY: u8 = 0x21;
/// Type of the checksum TLV.
const PP2_TYPE_CRC32C: u8 = 0x03;

/// What the first bytes of a connection are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Header {
    /// The beginning of a header, perhaps.
    Partial,
    /// A header: its length, and the client it names; `None`: the client is the peer.
    Whole(usize, Option<Named>, By),
    /// No header, or not of a version that is taken.
    Malformed,
}

/// Who connected to where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Named {
    source: (IpAddr, u16),
    destination: (IpAddr, u16),
}

impl Named {
    /// Puts what the header said into `client`.
    pub(super) fn apply(self, client: &mut Client) {
        let Self { source, destination } = self;
        client.believed = Some(source.0.to_canonical());
        client.port = Some(source.1);
        client.destination = Some(destination.0.to_canonical());
        client.destination_port = Some(destination.1);
    }
}

/// Reads a header that `identity` wants from the head of `input`.
pub(super) fn parse(identity: SinkIdentity, input: &[u8]) -> Header {
    let v1 = matches!(identity, SinkIdentity::ProxyV1 | SinkIdentity::Proxy);
    let v2 = matches!(identity, SinkIdentity::ProxyV2 | SinkIdentity::Proxy);
    let begins = |signature: &[u8]| {
        let len = input.len().min(signature.len());
        input[..len] == signature[..len]
    };
    let parsed = if v2 && begins(V2_SIGNATURE) {
        parse_v2(input)
    } else if v1 && begins(b"PROXY ") {
        parse_v1(input)
    } else {
        None
    };
    parsed.unwrap_or(Header::Malformed)
}

/// `None`: malformed.
fn parse_v1(input: &[u8]) -> Option<Header> {
    let window = &input[..input.len().min(V1_LEN_MAX)];
    let Some(end) = memchr::memchr(b'\n', window) else {
        return (input.len() < V1_LEN_MAX).then_some(Header::Partial);
    };
    let line = std::str::from_utf8(&input[..end]).ok()?.strip_suffix('\r')?.strip_prefix("PROXY ")?;
    let named = match line.split(' ').collect::<Vec<_>>()[..] {
        ["UNKNOWN", ..] => None,
        ["TCP4", source, destination, source_port, destination_port] => {
            let ip = |text: &str| text.parse::<Ipv4Addr>().ok().map(IpAddr::V4);
            Some(Named {
                source: (ip(source)?, v1_port(source_port)?),
                destination: (ip(destination)?, v1_port(destination_port)?),
            })
        }
        ["TCP6", source, destination, source_port, destination_port] => {
            let ip = |text: &str| text.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
            Some(Named {
                source: (ip(source)?, v1_port(source_port)?),
                destination: (ip(destination)?, v1_port(destination_port)?),
            })
        }
        _ => return None,
    };
    Some(Header::Whole(end + 1, named, By::ProxyV1))
}

fn v1_port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

/// `None`: malformed.
fn parse_v2(input: &[u8]) -> Option<Header> {
    let Some((&[version_command, family, high, low], body)) =
        input.get(V2_SIGNATURE.len()..).and_then(<[u8]>::split_first_chunk::<4>)
    else {
        return Some(Header::Partial);
    };
    let len = usize::from(u16::from_be_bytes([high, low]));
    let whole = V2_SIGNATURE.len() + 4 + len;
    if whole > V2_LEN_MAX || !matches!(version_command, LOCAL | PROXY) {
        return None;
    }
    let Some(body) = body.get(..len) else { return Some(Header::Partial) };
    let (named, tlvs) = match family {
        // LOCAL, or UNSPEC: the peer speaks for itself, and what follows need not be understood.
        _ if version_command == LOCAL => (None, &[][..]),
        0x00 => (None, &[][..]),
        0x11 => {
            let (&[a, b, c, d, e, f, g, h, sp @ .., dh, dl], tlvs) = body.split_first_chunk::<12>()?;
            let source = (Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes(sp));
            let destination = (Ipv4Addr::new(e, f, g, h).into(), u16::from_be_bytes([dh, dl]));
            (Some(Named { source, destination }), tlvs)
        }
        0x21 => {
            let (source, rest) = body.split_first_chunk::<16>()?;
            let (destination, rest) = rest.split_first_chunk::<16>()?;
            let (&[sh, sl, dh, dl], tlvs) = rest.split_first_chunk::<4>()?;
            let source = (Ipv6Addr::from(*source).into(), u16::from_be_bytes([sh, sl]));
            let destination = (Ipv6Addr::from(*destination).into(), u16::from_be_bytes([dh, dl]));
            (Some(Named { source, destination }), tlvs)
        }
        _ => return None,
    };
    tlvs_hold(tlvs, &input[..whole])?;
    Some(Header::Whole(whole, named, By::ProxyV2))
}

/// Whether the TLVs fill their place exactly, and a checksum among them is right.
fn tlvs_hold(mut tlvs: &[u8], header: &[u8]) -> Option<()> {
    while let Some((&[kind, high, low], rest)) = tlvs.split_first_chunk::<3>() {
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
        if kind == PP2_TYPE_CRC32C {
            let at = header.len().checked_sub(rest.len() + value.len())?;
            let expected = u32::from_be_bytes(value.try_into().ok()?);
            let zeroed = header[..at].iter().chain(&[0; 4]).chain(&header[at + 4..]);
            if crc32c(zeroed) != expected {
                return None;
            }
        }
        tlvs = rest;
    }
    tlvs.is_empty().then_some(())
}

fn crc32c<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    !bytes.fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 })
    })
}
