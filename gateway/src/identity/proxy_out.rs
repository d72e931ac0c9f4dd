//! PROXY protocol headers towards the backend (HAProxy's proxy-protocol.txt, versions 1 and 2).
//!
//! A header always names a client: UNKNOWN, LOCAL and UNSPEC make backends fall back to the gateway's own address, which is
//! the relay confusion itself, so they cannot be encoded here. No TLVs: Exim reads at most 232 bytes.

use std::net::{IpAddr, SocketAddr};

use super::ClientAddr;

/// The 12 bytes that begin a version 2 header.
pub const V2_SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Appends a version 1 header: `destination` is the address of the gateway that the client connected to.
pub fn encode_v1(source: ClientAddr, destination: SocketAddr, out: &mut Vec<u8>) {
    use std::io::Write as _;

    let (from, to) = one_family(source.ip(), destination.ip());
    let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
    // Writing to memory cannot fail.
    let _ = match (from, to) {
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            // The mapped form is written in hex: not every parser takes a dotted tail.
            let plain = |ip: std::net::Ipv6Addr| ip.segments().map(|group| format!("{group:x}")).join(":");
            write!(out, "PROXY {family} {} {} {} {}\r\n", plain(from), plain(to), source.port(), destination.port())
        }
        _ => write!(out, "PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port()),
    };
}

/// Appends a version 2 header.
pub fn encode_v2(source: ClientAddr, destination: SocketAddr, out: &mut Vec<u8>) {
    out.extend_from_slice(&V2_SIGNATURE);
    match one_family(source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            out.extend_from_slice(&[0x21, 0x11, 0, 12]);
            out.extend_from_slice(&from.octets());
            out.extend_from_slice(&to.octets());
        }
        (from, to) => {
            out.extend_from_slice(&[0x21, 0x21, 0, 36]);
            out.extend_from_slice(&mapped(from));
            out.extend_from_slice(&mapped(to));
        }
    }
    out.extend_from_slice(&source.port().to_be_bytes());
    out.extend_from_slice(&destination.port().to_be_bytes());
}

/// Both as they are if they are of one family, else both as IPv6.
fn one_family(from: IpAddr, to: IpAddr) -> (IpAddr, IpAddr) {
    match (from, to.to_canonical()) {
        (IpAddr::V4(from), IpAddr::V6(to)) => (from.to_ipv6_mapped().into(), to.into()),
        (IpAddr::V6(from), IpAddr::V4(to)) => (from.into(), to.to_ipv6_mapped().into()),
        same => same,
    }
}

fn mapped(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v1(from: &str, to: &str) -> String {
        let mut out = Vec::new();
        encode_v1(ClientAddr::from_proxy_header(from.parse().unwrap()), to.parse().unwrap(), &mut out);
        assert!(out.len() <= 107);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn version_1() {
        assert_eq!(v1("203.0.113.9:4711", "192.0.2.1:25"), "PROXY TCP4 203.0.113.9 192.0.2.1 4711 25\r\n");
        assert_eq!(
            v1("[2001:db8::9]:4711", "[2001:db8::1]:25"),
            "PROXY TCP6 2001:db8:0:0:0:0:0:9 2001:db8:0:0:0:0:0:1 4711 25\r\n"
        );
        assert_eq!(v1("[::ffff:203.0.113.9]:4711", "192.0.2.1:25"), "PROXY TCP4 203.0.113.9 192.0.2.1 4711 25\r\n");
        assert_eq!(
            v1("[2001:db8::9]:1", "192.0.2.1:25"),
            "PROXY TCP6 2001:db8:0:0:0:0:0:9 0:0:0:0:0:ffff:c000:201 1 25\r\n"
        );
    }

    #[test]
    fn version_2() {
        let mut out = Vec::new();
        encode_v2(
            ClientAddr::from_proxy_header("203.0.113.9:4711".parse().unwrap()),
            "192.0.2.1:25".parse().unwrap(),
            &mut out,
        );
        let expected =
            [V2_SIGNATURE.as_slice(), &[0x21, 0x11, 0, 12, 203, 0, 113, 9, 192, 0, 2, 1, 0x12, 0x67, 0, 25]].concat();
        assert_eq!(out, expected);
    }
}
