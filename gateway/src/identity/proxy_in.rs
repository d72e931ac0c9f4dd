//! PROXY protocol headers from load balancers (HAProxy's proxy-protocol.txt, versions 1 and 2).
//!
//! A header is read only from listed networks, on listeners that require it; it is never guessed. The parser is strict and
//! says that a header is faulty as soon as that is certain, so that a stranger's bytes are not waited for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::proxy_out::V2_SIGNATURE;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeader {
    /// The connection is relayed for this source, which connected to this destination.
    Proxied {
        /// The client.
        source: SocketAddr,
        /// The load balancer's own address that the client connected to.
        destination: SocketAddr,
    },
    /// The load balancer does not say who the client is: it speaks for itself (v2 LOCAL, v1 UNKNOWN), or for a connection that
    /// is none of TCP over IP (v2 UNSPEC, UNIX, UDP).
    Unnamed,
}

/// What stands at the head of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderParse {
    /// A prefix of a header.
    NeedMore,
    /// A header of `used` bytes; what follows is the client's.
    Complete {
        /// What it says.
        header: ProxyHeader,
        /// Its length in bytes.
        used: usize,
    },
    /// No header, or a bad one: close.
    Faulty(ProxyFault),
}

/// Why a header is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyFault {
    /// Neither version's first bytes.
    NoHeader,
    /// A version 1 line that breaks the grammar.
    BadLine,
    /// A version 2 header with another version, command, family, protocol or length.
    BadBinary,
    /// A version 2 header longer than [`V2_MAX`].
    TooLong,
    /// The CRC32C TLV does not match.
    BadChecksum,
    /// The source is an address that nobody has: unspecified, multicast, broadcast.
    ImpossibleSource,
}

/// Longest version 1 header, CRLF included.
pub const V1_MAX: usize = 107;
/// Longest version 2 header accepted, TLVs included.
pub const V2_MAX: usize = 4096;

const TLV_CRC32C: u8 = 0x03;

/// Whether this is the beginning of a header, of either version.
pub fn begins_header(input: &[u8]) -> bool {
    input.starts_with(b"PROXY ") || input.starts_with(&V2_SIGNATURE)
}

/// Whether a line of commands is what tells a header, of either version, where none was waited for. Version 2 begins with two
/// empty lines, which say nothing yet.
pub fn resumes_header(line: &[u8]) -> bool {
    line.starts_with(b"PROXY ") || line.starts_with(&V2_SIGNATURE[4..7])
}

/// Parses the header at the head of `input`.
pub fn parse_header(input: &[u8]) -> HeaderParse {
    let v1 = is_prefix(input, b"PROXY ");
    let parsed = if v1 {
        parse_v1(input)
    } else if is_prefix(input, &V2_SIGNATURE) {
        parse_v2(input)
    } else {
        Err(ProxyFault::NoHeader)
    };
    match parsed {
        Ok(None) => HeaderParse::NeedMore,
        Ok(Some((header, used))) => match header {
            ProxyHeader::Proxied { source, .. } if !is_possible(source.ip()) => {
                HeaderParse::Faulty(ProxyFault::ImpossibleSource)
            }
            header => HeaderParse::Complete { header, used },
        },
        Err(fault) => HeaderParse::Faulty(fault),
    }
}

type Parsed = Result<Option<(ProxyHeader, usize)>, ProxyFault>;

fn is_prefix(input: &[u8], signature: &[u8]) -> bool {
    let length = input.len().min(signature.len());
    input[..length] == signature[..length]
}

fn is_possible(ip: IpAddr) -> bool {
    !(ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST))
}

fn parse_v1(input: &[u8]) -> Parsed {
    let window = &input[..input.len().min(V1_MAX)];
    let Some(cr) = memchr::memchr2(b'\r', b'\n', window) else {
        return if input.len() >= V1_MAX { Err(ProxyFault::BadLine) } else { Ok(None) };
    };
    match window.get(cr..cr + 2) {
        Some(b"\r\n") => {}
        None if window[cr] == b'\r' && window.len() < V1_MAX => return Ok(None),
        _ => return Err(ProxyFault::BadLine),
    }
    let line = std::str::from_utf8(&window[..cr]).map_err(|_| ProxyFault::BadLine)?;
    let header = parse_v1_line(line).ok_or(ProxyFault::BadLine)?;
    Ok(Some((header, cr + 2)))
}

