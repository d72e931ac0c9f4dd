//! The front door on loopback, with a sink that says who it believes the client is: identities, load balancers, admission,
//! backends that are not there.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use smtp_gateway::sink::{Options, SinkIdentity};
use tests::peers::client::Client;
use tests::peers::local::{LocalGateway, LocalSink, address, configuration};

const MESSAGE: &[u8] = b"Subject: x\r\n\r\n.one\r\n";

fn start(listener: &str, identity: &str, more: &str) -> (LocalGateway, LocalSink) {
    let sink =
        LocalSink::start(Options { identity: identity.parse().unwrap_or(SinkIdentity::None), ..Options::default() });
    let front = (address(), 2525).into();
    let gateway = LocalGateway::start(front, &configuration(front, listener, sink.address, identity, more));
    (gateway, sink)
}

#[test]
fn every_identity_names_the_client() {
    for identity in ["xclient", "proxy-v1", "proxy-v2"] {
        let (gateway, sink) = start("", identity, "");
        let from = address();
        let mut client = gateway.client(from);
        assert_eq!(client.mail("a@client.test", "b@example.com", MESSAGE).code, 250, "{identity}");
        assert_eq!(sink.message_from(), Some(from.into()), "{identity}");
        assert_eq!(gateway.status()["messages"]["accepted_total"], 1);
        client.quit();
        gateway.log().wait_for(&[" session ", &format!("client={from}"), "end=\"quit\""]);
    }
}

/// A load balancer that is listed names the client; its own address is nobody's.
#[test]
fn a_listed_load_balancer_names_the_client() {
    let balancer = address();
    let listed = format!("proxy_protocol_from = [\"{balancer}/32\"]");
    for identity in ["xclient", "proxy-v2"] {
        let (gateway, sink) = start(&listed, identity, "");
        for (header, client) in [
            ("PROXY TCP4 203.0.113.9 192.0.2.1 4711 25\r\n", "203.0.113.9"),
            ("PROXY TCP6 2001:db8::9 2001:db8::1 4711 25\r\n", "2001:db8::9"),
        ] {
            let mut stream = gateway.connect_from(balancer);
            stream.write_all(header.as_bytes()).unwrap();
            let mut smtp = Client::over(stream);
            smtp.expect(2);
            assert_eq!(smtp.mail("a@client.test", "b@example.com", MESSAGE).code, 250);
            assert_eq!(sink.message_from(), Some(client.parse().unwrap()), "{identity}");
        }
    }
}

