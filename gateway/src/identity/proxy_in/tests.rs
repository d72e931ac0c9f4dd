use proptest::prelude::*;

use super::*;
use crate::identity::ClientAddr;
use crate::identity::proxy_out::{encode_v1, encode_v2};

fn v2(version_command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [V2_SIGNATURE.as_slice(), &[version_command, family], &length, body].concat()
}

const ADDRESSES: [u8; 12] = [203, 0, 113, 9, 192, 0, 2, 1, 0x12, 0x67, 0, 25];

#[test]
fn bad_headers_are_faulty() {
    let long = format!("PROXY TCP4 {}", "1".repeat(100));
    let table: &[(&[u8], ProxyFault)] = &[
        (b"EHLO x\r\n", ProxyFault::NoHeader),
        (b"PROXY TCP4 203.0.113.9 192.0.2.1 0123 25\r\n", ProxyFault::BadLine),
        (b"PROXY TCP4 203.0.113.9 192.0.2.1 65536 25\r\n", ProxyFault::BadLine),
        (b"PROXY TCP4 203.0.113.9 192.0.2.1 1 25\n", ProxyFault::BadLine),
        (b"PROXY TCP4 203.0.113.9  192.0.2.1 1 25\r\n", ProxyFault::BadLine),
        (b"PROXY TCP4 203.0.113.9 192.0.2.1 1 25 \r\n", ProxyFault::BadLine),
        (b"PROXY TCP4 203.0.113.9 192.0.2.1 1\r\n", ProxyFault::BadLine),
        (b"PROXY TCP4 203.0.113.09 192.0.2.1 1 25\r\n", ProxyFault::BadLine),
        (b"PROXY TCP4 2001:db8::1 192.0.2.1 1 25\r\n", ProxyFault::BadLine),
        (b"PROXY UDP4 203.0.113.9 192.0.2.1 1 25\r\n", ProxyFault::BadLine),
        (b"PROXY TCP6 203.0.113.9 2001:db8::1 1 25\r\n", ProxyFault::BadLine),
        (b"PROXY TCP4 203.0.113.9 mx 1 25\r\n", ProxyFault::BadLine),
        (b"PROXY TCP4 0.0.0.0 192.0.2.1 1 25\r\n", ProxyFault::ImpossibleSource),
        (b"PROXY TCP4 224.0.0.1 192.0.2.1 1 25\r\n", ProxyFault::ImpossibleSource),
        (long.as_bytes(), ProxyFault::BadLine),
        (&v2(0x11, 0x11, &ADDRESSES), ProxyFault::BadBinary),
        (&v2(0x22, 0x11, &ADDRESSES), ProxyFault::BadBinary),
        (&v2(0x21, 0x13, &ADDRESSES), ProxyFault::BadBinary),
        (&v2(0x21, 0x41, &ADDRESSES), ProxyFault::BadBinary),
        (&v2(0x21, 0x11, &[]), ProxyFault::BadBinary),
        (&v2(0x21, 0x11, &[&ADDRESSES[..], &[4, 0, 9]].concat()), ProxyFault::BadBinary),
        (&v2(0x21, 0x11, &[&ADDRESSES[..], &[3, 0, 4, 1, 2, 3, 4]].concat()), ProxyFault::BadChecksum),
        (&v2(0x21, 0x11, &[0; 5000]), ProxyFault::TooLong),
    ];
    for (input, fault) in table {
        assert_eq!(parse_header(input), HeaderParse::Faulty(*fault), "{}", input.escape_ascii());
    }
}

#[test]
fn who_is_not_named_is_unnamed() {
    for header in [
        v2(0x21, 0x00, &[]),
        v2(0x21, 0x00, &[4, 0, 0]),
        v2(0x21, 0x12, &ADDRESSES),
        v2(0x21, 0x22, &[0; 36]),
        v2(0x21, 0x31, &[0; 216]),
        v2(0x21, 0x32, &[0; 216]),
        v2(0x20, 0, &[]),
        v2(0x20, 0x11, &ADDRESSES),
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN ff:: ff:: 1 2\r\n".to_vec(),
    ] {
        assert_eq!(parse_header(&header), HeaderParse::Complete { header: ProxyHeader::Unnamed, used: header.len() });
    }
}

/// nginx with realip writes the source that it was told, and its own address.
#[test]
fn the_destination_decides_nothing() {
    for (header, source, destination) in [
        ("PROXY TCP6 2001:db8::9 192.0.2.1 51512 25\r\n", "[2001:db8::9]:51512", "192.0.2.1:25"),
        ("PROXY TCP4 203.0.113.9 2001:db8::1 51512 25\r\n", "203.0.113.9:51512", "[2001:db8::1]:25"),
        ("PROXY TCP6 ::ffff:203.0.113.9 ::ffff:192.0.2.1 1 25\r\n", "203.0.113.9:1", "192.0.2.1:25"),
    ] {
        let proxied =
            ProxyHeader::Proxied { source: source.parse().unwrap(), destination: destination.parse().unwrap() };
        let expected = HeaderParse::Complete { header: proxied, used: header.len() };
        assert_eq!(parse_header(header.as_bytes()), expected, "{header}");
    }
}

#[test]
fn the_checksum_is_verified() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    let mut header = v2(0x21, 0x11, &[&ADDRESSES[..], &[3, 0, 4, 0, 0, 0, 0]].concat());
    let crc = crc32c(&header).to_be_bytes();
    let at = header.len() - 4;
    header[at..].copy_from_slice(&crc);
    assert!(matches!(parse_header(&header), HeaderParse::Complete { .. }));
}

fn sources() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>())
        .prop_map(|(ip, port)| SocketAddr::new(ip.to_canonical(), port))
        .prop_filter("a client's address", |source| is_possible(source.ip()))
}

proptest! {
    #[test]
    fn parse_undoes_encode(source in sources(), destination in sources(), rest in "[a-z]{0,4}") {
        for encode in [encode_v1, encode_v2] {
            let mut header = Vec::new();
            encode(ClientAddr::from_proxy_header(source), destination, &mut header);
            let used = header.len();
            for end in 0..used {
                prop_assert_eq!(parse_header(&header[..end]), HeaderParse::NeedMore);
            }
            header.extend_from_slice(rest.as_bytes());
            let expected = ProxyHeader::Proxied { source, destination };
            prop_assert_eq!(parse_header(&header), HeaderParse::Complete { header: expected, used });
        }
    }

    #[test]
    fn never_panics(head in 0usize..3, tail: Vec<u8>) {
        let head: &[u8] = [b"".as_slice(), b"PROXY TCP4 ", &V2_SIGNATURE][head];
        parse_header(&[head, &tail].concat());
    }
}
