//! How a backend is told who the client is, and how load balancers tell the gateway.

use std::net::SocketAddr;

use smtp_gateway::config::{BackendTls, IdentityMode};
use smtp_gateway::identity::proxy_in::{HeaderParse, ProxyHeader, V2_MAX, parse_header};
use smtp_gateway::identity::proxy_out::{V2_SIGNATURE, encode_v1, encode_v2};
use smtp_gateway::identity::xclient::{ClientName, Ipv6Form, XclientFacts, encode_xclient};
use smtp_gateway::identity::{ClientAddr, PeerAddr};
use smtp_gateway::opening::{Hello, Identity, Opening, Progress, Script};
use smtp_gateway::smtp::command::{Command, parse_command};
use smtp_gateway::smtp::ehlo::XclientAttributes;
use smtp_gateway::smtp::xtext;

use super::bytes::Bytes;

/// A header is read as soon as it is whole, a faulty one is never waited for again, and what one says can be said on.
pub(super) fn proxy_header(data: &[u8]) {
    let whole = parse_header(data);
    match whole {
        HeaderParse::NeedMore => assert!(data.len() < V2_MAX),
        HeaderParse::Faulty(_) => {}
        HeaderParse::Complete { header, used } => {
            assert!(used <= data.len() && used <= V2_MAX);
            assert_eq!(parse_header(&data[..used]), whole);
            for shorter in used.saturating_sub(32)..used {
                assert_eq!(parse_header(&data[..shorter]), HeaderParse::NeedMore, "{shorter} of {used}");
            }
            if let ProxyHeader::Proxied { source, destination } = header {
                say_on(source, destination);
            }
        }
    }
    // More never changes what was said.
    if whole != HeaderParse::NeedMore && data.len() < V2_MAX {
        assert_eq!(parse_header(&[data, b"QUIT\r\n"].concat()), whole);
    }
}

fn say_on(source: SocketAddr, destination: SocketAddr) {
    assert!(!source.ip().is_unspecified() && !source.ip().is_multicast());
    assert_eq!(source.ip(), source.ip().to_canonical());
    for encode in [encode_v1, encode_v2] {
        let mut written = Vec::new();
        encode(ClientAddr::from_proxy_header(source), destination, &mut written);
        let HeaderParse::Complete { header: ProxyHeader::Proxied { source: again, .. }, used } = parse_header(&written)
        else {
            panic!("`{}` is no header", written.escape_ascii());
        };
        assert_eq!((again, used), (source, written.len()));
    }
}

/// A client, as somebody may be.
fn client(bytes: &mut Bytes<'_>) -> ClientAddr {
    let addresses = ["203.0.113.9:4711", "[2001:db8::9]:1", "[::ffff:203.0.113.9]:65535", "127.0.0.1:0"];
    let address: SocketAddr = bytes.pick(&addresses).parse().expect("an address");
    let peer = PeerAddr::from_socket(address);
    match bytes.byte() % 3 {
        0 => ClientAddr::direct(peer),
        1 => ClientAddr::from_proxy_header(address),
        _ => ClientAddr::unnamed(peer),
    }
}

fn client_name(bytes: &mut Bytes<'_>) -> ClientName {
    let name = String::from_utf8_lossy(bytes.string()).into_owned();
    match bytes.byte() % 4 {
        0 => ClientName::Unavailable,
        1 => ClientName::TemporarilyUnavailable,
        _ => ClientName::verified(&name),
    }
}

/// A hello as the gateway takes one.
fn hello(bytes: &mut Bytes<'_>) -> String {
    let line = [b"EHLO ".as_slice(), bytes.string()].concat();
    match parse_command(&line) {
        Ok(Command::Ehlo(name)) => name.into_owned(),
        _ => "client.example".to_owned(),
    }
}