/// What the gateway says to whoever is not listed, or says it wrongly: nothing, whatever they send.
#[test]
fn strangers_and_malformed_proxy_headers_are_closed_unanswered() {
    let balancer = address();
    let listed = format!("proxy_protocol_from = [\"{balancer}/32\"]");
    let (gateway, _sink) = start(&listed, "xclient", "[timeouts]\nproxy_header = \"3s\"\n");
    let good: &[u8] = b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 25\r\n";
    let v2_empty = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\0";
    let cases: [(Ipv4Addr, &[u8]); 8] = [
        (address(), good),
        (balancer, b"PROXY TCP5 203.0.113.9 192.0.2.1 4711 25\r\n"),
        (balancer, b"PROXY TCP4 203.0.113.9 192.0.2.1 0123 25\r\n"),
        (balancer, b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 65536\r\n"),
        (balancer, b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 25\n"),
        (balancer, &[b'P'; 200]),
        (balancer, v2_empty),
        (balancer, b"EHLO me\r\n"),
    ];
    for (from, bytes) in cases {
        let mut stream = gateway.connect_from(from);
        // A stranger may find the connection closed before it has written.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert_eq!(answer, b"", "to {}", bytes.escape_ascii());
    }
    // One that says half of it is given up on, however slowly it goes on.
    let mut slow = gateway.connect_from(balancer);
    slow.write_all(&good[..20]).unwrap();
    let mut answer = Vec::new();
    let _ = slow.read_to_end(&mut answer);
    assert_eq!(answer, b"");
    assert_eq!(gateway.status()["sessions"]["accepted_total"], 0);
    assert_eq!(gateway.status()["sessions"]["refused_total"], cases.len() + 1);
    // Each cause is told, with what to write.
    let warnings = gateway.status()["warnings"].to_string();
    for words in ["is none that it lists", "PROXY headers that cannot be read", "and sends no PROXY header"] {
        assert!(warnings.contains(words), "{warnings}");
    }
    gateway.log().wait_for(&["refused", "unlisted-balancer", "proxy_protocol_from"]);
}

/// A balancer that is not listed, or a listener that takes none: it is told of and not punished, and nothing of its header is
/// taken for a command, whether it comes before the greeting or behind it.
#[test]
fn a_proxy_header_where_none_is_taken_is_told_of_and_earns_no_ban() {
    let (gateway, sink) = start("", "xclient", "");
    let balancer = address();
    let v1 = b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 25\r\n".as_slice();
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x09\xc0\0\x02\x01\x12\x67\0\x19".as_slice();
    for round in 0..10 {
        for header in [v1, v2] {
            let mut stream = gateway.connect_from(balancer);
            if round % 2 == 1 {
                stream.read_exact(&mut [0; 4]).unwrap();
            }
            stream.write_all(&[header, b"EHLO client.test\r\n"].concat()).unwrap();
            let mut said = Vec::new();
            let _ = stream.read_to_end(&mut said);
            let said = String::from_utf8_lossy(&said);
            assert!(said.contains("554 5.7.1 PROXY headers are not taken here"), "{said:?}");
            assert!(!said.contains("250"), "{said:?}");
        }
    }
    // From the same address mail still goes.
    assert_eq!(gateway.client(balancer).mail("a@client.test", "b@example.com", MESSAGE).code, 250);
    assert_eq!(sink.message_from(), Some(balancer.into()));
    let warnings = gateway.status()["warnings"].to_string();
    assert!(warnings.contains(&format!("{balancer} sends PROXY headers to a listener without")), "{warnings}");
    assert!(warnings.contains("(20 times"), "{warnings}");
}

/// What names nobody is served as nobody, and its health check in one packet is not early.
#[test]
fn headers_that_name_nobody_are_served_as_unnamed() {
    let balancer = address();
    let (gateway, _sink) = start(&format!("proxy_protocol_from = [\"{balancer}/32\"]"), "xclient", "");
    let signature = b"\r\n\r\n\0\r\nQUIT\n".as_slice();
    let own = format!("PROXY TCP4 {} 192.0.2.1 4711 25\r\n", gateway.address.ip());
    for header in [
        b"PROXY UNKNOWN\r\n".to_vec(),
        [signature, b"\x20\0\0\0"].concat(),
        [signature, b"\x21\0\0\0"].concat(),
        [signature, b"\x21\x12\0\x0c", &[1; 12]].concat(),
        [signature, b"\x21\x31\0\xd8", &[0; 216]].concat(),
        b"PROXY TCP4 127.0.0.1 192.0.2.1 4711 25\r\n".to_vec(),
        own.into_bytes(),
    ] {
        let mut stream = gateway.connect_from(balancer);
        stream.write_all(&[&header, b"HELO balancer\r\n".as_slice()].concat()).unwrap();
        let mut smtp = Client::over(stream);
        assert_eq!(smtp.reply().code, 220, "{}", header.escape_ascii());
        assert_eq!(smtp.reply().code, 250);
    }
}

/// nginx with realip: the client's IPv6 address, and its own IPv4 address as the destination.
#[test]
fn a_destination_of_another_family_decides_nothing() {
    let balancer = address();
    let (gateway, sink) = start(&format!("proxy_protocol_from = [\"{balancer}/32\"]"), "xclient", "");
    let mut stream = gateway.connect_from(balancer);
    stream.write_all(b"PROXY TCP6 2001:db8::9 192.0.2.1 51512 25\r\n").unwrap();
    let mut smtp = Client::over(stream);
    smtp.expect(2);
    assert_eq!(smtp.mail("a@client.test", "b@example.com", MESSAGE).code, 250);
    assert_eq!(sink.message_from(), Some("2001:db8::9".parse().unwrap()));
}

/// A backend that takes no more connections from one address is busy: it stays well, and `status` says what to raise.
#[test]
fn a_backend_that_greets_with_421_is_busy() {
    let faults = vec!["banner=421".parse().unwrap()];
    let sink = LocalSink::start(Options { identity: SinkIdentity::Xclient, faults, ..Options::default() });
    let front = (address(), 2525).into();
    let gateway = LocalGateway::start(front, &configuration(front, "", sink.address, "xclient", ""));
    let status = gateway.status();
    assert_eq!(status["backends"][0]["healthy"], true, "{status}");
    let problem = status["backends"][0]["problem"].to_string();
    assert!(problem.contains("is busy") && problem.contains("limit of connections from one address"), "{problem}");
    let mut client = gateway.client(address());
    client.must("EHLO client.test");
    assert_eq!(client.command("MAIL FROM:<a@client.test>").code / 100, 4);
    gateway.log().wait_for(&["backend is busy"]);
}

/// Silence on the control socket keeps nobody from asking.
#[test]
fn silent_connections_do_not_hold_the_control_socket() {
    let (gateway, _sink) = start("", "xclient", "");
    let connect = || UnixStream::connect(gateway.control_socket()).unwrap();
    let silent: Vec<_> = (0..200).map(|_| connect()).collect();
    let begun = Instant::now();
    assert_eq!(gateway.status()["sessions"]["active"], 0);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    // Garbage ends its own conversation only.
    let mut garbage = connect();
    let _ = garbage.write_all(&[0xff; 5000]);
    let _ = garbage.read_to_end(&mut Vec::new());
    assert_eq!(gateway.status()["sessions"]["active"], 0);
    for mut stream in silent {
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert_eq!(answer, b"", "each is closed in time");
    }
}

/// A load balancer that does not name the client lends it nothing: neither its own right to send out, nor, by a claim, the
/// gateway's.
#[test]
fn an_unnamed_client_has_no_rights_of_the_load_balancers() {
    let balancer = address();
    let listed = format!("proxy_protocol_from = [\"{balancer}/32\"]");
    let sink = LocalSink::start(Options { identity: SinkIdentity::Xclient, ..Options::default() });
    let front: SocketAddr = (address(), 2525).into();
    let config = configuration(front, &listed, sink.address, "xclient", "");
    let allowed = "[relay]\nallowed_networks = [\"127.0.0.0/8\"]\n";
    let gateway = LocalGateway::start(front, &config.replace("[relay]\n", allowed));
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    for header in [b"PROXY UNKNOWN\r\n".as_slice(), local] {
        let mut stream = gateway.connect_from(balancer);
        stream.write_all(header).unwrap();
        let mut smtp = Client::over(stream);
        smtp.expect(2);
        smtp.must("EHLO client.test");
        smtp.must("MAIL FROM:<a@client.test>");
        assert_eq!(smtp.command("RCPT TO:<b@elsewhere.example>").code, 550);
        smtp.must("RCPT TO:<b@example.com>");
        smtp.quit();
    }
}

/// One that the configuration says speaks for nobody but itself then is the client, and no more than that: a client that it
/// names is told as ever, and an address of the gateway's own names nobody.
#[test]
fn a_load_balancer_s_own_connections_are_its_own_where_that_is_said() {
    let balancer = address();
    let listed = format!("proxy_protocol_from = [\"{balancer}/32\"]\nown_connections_from = [\"{balancer}/32\"]");
    let (gateway, sink) = start(&listed, "xclient", "");
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    for (header, told) in [
        (b"PROXY UNKNOWN\r\n".as_slice(), Some(IpAddr::from(balancer))),
        (local, Some(balancer.into())),
        (b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 25\r\n", "203.0.113.9".parse().ok()),
        (b"PROXY TCP4 127.0.0.1 192.0.2.1 4711 25\r\n", None),
    ] {
        let mut stream = gateway.connect_from(balancer);
        stream.write_all(header).unwrap();
        let mut smtp = Client::over(stream);
        smtp.expect(2);
        assert_eq!(smtp.mail("a@client.test", "b@example.com", MESSAGE).code, 250);
        assert_eq!(sink.message_from(), told);
        smtp.quit();
    }
}

#[test]
fn a_second_proxy_header_changes_nothing() {
    let balancer = address();
    let (gateway, sink) = start(&format!("proxy_protocol_from = [\"{balancer}/32\"]"), "xclient", "");
    let mut stream = gateway.connect_from(balancer);
    stream.write_all(b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 25\r\n").unwrap();
    let mut smtp = Client::over(stream);
    smtp.expect(2);
    assert_eq!(smtp.command("PROXY TCP4 127.0.0.1 192.0.2.1 4711 25").code / 100, 5);
    assert_eq!(smtp.mail("a@client.test", "b@example.com", MESSAGE).code, 250);
    assert_eq!(sink.message_from(), Some("203.0.113.9".parse().unwrap()));
}

/// Early talk is seen behind a PROXY header, where it comes in the same segment.
#[test]
fn early_talk_is_refused() {
    let balancer = address();
    let (gateway, _sink) = start(&format!("proxy_protocol_from = [\"{balancer}/32\"]"), "xclient", "");
    let mut stream = gateway.connect_from(balancer);
    stream.write_all(b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 25\r\nEHLO early\r\n").unwrap();
    let reply = Client::over(stream).reply();
    assert_eq!((reply.code, reply.lines.len()), (554, 1), "{reply:?}");
}

#[test]
fn a_held_back_greeting_catches_early_talk() {
    let sink = LocalSink::start(Options { identity: SinkIdentity::Xclient, ..Options::default() });
    let front = (address(), 2525).into();
    let config = configuration(front, "", sink.address, "xclient", "");
    let config = config.replace("workers = 2\n", "workers = 2\ngreet_delay = \"300ms\"\n");
    let gateway = LocalGateway::start(front, &config);
    let mut stream = gateway.connect_from(address());
    stream.write_all(b"EHLO early\r\n").unwrap();
    assert_eq!(Client::over(stream).reply().code, 554);
    let since = Instant::now();
    let patient = gateway.client(address());
    assert!(since.elapsed() >= Duration::from_millis(300));
    patient.quit();
}

#[test]
fn one_client_cannot_have_every_session() {
    let (gateway, _sink) = start("", "xclient", "[limits]\nsessions_per_client = 2\nsessions = 4\n");
    let greedy = address();
    let first = gateway.client(greedy);
    let _second = gateway.client(greedy);
    assert_eq!(Client::over(gateway.connect_from(greedy)).reply().code, 421);
    // Others are not concerned, until the gateway is full.
    let _others = [gateway.client(address()), gateway.client(address())];
    assert_eq!(Client::over(gateway.connect_from(address())).reply().code, 421);
    assert_eq!(gateway.status()["sessions"]["refused_total"], 2);
    first.quit();
    gateway.log().wait_for(&["end=\"quit\""]);
    let _again = gateway.client(greedy);
}

/// A backend that is down: the gateway starts, says so, answers 451 until it is up, and needs no restart then.
#[test]
fn a_backend_that_is_down_is_answered_451_until_it_is_up() {
    let behind: SocketAddr = (address(), 2526).into();
    let front = (address(), 2525).into();
    let gateway = LocalGateway::start(front, &configuration(front, "", behind, "xclient", ""));
    let status = gateway.status();
    assert_eq!(status["backends"][0]["healthy"], false);
    assert!(status["backends"][0]["problem"].as_str().unwrap().starts_with("cannot connect to "), "{status}");
    let mut client = gateway.client(address());
    client.must("EHLO client.test");
    assert_eq!(client.command("MAIL FROM:<a@client.test>").code, 451);

    let sink = LocalSink::start(Options { listen: behind, identity: SinkIdentity::Xclient, ..Options::default() });
    let from = address();
    let mut late = gateway.client(from);
    assert_eq!(late.mail("a@client.test", "b@example.com", MESSAGE).code, 250);
    assert_eq!(sink.message_from(), Some(from.into()));
    gateway.log().wait_for(&["backend is healthy again"]);
}

/// A backend that accepts connections and says nothing.
#[test]
fn a_silent_backend_is_answered_451_in_time() {
    let silent = TcpListener::bind((address(), 0)).unwrap();
    let front = (address(), 2525).into();
    let more = "[timeouts]\nhandshake = \"200ms\"\nconnect = \"200ms\"\n";
    let config = configuration(front, "", silent.local_addr().unwrap(), "xclient", more);
    let gateway = LocalGateway::start(front, &config);
    let mut client = gateway.client(address());
    client.must("EHLO client.test");
    assert_eq!(client.command("MAIL FROM:<a@client.test>").code, 451);
    assert_eq!(gateway.status()["backends"][0]["healthy"], false);
}

/// A backend that offers XCLIENT and then refuses it looks well to a health check, and is not.
#[test]
fn a_backend_that_refuses_identities_stays_unhealthy() {
    let faults = vec!["xclient=550".parse().unwrap()];
    let sink = LocalSink::start(Options { identity: SinkIdentity::Xclient, faults, ..Options::default() });
    let front = (address(), 2525).into();
    let more = "[timeouts]\nhealth_interval = \"1s\"\n";
    let gateway = LocalGateway::start(front, &configuration(front, "", sink.address, "xclient", more));
    assert_eq!(gateway.status()["backends"][0]["healthy"], true);
    let mut client = gateway.client(address());
    client.must("EHLO client.test");
    assert_eq!(client.command("MAIL FROM:<a@client.test>").code, 451);
    assert_eq!(gateway.status()["backends"][0]["healthy"], false);
    gateway.log().wait_for(&["the backend cannot be told who clients are"]);
    // The first check, the client, the check that its refusal asked for, and the next.
    sink.sessions(4);
    assert_eq!(gateway.status()["backends"][0]["healthy"], false);
    assert!(!gateway.log().text().contains("healthy again"));
}