fn parse_v1_line(line: &str) -> Option<ProxyHeader> {
    let mut words = line.split(' ').skip(1);
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(ProxyHeader::Unnamed);
    }
    let source = match (family, words.next()?) {
        ("TCP4", word) => IpAddr::from(word.parse::<Ipv4Addr>().ok()?),
        ("TCP6", word) => IpAddr::from(word.parse::<Ipv6Addr>().ok()?).to_canonical(),
        _ => return None,
    };
    // By it nothing is decided, and load balancers that learned the source from another one write it in another family.
    let destination = words.next()?.parse::<IpAddr>().ok()?.to_canonical();
    let mut port = || -> Option<u16> {
        let word = words.next()?;
        let plain = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
        plain.then(|| word.parse().ok())?
    };
    let (source_port, destination_port) = (port()?, port()?);
    words.next().is_none().then(|| ProxyHeader::Proxied {
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, destination_port),
    })
}

fn parse_v2(input: &[u8]) -> Parsed {
    let Some(&version_command) = input.get(12) else { return Ok(None) };
    let local = match version_command {
        0x20 => true,
        0x21 => false,
        _ => return Err(ProxyFault::BadBinary),
    };
    let Some(&family) = input.get(13) else { return Ok(None) };
    let addresses = match (local, family) {
        (_, 0x11) => 12,
        (_, 0x21) => 36,
        // UNSPEC; UDP over IPv4 and IPv6; UNIX, stream and datagram.
        (_, 0x00 | 0x12 | 0x22 | 0x31 | 0x32) | (true, _) => 0,
        (false, _) => return Err(ProxyFault::BadBinary),
    };
    let Some(length) = input.get(14..16) else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    let used = 16 + length;
    if used > V2_MAX {
        return Err(ProxyFault::TooLong);
    }
    if length < addresses && !local {
        return Err(ProxyFault::BadBinary);
    }
    let Some(header) = input.get(..used) else { return Ok(None) };
    if local || addresses == 0 {
        return Ok(Some((ProxyHeader::Unnamed, used)));
    }
    let (fixed, tlvs) = header[16..].split_at(addresses);
    check_tlvs(header, tlvs)?;
    let proxied = if addresses == 12 { addresses_v4(fixed) } else { addresses_v6(fixed) };
    Ok(Some((proxied.ok_or(ProxyFault::BadBinary)?, used)))
}

fn addresses_v4(fixed: &[u8]) -> Option<ProxyHeader> {
    let ip = |at: usize| Some(IpAddr::from(*fixed.get(at..)?.first_chunk::<4>()?));
    Some(proxied(ip(0)?, ip(4)?, fixed.get(8..12)?))
}

fn addresses_v6(fixed: &[u8]) -> Option<ProxyHeader> {
    let ip = |at: usize| Some(IpAddr::from(*fixed.get(at..)?.first_chunk::<16>()?).to_canonical());
    Some(proxied(ip(0)?, ip(16)?, fixed.get(32..36)?))
}

fn proxied(source: IpAddr, destination: IpAddr, ports: &[u8]) -> ProxyHeader {
    let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
    ProxyHeader::Proxied {
        source: SocketAddr::new(source, port(0)),
        destination: SocketAddr::new(destination, port(2)),
    }
}

/// TLVs must fill their space exactly; of their content only the checksum concerns us.
fn check_tlvs(header: &[u8], tlvs: &[u8]) -> Result<(), ProxyFault> {
    let mut at = header.len() - tlvs.len();
    while at < header.len() {
        let Some(&[kind, high, low]) = header[at..].first_chunk::<3>() else { return Err(ProxyFault::BadBinary) };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let value = header.get(at + 3..at + 3 + length).ok_or(ProxyFault::BadBinary)?;
        if kind == TLV_CRC32C {
            let claimed = <[u8; 4]>::try_from(value).map_err(|_| ProxyFault::BadBinary)?;
            let mut zeroed = header.to_vec();
            zeroed[at + 3..at + 7].fill(0);
            if crc32c(&zeroed) != u32::from_be_bytes(claimed) {
                return Err(ProxyFault::BadChecksum);
            }
        }
        at += 3 + length;
    }
    Ok(())
}

/// CRC-32C (Castagnoli), a bit at a time: headers are short and rare.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 })
    })
}

#[cfg(test)]
mod tests;
