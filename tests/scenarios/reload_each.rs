//! Each kind of setting that a reload may change is in force behind it; an upgrade hands over what it knows of each.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::sync::Arc;
use std::time::Instant;

use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};
use serde_json::Value;
use smtp_gateway::sink::{Options, SinkIdentity};
use tests::peers::client::Client;
use tests::peers::local::{LocalGateway, LocalSink, address, configuration, connect, run};
use tests::peers::local_tls::{Speaker, made};
use tests::peers::log::PATIENCE;
use tests::peers::stage::said;

const MESSAGE: &[u8] = b"Subject: x\r\n\r\none\r\n";
/// Whom the gateway becomes if root starts it.
const NOBODY: u32 = 65_534;
const PROOF: &str =
    "[timeouts]\nhealth_interval = \"500ms\"\n[proof]\npause = \"0s\"\nforeign_domain = \"elsewhere.test\"\n";

fn sink(identity: SinkIdentity) -> LocalSink {
    LocalSink::start(Options { identity, ..Options::default() })
}

fn reload(gateway: &LocalGateway, config: &str) {
    fs::write(gateway.folder().join("gateway.toml"), config).unwrap();
    let output = run(gateway.folder(), &["reload", "--socket", "control.sock"]);
    assert!(output.status.success() && !said(&output).contains('!'), "{}", said(&output));
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < PATIENCE, "{what}: not in time");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

fn proof(gateway: &LocalGateway) -> Value {
    gateway.status()["backends"][0]["proof"].clone()
}

