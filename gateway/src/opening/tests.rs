use super::*;
use crate::config::IdentityMode;
use crate::identity::xclient::Ipv6Form;
use crate::identity::{ClientAddr, PeerAddr};

const IDENTITIES: [IdentityMode; 6] = IdentityMode::ALL;

/// Runs an opening against these replies, each in a packet of its own; what was sent, with `TLS` where that was begun, and
/// how it ended.
fn run(tls: BackendTls, mode: IdentityMode, replies: &[&str]) -> (String, Option<Progress>) {
    let client = ClientAddr::direct(PeerAddr::from_socket("203.0.113.9:4711".parse().unwrap()));
    let name = ClientName::Unavailable;
    let destination = "192.0.2.1:25".parse().unwrap();
    let identity = Identity::by(mode, client, destination, Some(&name), Ipv6Form::default());
    let hello = Hello { name: "client.example", esmtp: true, login: None, address: Some(client.ip()) };
    let script = Script { hostname: "mx.example.com", tls, identity, hello };
    let (mut opening, mut sent) = (Opening::new(), Vec::new());
    let mut progress = opening.connected(&script, &mut sent);
    let mut replies = replies.iter();
    loop {
        progress = match progress {
            Progress::Secure(_) => {
                sent.extend_from_slice(b"TLS\r\n");
                opening.secured(&script, &mut sent)
            }
            Progress::Reply => match replies.next() {
                Some(reply) => opening.reply(&script, reply.as_bytes(), &mut sent).1,
                None => return (shown(&sent), None),
            },
            end => return (shown(&sent), Some(end)),
        };
    }
}

fn shown(sent: &[u8]) -> String {
    let lines = sent.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| line.trim_ascii_end().escape_ascii().to_string()).collect::<Vec<_>>().join(" | ")
}

const HELLO: &str = "250-backend\r\n250-STARTTLS\r\n250 XCLIENT ADDR\r\n";

#[test]
fn every_step_in_its_place() {
    let proxy = "PROXY TCP4 203.0.113.9 192.0.2.1 4711 25";
    let (own, xclient, hello) = ("EHLO mx.example.com", "XCLIENT ADDR=203.0.113.9", "EHLO client.example");
    for (tls, mode, order) in [
        (BackendTls::Off, IdentityMode::None, vec![hello]),
        (BackendTls::Off, IdentityMode::Xclient, vec![own, xclient, hello]),
        (BackendTls::Off, IdentityMode::ProxyV1, vec![proxy, hello]),
        (BackendTls::Required, IdentityMode::Transparent, vec![own, "STARTTLS", "TLS", hello]),
        (BackendTls::Required, IdentityMode::Xclient, vec![own, "STARTTLS", "TLS", own, xclient, hello]),
        (BackendTls::Opportunistic, IdentityMode::ProxyV1, vec![proxy, own, "STARTTLS", "TLS", hello]),
        (BackendTls::Implicit, IdentityMode::ProxyV1, vec![proxy, "TLS", hello]),
        (BackendTls::Implicit, IdentityMode::Xclient, vec!["TLS", own, xclient, hello]),
    ] {
        let mut replies = vec!["220 backend\r\n"];
        for sent in order.iter().filter(|sent| ![proxy, "TLS"].contains(sent)) {
            replies.push(if ["STARTTLS", xclient].contains(sent) { "220 go\r\n" } else { HELLO });
        }
        let (sent, end) = run(tls, mode, &replies);
        assert_eq!(sent, order.join(" | "), "{tls:?} {mode:?}");
        assert!(matches!(end, Some(Progress::Open(_))), "{tls:?} {mode:?}: {end:?}");
    }
}

