use std::net::SocketAddr;

use crate::sink::dots::Dots;
use crate::sink::event::{By, Client, ClientName};
use crate::sink::path::{PathArgument, PathFault, xtext};
use crate::sink::proxy::{self, Header};
use crate::sink::{Action, Fault, Point, SinkIdentity, network, xclient};

/// What DATA holds, and how much was taken; `None`: it has not ended.
fn body(pieces: &[&[u8]]) -> (Vec<u8>, Option<usize>) {
    let (mut dots, mut kept, mut taken) = (Dots::LineStart, Vec::new(), 0);
    for piece in pieces {
        let (used, ended) = dots.take(piece, |bytes| kept.extend_from_slice(bytes));
        taken += used;
        if ended {
            return (kept, Some(taken));
        }
        assert_eq!(used, piece.len());
    }
    (kept, None)
}

/// Checks `input` whole, cut in two at every place, and byte by byte.
fn check_body(input: &[u8], kept: &[u8], ended: bool) {
    let expected = (kept.to_vec(), ended.then_some(input.len()));
    assert_eq!(body(&[input]), expected, "{input:?}");
    for cut in 0..=input.len() {
        assert_eq!(body(&[&input[..cut], &input[cut..]]), expected, "{input:?} cut at {cut}");
    }
    assert_eq!(body(&input.chunks(1).collect::<Vec<_>>()), expected, "{input:?} byte by byte");
}

#[test]
fn data_ends_at_crlf_dot_crlf() {
    check_body(b".\r\n", b"", true);
    check_body(b"a\r\n.\r\n", b"a\r\n", true);
    check_body(b"\r\n.\r\n", b"\r\n", true);
    check_body(b"a\r\n\r\n\r\n.\r\n", b"a\r\n\r\n\r\n", true);
    check_body(b"a\r\r\n.\r\n", b"a\r\r\n", true);
}

#[test]
fn dots_are_unstuffed() {
    check_body(b"..\r\n.\r\n", b".\r\n", true);
    check_body(b"a\r\n..b\r\n...\r\n.c\r\n.\r\n", b"a\r\n.b\r\n..\r\nc\r\n", true);
    check_body(b"a.\r\nb\r\n.\r\n", b"a.\r\nb\r\n", true);
}

#[test]
fn look_alikes_are_body() {
    let sequences: &[&[u8]] = &[
        b"\n.\n",
        b"\n.\r\n",
        b"\r\n.\n",
        b"\n\n.\r\n",
        b"\n.\r",
        b"\r.\n",
        b"\r.\r",
        b"\r.\r\n",
        b"\r\n.\r",
        b"\r\n.\r\r\n",
        b"\r\r\n.\r\r\n",
        b"\r\n\0.\r\n",
        b"\r\n.\0\r\n",
        b"\r\n\0.\n",
        b"\r\n.\x0b\r\n",
        b"\r\n. \r\n",
        b"\r\n.\xe2\x80\xa8",
        b"\r\n.\xc2\x85",
    ];
    for sequence in sequences {
        let input = [b"body", *sequence, b"NOOP\r\n"].concat();
        // A dot at the start of a strict line is stuffing whatever follows; the others are text.
        let text = input
            .windows(3)
            .position(|three| three == b"\r\n.")
            .map_or(input.clone(), |at| [&input[..at + 2], &input[at + 3..]].concat());
        check_body(&input, &text, false);
    }
}

#[test]
fn paths() {
    let mailbox = |text| PathArgument::parse(text).map(|path| path.mailbox);
    assert_eq!(mailbox("<>"), Ok(""));
    assert_eq!(mailbox("<a@b>"), Ok("a@b"));
    assert_eq!(mailbox("<a@b> SIZE=1"), Ok("a@b"));
    assert_eq!(mailbox("<\"x> y\\\">\"@b>"), Ok("\"x> y\\\">\"@b"));
    assert_eq!(mailbox("<@x,@y:a@b>"), Ok("a@b"));
    assert_eq!(mailbox("<@x>"), Err(PathFault::Mailbox));
    assert_eq!(mailbox("<a\x1b@b>"), Err(PathFault::Mailbox));
    for bad in ["", "a@b", " <a@b>", "<a@b", "<a@b>x", "<\"a@b>"] {
        assert_eq!(mailbox(bad), Err(PathFault::Syntax), "{bad}");
    }
    let domain = |text| PathArgument::parse(text).unwrap().domain();
    assert_eq!(domain("<a@b.test>"), Some("b.test"));
    assert_eq!(domain("<\"a@c\"@b.test>"), Some("b.test"));
    assert_eq!(domain("<a@[192.0.2.1]>"), Some("[192.0.2.1]"));
    for bad in ["<a>", "<@x:a>", "<a@>", "<a@b c>", "<a b@c>", "<a@b@c>", "<a<b@c>"] {
        assert_eq!(domain(bad), None, "{bad}");
    }
    let path = PathArgument::parse("<a@b>  SIZE=1 SMTPUTF8 X=a=b").unwrap();
    let expected = [("SIZE", Some("1")), ("SMTPUTF8", None), ("X", Some("a=b"))];
    assert_eq!(path.parameters().collect::<Vec<_>>(), expected);
}

