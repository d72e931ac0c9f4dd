use std::net::IpAddr;

use super::codecs::{V4, v2};
use super::{Dialog, Events, sink};
use crate::sink::{By, ClientName, SinkIdentity};

fn ip(text: &str) -> Option<IpAddr> {
    Some(text.parse().unwrap())
}

#[test]
fn without_identity_the_client_is_the_peer() {
    let (sink, events) = sink(|_| {});
    let mut dialog = Dialog::connect(&sink);
    dialog.reply();
    let client = events.client();
    assert_eq!((client.believed, client.by, client.session), (ip("127.0.0.1"), By::Connection, 1));
    let ehlo = dialog.ask("EHLO client.test");
    assert!(!ehlo.contains("XCLIENT"), "{ehlo}");
    dialog.expect("XCLIENT ADDR=192.0.2.7", "550 5.7.0");
}

#[test]
fn ehlo_offers_what_is_spoken() {
    let (sink, _events) = sink(|options| options.identity = SinkIdentity::Xclient);
    let mut dialog = Dialog::connect(&sink);
    dialog.reply();
    assert_eq!(
        dialog.ask("EHLO client.test"),
        "250-sink.test\r\n250-PIPELINING\r\n250-SIZE 1073741824\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n\
         250-ENHANCEDSTATUSCODES\r\n250-CHUNKING\r\n250 XCLIENT NAME ADDR PORT PROTO HELO DESTADDR DESTPORT\r\n"
    );
    assert_eq!(dialog.ask("HELO client.test"), "250 sink.test\r\n");
}

#[test]
fn xclient_makes_another_client_and_a_new_session() {
    let (sink, events) = sink(|options| options.identity = SinkIdentity::Xclient);
    let mut dialog = Dialog::greeted(&sink);
    let command = "XCLIENT NAME=mx.far.test ADDR=192.0.2.7 PORT=4711 PROTO=ESMTP HELO=far.test";
    assert_eq!(dialog.ask(command), "220 sink.test ESMTP sink\r\n");
    let client = events.client();
    assert_eq!((client.believed, client.port, client.by), (ip("192.0.2.7"), Some(4711), By::Xclient));
    assert_eq!((&client.name, client.helo.as_deref()), (&ClientName::Known("mx.far.test".into()), Some("far.test")));
    assert_eq!(client.peer.ip(), ip("127.0.0.1").unwrap());
    dialog.expect("MAIL FROM:<a@far.test>", "503 5.5.1 EHLO first");
    // Whom it believes in now is not in xclient_from.
    assert!(!dialog.ask("EHLO far.test").contains("XCLIENT"));
    dialog.expect("XCLIENT ADDR=192.0.2.8", "550 5.7.0");
    dialog.begin();
    dialog.expect(".", "250");
    let message = events.message();
    assert_eq!((message.client.believed, &*message.helo), (ip("192.0.2.7"), "far.test"));
}

#[test]
fn xclient_is_refused_in_a_transaction_and_when_malformed() {
    let (sink, _events) = sink(|options| options.identity = SinkIdentity::Xclient);
    let mut dialog = Dialog::greeted(&sink);
    dialog.expect("XCLIENT ADDR=2001:db8::1", "501 5.5.4 Bad XCLIENT ADDR");
    dialog.expect("XCLIENT LOGIN=root", "501 5.5.4 Unknown");
    dialog.expect("MAIL FROM:<>", "250");
    dialog.expect("XCLIENT ADDR=192.0.2.7", "503 5.5.1");
    dialog.expect("RSET", "250");
    dialog.expect("xclient addr=IPV6:2001:db8::1", "220");
}