/// What was refused in clear is never said again in clear, and nothing crosses the 220 (RFC 3207 sections 4.1 and 6).
#[test]
fn tls_that_must_be_is() {
    let offered = ["220 backend\r\n", HELLO];
    for (replies, fault) in [
        (vec!["220 backend\r\n", "250 backend\r\n"], TlsFailure::NotOffered),
        ([offered.as_slice(), &["454 4.7.0 not now\r\n"]].concat(), TlsFailure::Refused),
        ([offered.as_slice(), &["220 go\r\n250-backend\r\n250 XCLIENT ADDR\r\n"]].concat(), TlsFailure::BytesBehind220),
    ] {
        for mode in IDENTITIES {
            let (sent, end) = run(BackendTls::Required, mode, &replies);
            assert_eq!(end, Some(Progress::Failed(Failure::Tls(fault))), "{mode:?}");
            assert!(!sent.contains("client.example") && !sent.contains("XCLIENT"), "{mode:?}: {sent}");
        }
    }
    let refused = [offered.as_slice(), &["454 4.7.0 not now\r\n", "250 backend\r\n"]].concat();
    let (sent, end) = run(BackendTls::Opportunistic, IdentityMode::None, &refused);
    assert_eq!(sent, "EHLO mx.example.com | STARTTLS | EHLO client.example");
    assert!(matches!(end, Some(Progress::Open(_))), "{end:?}");
}

/// A client may name itself so that the backend refuses it; only what befalls the gateway's own name too is the backend's
/// fault.
#[test]
fn a_clients_name_is_no_fault_of_the_backend() {
    let refused = Some(Failure::Refused(b"501 5.5.2 no\r\n".as_slice().into()));
    let fault = |fault: IdentityFault| Some(Failure::from(fault));
    let failure = |end| match end {
        Some(Progress::Failed(failure)) => Some(failure),
        None => None,
        Some(other) => panic!("{other:?}"),
    };
    let table: Vec<(Vec<&str>, _)> = vec![
        (vec!["501 5.5.2 no\r\n", HELLO, "221 bye\r\n"], refused.clone()),
        (vec!["501 5.5.2 no\r\n", "421 bye\r\n"], refused.clone()),
        (vec!["501 5.5.2 no\r\n421 bye\r\n"], refused.clone()),
        (vec!["501 5.5.2 no\r\n", "500 5.5.2 no\r\n"], fault(IdentityFault::ProxyRefused)),
        // Off by one: the header had an answer of its own.
        (vec!["500 what\r\n", HELLO, HELLO], fault(IdentityFault::ProxyAnswered)),
        (vec!["500 what\r\n250 backend\r\n"], fault(IdentityFault::ProxyAnswered)),
        (vec!["500 what\r\n500 what\r\n"], fault(IdentityFault::ProxyAnswered)),
        (vec!["500 what\r\n5"], fault(IdentityFault::ProxyAnswered)),
        (vec!["501 5.5.2 no\r\n4"], refused.clone()),
        (vec!["500 what\r\n", "221 bye\r\n"], fault(IdentityFault::ProxyAnswered)),
        (vec!["501 5.5.2 no\r\n"], None),
    ];
    for (replies, expected) in table {
        for mode in [IdentityMode::ProxyV1, IdentityMode::ProxyV2] {
            let replies = [["220 backend\r\n"].as_slice(), &replies].concat();
            assert_eq!(failure(run(BackendTls::Off, mode, &replies).1), expected, "{replies:?}");
        }
        let (sent, end) = run(BackendTls::Off, IdentityMode::None, &["220 backend\r\n", "501 5.5.2 no\r\n"]);
        assert_eq!((sent.as_str(), failure(end)), ("EHLO client.example", refused.clone()));
    }
}

#[test]
fn a_name_that_could_be_misread_is_not_said() {
    let word = |name, address: Option<&str>| {
        let address = address.map(|address| address.parse().unwrap());
        Hello { name, esmtp: true, login: None, address }.word().into_owned()
    };
    for name in ["client.example", "[203.0.113.9]", "[IPv6:2001:db8::1]", "host_1", "::1"] {
        assert_eq!(word(name, Some("203.0.113.9")), name);
    }
    for name in
        ["MÜLLER-PC", "HP LaserJet 400", "(none)", "%hostname%", "host/1", "'host'", "[fe80::1%eth0]", "a,b", "a+20b"]
    {
        assert_eq!(word(name, Some("203.0.113.9")), "[203.0.113.9]", "{name}");
        assert_eq!(word(name, Some("2001:db8::9")), "[IPv6:2001:db8::9]", "{name}");
        assert_eq!(word(name, None), "unnamed.invalid", "{name}");
    }
}