#[test]
fn xtext_is_strict() {
    assert_eq!(xtext("a+2B+3Db"), Some(b"a+=b".to_vec()));
    for bad in ["a+2b", "+", "+2", "a b", "a=b", "é", "+G0"] {
        assert_eq!(xtext(bad), None, "{bad}");
    }
}

fn client() -> Client {
    Client {
        session: 1,
        peer: SocketAddr::from(([127, 0, 0, 1], 4711)),
        believed: None,
        port: None,
        by: By::Connection,
        name: ClientName::Untold,
        proto: Some("SMTP".into()),
        helo: Some("forgotten".into()),
        destination: None,
        destination_port: None,
    }
}

#[test]
fn xclient_attributes() {
    let all = "NAME=mx.far.test ADDR=IPV6:2001:db8::1 PORT=7  PROTO=ESMTP HELO=a+20b DESTADDR=192.0.2.1 destport=25";
    let expected = Client {
        believed: Some("2001:db8::1".parse().unwrap()),
        port: Some(7),
        by: By::Xclient,
        name: ClientName::Known("mx.far.test".into()),
        proto: Some("ESMTP".into()),
        helo: Some("a b".into()),
        destination: Some("192.0.2.1".parse().unwrap()),
        destination_port: Some(25),
        ..client()
    };
    assert_eq!(xclient::apply(&client(), all), Ok(expected));
    let address = |text| xclient::apply(&client(), text).unwrap().believed.map(|ip| ip.to_string());
    assert_eq!(address("ADDR=[UNAVAILABLE]"), None);
    assert_eq!(address("ADDR=ipv6:::ffff:192.0.2.7").as_deref(), Some("192.0.2.7"));
    let absent = xclient::apply(&client(), "NAME=[UNAVAILABLE] PORT=[UNAVAILABLE] HELO=[UNAVAILABLE]").unwrap();
    assert_eq!((absent.name, absent.port, absent.helo), (ClientName::Unavailable, None, None));
}

#[test]
fn xclient_faults() {
    let long = format!("HELO={}", "a".repeat(256));
    let longer = vec!["HELO=".to_owned() + &"a".repeat(200); 3].join(" ");
    let bad = [
        "",
        "ADDR",
        "ADDR=",
        "ADDR=2001:db8::1",
        "ADDR=192.0.2.07",
        "ADDR=192.0.2.7:25",
        "PORT=0",
        "PORT=65536",
        "PORT=+5",
        "PROTO=HTTP",
        "NAME=a+0D+0Ab",
        "NAME=a_b",
        "HELO=a+0Ab",
        "LOGIN=root",
        "X=1",
        "ADDR=[192.0.2.7]",
        &long,
        &longer,
    ];
    for bad in bad {
        let reply = xclient::apply(&client(), bad).unwrap_err();
        assert!(reply.starts_with(b"501 5.5.4 ") && reply.ends_with(b"\r\n"), "{bad}");
    }
}

/// A header of version 2.
pub(super) fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(body.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[command, family], &len, body].concat()
}

pub(super) const V4: &[u8] = &[192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x67, 0, 25];

fn parsed(identity: SinkIdentity, header: &[u8]) -> Option<(String, By)> {
    let taken = proxy::parse(identity, header);
    for cut in 0..header.len() {
        let partial = proxy::parse(identity, &header[..cut]);
        assert!(partial == Header::Partial || partial == taken, "{header:?} cut at {cut}: {partial:?}");
    }
    match taken {
        Header::Whole(len, named, by) => {
            assert_eq!(len, header.len());
            let mut client = client();
            if let Some(named) = named {
                named.apply(&mut client);
            }
            let port = client.port.map_or(String::new(), |port| format!(" {port}"));
            Some((client.believed.map_or("peer".into(), |ip| format!("{ip}{port}")), by))
        }
        Header::Malformed => None,
        Header::Partial => panic!("{header:?} is not partial"),
    }
}

#[test]
fn proxy_headers() {
    let v1 = |header: &str| parsed(SinkIdentity::Proxy, header.as_bytes());
    assert_eq!(v1("PROXY TCP4 192.0.2.7 198.51.100.1 4711 25\r\n"), Some(("192.0.2.7 4711".into(), By::ProxyV1)));
    assert_eq!(v1("PROXY TCP6 2001:db8::7 2001:db8::1 4711 25\r\n"), Some(("2001:db8::7 4711".into(), By::ProxyV1)));
    assert_eq!(v1("PROXY UNKNOWN\r\n"), Some(("peer".into(), By::ProxyV1)));
    assert_eq!(v1("PROXY UNKNOWN some words\r\n"), Some(("peer".into(), By::ProxyV1)));
    let v2 = |command, family, body: &[u8]| parsed(SinkIdentity::Proxy, &v2(command, family, body));
    assert_eq!(v2(0x21, 0x11, V4), Some(("192.0.2.7 4711".into(), By::ProxyV2)));
    let mapped = [&[0; 10][..], &[255, 255, 192, 0, 2, 7], &[0; 16], &[0, 1, 0, 25]].concat();
    assert_eq!(v2(0x21, 0x21, &mapped), Some(("192.0.2.7 1".into(), By::ProxyV2)));
    assert_eq!(v2(0x20, 0, b""), Some(("peer".into(), By::ProxyV2)));
    assert_eq!(v2(0x20, 0x11, V4), Some(("peer".into(), By::ProxyV2)));
    assert_eq!(v2(0x21, 0, b"anything"), Some(("peer".into(), By::ProxyV2)));
    assert_eq!(v2(0x21, 0x11, &[V4, &[4, 0, 2, 9, 9]].concat()), Some(("192.0.2.7 4711".into(), By::ProxyV2)));
}