/// A certificate and its key in the gateway's folder, which its user may read.
fn certificate(gateway: &LocalGateway) -> (String, CertificateDer<'static>) {
    let made = made("gateway.test");
    for (name, text) in [("mx.pem", &made.certificate), ("mx.key", &made.key)] {
        let path = gateway.folder().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        if rustix::process::geteuid().is_root() {
            chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }
    let keys = "[tls]\ncertificates = [{ certificate = \"mx.pem\", key = \"mx.key\" }]\n".to_owned();
    (keys, CertificateDer::from_pem_slice(made.certificate.as_bytes()).unwrap())
}

#[test]
fn another_identity_is_told_from_then_on() {
    let (xclient, proxied) = (sink(SinkIdentity::Xclient), sink(SinkIdentity::ProxyV2));
    let front: SocketAddr = (address(), 2525).into();
    let gateway = LocalGateway::start(front, &configuration(front, "", xclient.address, "xclient", ""));
    let from = address();
    let mail = || assert_eq!(gateway.client(from).mail("a@client.test", "b@example.com", MESSAGE).code, 250);
    mail();
    assert_eq!(xclient.message_from(), Some(IpAddr::V4(from)));
    reload(&gateway, &configuration(front, "", proxied.address, "proxy-v2", ""));
    mail();
    assert_eq!(proxied.message_from(), Some(IpAddr::V4(from)));
    assert_eq!(gateway.status()["backends"][0]["identity"], "proxy-v2");
}

#[test]
fn the_rules_of_bans_and_the_level_of_the_log_follow_the_file() {
    let sink = sink(SinkIdentity::Xclient);
    let front: SocketAddr = (address(), 2525).into();
    let config =
        |more: &str| configuration(front, "proxy_protocol_from = [\"127.0.0.0/8\"]", sink.address, "xclient", more);
    let gateway = LocalGateway::start(front, &config("[bans]\nenabled = false\n"));
    let offend = |client: &str| {
        let mut stream = connect(address(), front).unwrap();
        std::io::Write::write_all(&mut stream, format!("PROXY TCP4 {client} 192.0.2.1 4711 25\r\n").as_bytes())
            .unwrap();
        let mut client = Client::over(stream);
        client.expect(2);
        client.attempt_relay(4);
    };
    let bans = || said(&run(gateway.folder(), &["bans", "--socket", "control.sock", "--json"]));
    (0..5).for_each(|_| offend("203.0.113.77"));
    assert!(!bans().contains("203.0.113.77"), "{}", bans());
    reload(&gateway, &config("[bans]\nfirst = \"3m\"\n[log]\nlevel = \"debug\"\n"));
    (0..5).for_each(|_| offend("203.0.113.78"));
    until("the ban", || bans().contains("203.0.113.78"));
    let page: Value = serde_json::from_str(&bans()).unwrap();
    let ban = &page["bans"][0];
    assert_eq!(ban["until"].as_u64().unwrap() - ban["since"].as_u64().unwrap(), 180, "{ban}");
    let mut banned = connect(address(), front).unwrap();
    std::io::Write::write_all(&mut banned, b"PROXY TCP4 203.0.113.78 192.0.2.1 4711 25\r\n").unwrap();
    gateway.log().wait_for(&["DEBUG", "connection refused"]);
    reload(&gateway, &config("[bans]\nthreshold = 10000\n[log]\nlevel = \"info\"\n"));
    (0..5).for_each(|_| offend("203.0.113.79"));
    assert!(!bans().contains("203.0.113.79"), "{}", bans());
}

#[test]
fn a_proof_follows_and_its_outcome_goes_over_to_the_successor() {
    let trusting = LocalSink::start(Options {
        identity: SinkIdentity::Xclient,
        trust: vec!["0.0.0.0/0".parse().unwrap()],
        ..Options::default()
    });
    let sound = sink(SinkIdentity::Xclient);
    let front: SocketAddr = (address(), 2525).into();
    let config = |backend: SocketAddr| configuration(front, "", backend, "xclient", PROOF);
    let gateway = LocalGateway::start(front, &config(sound.address));
    let is = |state: &str| proof(&gateway)["state"].as_str().is_some_and(|found| found.starts_with(state));
    until("the first proof", || is("safe"));
    reload(&gateway, &config(trusting.address));
    until("the proof behind the reload", || is("open"));
    let found = proof(&gateway);
    let output = gateway.upgrade();
    assert!(output.status.success(), "{}", said(&output));
    // At once, and before it has proven anything itself.
    let known = proof(&gateway);
    assert_eq!((&known["state"], known["checked_at"].is_null()), (&found["state"], false), "{found} {known}");
}

/// A certificate comes with a reload; who has a ticket from before an upgrade need not begin anew behind it.
#[test]
fn certificates_come_and_tickets_stay_good() {
    let sink = sink(SinkIdentity::Xclient);
    let front: SocketAddr = (address(), 2525).into();
    let gateway = LocalGateway::start(front, &configuration(front, "", sink.address, "xclient", ""));
    let offers =
        || gateway.client(address()).must("EHLO client.test").lines.iter().any(|line| line.ends_with("STARTTLS"));
    assert!(!offers());
    let (keys, der) = certificate(&gateway);
    reload(&gateway, &configuration(front, "", sink.address, "xclient", &keys));
    assert!(offers());
    let mut roots = RootCertStore::empty();
    roots.add(der).unwrap();
    let mut client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    client.resumption = Resumption::in_memory_sessions(8);
    let client = Arc::new(client);
    let handshake = || {
        let mut stream = connect(address(), front).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut clear = Client::over(stream.try_clone().unwrap());
        clear.expect(2);
        clear.must("EHLO client.test");
        clear.must("STARTTLS");
        let mut tls = ClientConnection::new(client.clone(), "gateway.test".try_into().unwrap()).unwrap();
        tls.complete_io(&mut stream).unwrap();
        let kind = tls.handshake_kind().unwrap();
        // Tickets come behind the handshake.
        let mut speaker = Speaker(std::io::BufReader::new(StreamOwned::new(tls, stream)));
        speaker.deliver();
        kind
    };
    assert_eq!(handshake(), HandshakeKind::Full);
    assert_eq!(handshake(), HandshakeKind::Resumed);
    let output = gateway.upgrade();
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(handshake(), HandshakeKind::Resumed);
}