#[test]
fn xclient_only_from_where_it_is_allowed() {
    let (sink, events) = sink(|options| {
        options.identity = SinkIdentity::Xclient;
        options.xclient_from = vec!["192.0.2.0/24".parse().unwrap()];
    });
    let mut dialog = Dialog::connect(&sink);
    dialog.reply();
    assert!(!dialog.ask("EHLO client.test").contains("XCLIENT"));
    dialog.expect("XCLIENT ADDR=192.0.2.7", "550 5.7.0");
    dialog.expect("MAIL FROM:<>", "250");
    assert_eq!(events.client().by, By::Connection);
}

#[test]
fn a_session_that_came_to_nothing_has_had_a_client() {
    let (sink, events) = sink(|options| options.identity = SinkIdentity::Xclient);
    Dialog::greeted(&sink).expect("QUIT", "221");
    assert_eq!(events.client().believed, ip("127.0.0.1"));
}

fn after_header(identity: SinkIdentity, header: &[u8]) -> (Result<String, ()>, Events) {
    let (sink, events) = sink(|options| options.identity = identity);
    let mut dialog = Dialog::connect(&sink);
    // The first command is in the header's own segment, and must not be lost with it.
    dialog.send([header, b"NOOP\r\n"].concat());
    let mut first = [0];
    if std::io::Read::read(&mut dialog.0, &mut first).unwrap_or(0) == 0 {
        return (Err(()), events);
    }
    assert_eq!(dialog.reply(), "20 sink.test ESMTP sink\r\n");
    (Ok(dialog.reply()), events)
}

#[test]
fn proxy_headers_name_the_client() {
    let v1 = b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 25\r\n";
    for (identity, header, expected, by) in [
        (SinkIdentity::ProxyV1, v1.to_vec(), "2001:db8::7", By::ProxyV1),
        (SinkIdentity::Proxy, v1.to_vec(), "2001:db8::7", By::ProxyV1),
        (SinkIdentity::ProxyV2, v2(0x21, 0x11, V4), "192.0.2.7", By::ProxyV2),
        (SinkIdentity::Proxy, v2(0x21, 0x11, V4), "192.0.2.7", By::ProxyV2),
        (SinkIdentity::ProxyV2, v2(0x20, 0, b""), "127.0.0.1", By::ProxyV2),
    ] {
        let (reply, events) = after_header(identity, &header);
        assert_eq!(reply.as_deref(), Ok("250 2.0.0 Ok\r\n"), "{identity:?}");
        let client = events.client();
        assert_eq!((client.believed, client.by), (ip(expected), by), "{identity:?}");
    }
}

#[test]
fn a_missing_or_malformed_proxy_header_closes_the_connection() {
    let wrong = [
        (SinkIdentity::ProxyV1, b"EHLO client.test\r\n".to_vec()),
        (SinkIdentity::ProxyV1, v2(0x21, 0x11, V4)),
        (SinkIdentity::ProxyV2, b"PROXY UNKNOWN\r\n".to_vec()),
        (SinkIdentity::Proxy, b"PROXY TCP4 192.0.2.7 198.51.100.1 0123 25\r\n".to_vec()),
    ];
    for (identity, header) in wrong {
        let (reply, events) = after_header(identity, &header);
        assert_eq!(reply, Err(()), "{identity:?}");
        assert!(events.0.try_recv().is_err(), "{identity:?}");
    }
}

#[test]
fn no_banner_before_the_proxy_header() {
    let (sink, _events) = sink(|options| options.identity = SinkIdentity::ProxyV1);
    let mut dialog = Dialog::connect(&sink);
    dialog.0.get_ref().set_read_timeout(Some(std::time::Duration::from_millis(100))).unwrap();
    assert!(std::io::Read::read(&mut dialog.0, &mut [0]).is_err());
    dialog.0.get_ref().set_read_timeout(Some(super::PATIENCE)).unwrap();
    dialog.send("PROXY TCP4 192.0.2.7 198.51");
    std::thread::sleep(std::time::Duration::from_millis(20));
    dialog.send(".100.1 4711 25\r\n");
    assert!(dialog.reply().starts_with("220 "));
}