#[test]
fn malformed_proxy_headers() {
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
    let texts = [
        "EHLO x\r\n",
        "proxy TCP4 192.0.2.7 198.51.100.1 4711 25\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 4711 25\n",
        "PROXY  TCP4 192.0.2.7 198.51.100.1 4711 25\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 0123 25\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 65536 25\r\n",
        "PROXY TCP4 2001:db8::7 198.51.100.1 1 25\r\n",
        "PROXY UDP4 192.0.2.7 198.51.100.1 1 25\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 4711 25 \r\n",
        &long,
    ];
    for text in texts {
        assert_eq!(proxy::parse(SinkIdentity::Proxy, text.as_bytes()), Header::Malformed, "{text}");
    }
    let short_tlv = [V4, &[4, 0, 9, 1]].concat();
    let bodies: [(u8, u8, &[u8]); 7] = [
        (0x11, 0x11, V4),
        (0x22, 0x11, V4),
        (0x21, 0x12, V4),
        (0x21, 0x31, &[0; 216]),
        (0x21, 0x11, &V4[1..]),
        (0x21, 0x11, &short_tlv),
        (0x21, 0x11, &[0; 4000]),
    ];
    for (command, family, body) in bodies {
        let header = v2(command, family, body);
        assert_eq!(proxy::parse(SinkIdentity::ProxyV2, &header), Header::Malformed, "{command} {family} {body:?}");
    }
}

#[test]
fn only_the_configured_version_is_taken() {
    let (one, two) = (b"PROXY UNKNOWN\r\n".to_vec(), v2(0x21, 0x11, V4));
    let taken = |identity, header: &[u8]| parsed(identity, header).is_some();
    assert!(taken(SinkIdentity::ProxyV1, &one) && taken(SinkIdentity::ProxyV2, &two));
    assert_eq!(proxy::parse(SinkIdentity::ProxyV1, &two), Header::Malformed);
    assert_eq!(proxy::parse(SinkIdentity::ProxyV2, &one), Header::Malformed);
}

#[test]
fn checksums_are_checked() {
    // "PROXY TCP4" of V4 with one CRC32C TLV, whose value was computed with another implementation.
    let right = v2(0x21, 0x11, &[V4, &[3, 0, 4], &CRC.to_be_bytes()].concat());
    assert!(parsed(SinkIdentity::ProxyV2, &right).is_some());
    let wrong = v2(0x21, 0x11, &[V4, &[3, 0, 4], &(CRC ^ 1).to_be_bytes()].concat());
    assert_eq!(proxy::parse(SinkIdentity::ProxyV2, &wrong), Header::Malformed);
    let short = v2(0x21, 0x11, &[V4, &[3, 0, 2, 0, 0]].concat());
    assert_eq!(proxy::parse(SinkIdentity::ProxyV2, &short), Header::Malformed);
}

/// Of the header above with this field zeroed.
const CRC: u32 = 0x358a_29e7;

#[test]
fn faults_as_text() {
    let fault = |text: &str| text.parse::<Fault>();
    assert_eq!(fault("eod=451"), Ok(Fault { point: Point::EndOfData, action: Action::Reply(451) }));
    assert_eq!(fault("connect=reset"), Ok(Fault { point: Point::Connect, action: Action::Reset }));
    let delay = Action::Delay(std::time::Duration::from_millis(250));
    assert_eq!(fault("rcpt=delay:250"), Ok(Fault { point: Point::Rcpt, action: delay }));
    let complaint = |text: &str, part: &str| {
        let error = fault(text).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    };
    complaint("eod", "write POINT=ACTION");
    complaint("dot=451", "\"dot\" is no point of a session: write connect,");
    complaint("eod=250", "\"250\" is no action: write close,");
    complaint("eod=600", "400 to 599");
    complaint("eod=delay:soon", "\"soon\" is no delay: write milliseconds");
    complaint("eod=delay:99999999999", "at most 3600000");
}

#[test]
fn identities_and_networks_as_text() {
    assert_eq!("proxy-v2".parse(), Ok(SinkIdentity::ProxyV2));
    assert!("PROXY".parse::<SinkIdentity>().unwrap_err().contains("write xclient, proxy-v1"));
    assert_eq!(network("192.0.2.7").unwrap().to_string(), "192.0.2.7/32");
    assert_eq!(network("2001:db8::/32").unwrap().to_string(), "2001:db8::/32");
    assert!(network("mx.test").unwrap_err().contains("\"mx.test\" is no network"));
}