/// The command is one line of bounded length, each attribute offered is in it once, and each value is read as it was meant.
pub(super) fn xclient(data: &[u8]) {
    let mut bytes = Bytes(data);
    let client = client(&mut bytes);
    let offered = XclientAttributes::from_bits_truncate(u16::from_be_bytes([bytes.byte(), bytes.byte()]));
    let name = client_name(&mut bytes);
    let helo = hello(&mut bytes);
    let facts = XclientFacts {
        client,
        name: &name,
        helo: &helo,
        esmtp: bytes.coin(),
        login: None,
        destination: SocketAddr::from(([192, 0, 2, 1], 25)),
        ipv6_form: bytes.pick(&[Ipv6Form::Prefixed, Ipv6Form::Bare]),
    };
    let mut out = Vec::new();
    if encode_xclient(&facts, offered, &mut out).is_err() {
        assert!(out.is_empty() && !offered.contains(XclientAttributes::ADDR));
        return;
    }
    assert!(out.len() <= 512);
    let line = std::str::from_utf8(&out).expect("it is text").strip_suffix("\r\n").expect("it is a line");
    assert!(line.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{line:?}");
    let mut told: Vec<(&str, &str)> =
        line.split(' ').skip(1).map(|word| word.split_once('=').expect("NAME=value")).collect();
    assert_eq!(told.len(), usize::try_from(offered.bits().count_ones()).expect("few"), "{line}");
    for &(attribute, value) in &told {
        assert!(!value.is_empty() && value.len() <= 255 && xtext::decode(value.as_bytes()).is_some(), "{line}");
        if attribute == "HELO" && value != "[UNAVAILABLE]" {
            assert_eq!(xtext::decode(value.as_bytes()).as_deref(), Some(helo.as_bytes()));
        }
    }
    told.sort_unstable();
    told.dedup_by_key(|(attribute, _)| *attribute);
    assert_eq!(told.len(), line.split(' ').skip(1).count(), "{line}");
}

/// Whatever a backend says, its session opens only when it has taken the client's identity, and behind the client's hello.
pub(super) fn opening(data: &[u8]) {
    let mut bytes = Bytes(data);
    let (mode, tls) = (bytes.pick(&IdentityMode::ALL), bytes.pick(&BackendTls::ALL));
    let (client, name, hello_name) = (client(&mut bytes), client_name(&mut bytes), hello(&mut bytes));
    if mode.needs_address() && client.told().is_none() && mode.is_proxy() {
        return;
    }
    let esmtp = bytes.coin();
    let destination = SocketAddr::from(([192, 0, 2, 1], 25));
    let mut script = Script {
        hostname: "mx.example.com",
        tls,
        identity: Identity::by(mode, client, destination, None, Ipv6Form::Prefixed),
        hello: Hello { name: &hello_name, esmtp, login: None, address: client.told().map(|address| address.ip()) },
    };
    let (mut opening, mut sent) = (Opening::new(), Vec::new());
    let mut progress = opening.connected(&script, &mut sent);
    let mut unread = Vec::new();
    // Behind the script's end the backend says nothing.
    for _ in 0..2 * data.len() + 2 {
        progress = match progress {
            Progress::Secure(_) => opening.secured(&script, &mut sent),
            Progress::Name => {
                script.identity = Identity::by(mode, client, destination, Some(&name), Ipv6Form::Prefixed);
                opening.named(&script, &mut sent)
            }
            Progress::Open(_) => return assert_told(mode, esmtp, &sent),
            Progress::Failed(_) => return,
            Progress::Reply => {
                if unread.is_empty() && bytes.is_empty() {
                    return;
                }
                unread.extend_from_slice(bytes.string());
                let (used, progress) = opening.reply(&script, &unread, &mut sent);
                assert!(used <= unread.len());
                assert!(used > 0 || progress == Progress::Reply);
                unread.drain(..used);
                progress
            }
        };
    }
}

fn assert_told(mode: IdentityMode, esmtp: bool, sent: &[u8]) {
    let shown = sent.escape_ascii().to_string();
    match mode {
        IdentityMode::ProxyV1 => assert!(sent.starts_with(b"PROXY "), "{shown}"),
        IdentityMode::ProxyV2 => return assert!(sent.starts_with(&V2_SIGNATURE), "{shown}"),
        IdentityMode::Xclient => assert_eq!(shown.matches("\\r\\nXCLIENT ADDR=").count(), 1, "{shown}"),
        IdentityMode::Transparent | IdentityMode::TraceHeader | IdentityMode::None => {}
    }
    let last = sent.strip_suffix(b"\r\n").expect("a line").rsplit(|&byte| byte == b'\n').next().expect("a line");
    assert!(last.starts_with(if esmtp { b"EHLO " } else { b"HELO " }), "{shown}");
    assert!(sent.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\r' | b'\n')), "{shown}");
}
