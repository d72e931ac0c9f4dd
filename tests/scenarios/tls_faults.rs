//! Every fault of a TLS handshake, of a client's and of a mail server's: it ends within its deadline, in 451 or in a closed
//! connection, is called by its name, speaks against nobody, and holds up nobody else.

use std::fmt::Write as _;
use std::io::{BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::client::ClientConnection;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::server::ServerConnection;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use socket2::SockRef;
use tests::peers::local::{LocalGateway, address, configuration};
use tests::peers::local_tls::{Scene, Speaker, TlsBackend, UNCHECKED, listen, serve, until_closed};

/// When a fault has ended that is to end within a deadline of one second, on a busy machine.
const ENDED: Duration = Duration::from_secs(12);

const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;

/// What clients of TLS 1.2 say besides: signature algorithms, and groups.
const EXTENSIONS: &[u8] = &[0, 16, 0, 13, 0, 4, 0, 2, 4, 3, 0, 10, 0, 4, 0, 2, 0, 29];

/// A record with a hello of this version, which knows one cipher, or chooses it.
fn hello(kind: u8, version: [u8; 2], cipher: [u8; 2]) -> Vec<u8> {
    let mut body = version.to_vec();
    body.extend([7; 32]);
    body.push(0);
    if kind == CLIENT_HELLO {
        body.extend([0, 2, cipher[0], cipher[1], 1, 0]);
    } else {
        body.extend([cipher[0], cipher[1], 0]);
    }
    if kind == CLIENT_HELLO && version == [3, 3] {
        body.extend(EXTENSIONS);
    }
    let length = |count: usize| u16::try_from(count).unwrap().to_be_bytes();
    let mut record = vec![22, 3, 1];
    record.extend(length(body.len() + 4));
    record.extend([kind, 0]);
    record.extend(length(body.len()));
    record.extend(body);
    record
}

const ALERT: &[u8] = &[21, 3, 3, 0, 2, 2];
const HANDSHAKE_FAILURE: u8 = 40;
const INTERNAL_ERROR: u8 = 80;

/// How somebody who should begin TLS, or answer it, does not.
#[derive(Clone)]
enum Raw {
    /// Sends this and waits for what becomes of it.
    Says(Vec<u8>),
    /// Sends this and closes.
    Leaves(Vec<u8>),
    /// Closes by a reset.
    Resets,
}

impl Raw {
    /// What came until the end, if there was still somebody to wait for it.
    fn act(&self, mut stream: TcpStream) -> Vec<u8> {
        match self {
            // Whoever has closed already shows it when the end is waited for.
            Self::Says(bytes) => drop(stream.write_all(bytes)),
            Self::Leaves(bytes) => {
                let _ = stream.write_all(bytes);
                let _ = stream.shutdown(Shutdown::Write);
            }
            Self::Resets => {
                SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                return Vec::new();
            }
        }
        until_closed(&mut stream)
    }
}

fn half(mut record: Vec<u8>) -> Vec<u8> {
    record.truncate(record.len() / 2);
    record
}

/// A clock that goes wrong.
#[derive(Debug)]
struct Clock(Duration);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(self.0))
    }
}

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// A client that minds what it is shown, at this time of the clock's, and asks for these protocols.
fn minding(root: &str, at: Option<Duration>, protocol: &[u8]) -> Arc<ClientConfig> {
    let mut store = RootCertStore::empty();
    store.add(CertificateDer::from_pem_slice(root.as_bytes()).unwrap()).unwrap();
    let clock = Clock(at.unwrap_or_else(|| Duration::from_secs(UnixTime::now().as_secs())));
    let builder = ClientConfig::builder_with_details(Arc::new(default_provider()), Arc::new(clock));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(store).with_no_client_auth();
    if !protocol.is_empty() {
        config.alpn_protocols = vec![protocol.to_vec()];
    }
    Arc::new(config)
}

/// Something that a client does where its handshake is due.
enum Client {
    Raw(Raw),
    /// A whole handshake that it gives up, for this name.
    Minds(Arc<ClientConfig>, &'static str),
}

impl Client {
    fn act(&self, mut stream: TcpStream) -> Vec<u8> {
        match self {
            Self::Raw(raw) => raw.act(stream),
            Self::Minds(config, name) => {
                let mut tls = ClientConnection::new(config.clone(), (*name).try_into().unwrap()).unwrap();
                let outcome = tls.complete_io(&mut stream);
                assert!(outcome.is_err(), "the handshake came about");
                until_closed(&mut stream)
            }
        }
    }
}

/// Each fault, and what it is counted as.
fn faults_of_clients(certificate: &str) -> Vec<(&'static str, Client, &'static str)> {
    let raw = |bytes: &[u8]| Client::Raw(Raw::Says(bytes.to_vec()));
    let alert = |description: u8| raw(&[ALERT, &[description]].concat());
    let hello_of = |version, cipher| hello(CLIENT_HELLO, version, cipher);
    let real = hello_of([3, 3], [0xc0, 0x2b]);
    vec![
        ("an old version", raw(&hello_of([3, 1], [0xc0, 0x13])), "no-common-version"),
        ("an old cipher", raw(&hello_of([3, 3], [0, 5])), "no-common-cipher"),
        ("another name", Client::Minds(minding(certificate, None, b""), "other.test"), "certificate-refused"),
        ("expired", Client::Minds(minding(certificate, Some(200 * YEAR), b""), "gateway.test"), "certificate-refused"),
        ("not yet valid", Client::Minds(minding(certificate, Some(YEAR), b""), "gateway.test"), "certificate-refused"),
        ("an unknown CA", Client::Minds(minding(&stranger(), None, b""), "gateway.test"), "certificate-refused"),
        ("another protocol", Client::Minds(minding(certificate, None, b"h2"), "gateway.test"), "other-protocol"),
        ("half a record", raw(&half(real.clone())), "timed-out"),
        ("half a record and the end", Client::Raw(Raw::Leaves(half(real.clone()))), "given-up"),
        ("half a header", raw(&real[..3]), "timed-out"),
        ("garbage", raw(&[0xff; 64]), "not-tls"),
        ("data before the handshake", raw(&[23, 3, 3, 0, 1, 0]), "not-tls"),
        ("a record of another length", raw(&[22, 3, 1, 0xff, 0xff, 1, 0, 0]), "protocol"),
        ("a plain command", raw(b"EHLO client.test\r\n"), "clear-text"),
        ("an alert", alert(INTERNAL_ERROR), "alert"),
        ("an alert that says why", alert(HANDSHAKE_FAILURE), "no-common-cipher"),
        ("a reset", Client::Raw(Raw::Resets), "given-up"),
        ("the end", Client::Raw(Raw::Leaves(Vec::new())), "given-up"),
        ("silence", raw(b""), "timed-out"),
    ]
}

/// Somebody else's certificate.
fn stranger() -> String {
    tests::peers::local_tls::made("stranger.test").certificate
}

fn clients_that_fail(listener: &str, starttls: bool) {
    let backend = TlsBackend::start();
    let scene = Scene::with(backend.address, UNCHECKED, listener, "[timeouts]\ntls_handshake = \"1s\"\n");
    let faults = faults_of_clients(&scene.certificate);
    thread::scope(|scope| {
        for (what, client, _) in &faults {
            let scene = &scene;
            scope.spawn(move || {
                let mut clear = scene.connect();
                if starttls {
                    assert!(clear.line().starts_with("220 ") && clear.reply("STARTTLS\r\n").starts_with("220 "));
                }
                let begun = Instant::now();
                let rest = client.act(clear.0.into_inner());
                assert!(begun.elapsed() < ENDED, "{what}: {:?}", begun.elapsed());
                // The first flight of the handshake, an alert, or nothing: never a reply that could be taken for one of TLS.
                assert!(rest.first().is_none_or(|first| [21, 22].contains(first)), "{what}: {rest:?}");
            });
        }
    });
    let secured = || if starttls { scene.starttls() } else { with_greeting(&scene) };
    secured().deliver();
    let status = scene.gateway.status();
    let mut expected = serde_json::Map::new();
    for (_, _, cause) in faults {
        let count = expected.get(cause).and_then(serde_json::Value::as_u64).unwrap_or(0);
        expected.insert(cause.to_owned(), (count + 1).into());
    }
    for (cause, count) in expected {
        assert_eq!(status["tls"]["faults_total"][&cause], count, "{cause}: {}", status["tls"]);
    }
    assert_eq!(status["xdp"]["bans"], 0);
}

fn with_greeting(scene: &Scene) -> Speaker<rustls::StreamOwned<ClientConnection, TcpStream>> {
    let mut client = scene.secure(scene.connect());
    assert!(client.line().starts_with("220 "));
    client
}

#[test]
fn clients_that_fail_behind_starttls() {
    clients_that_fail("", true);
}

#[test]
fn clients_that_fail_from_the_first_byte() {
    clients_that_fail("tls = \"implicit\"", false);
}

/// Something that a mail server does where its handshake is due.
#[derive(Clone)]
enum Server {
    Raw(Raw),
    /// A handshake with this certificate.
    Shows(Arc<ServerConfig>),
}

/// An authority, and what it signs.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A server that shows a certificate for this name, of these years.
    fn server(&self, name: &str, years: [i32; 2]) -> Server {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        [params.not_before, params.not_after] = years.map(|year| date_time_ymd(year, 1, 1));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate.into()], key);
        Server::Shows(Arc::new(config.unwrap()))
    }
}

const VALID: [i32; 2] = [2020, 2200];

/// Each fault, and what `status` says of it.
fn faults_of_servers(authority: &Authority) -> Vec<(&'static str, Server, &'static str)> {
    let raw = |bytes: &[u8]| Server::Raw(Raw::Says(bytes.to_vec()));
    let leaves = |bytes: &[u8]| Server::Raw(Raw::Leaves(bytes.to_vec()));
    let alert = |description: u8| leaves(&[ALERT, &[description]].concat());
    let real = hello(SERVER_HELLO, [3, 3], [0xc0, 0x2b]);
    vec![
        ("an old version", raw(&hello(SERVER_HELLO, [3, 1], [0xc0, 0x13])), "knows no TLS version in common"),
        ("a cipher nobody offered", raw(&hello(SERVER_HELLO, [3, 3], [0, 5])), "TLS"),
        ("another name", authority.server("other.test", VALID), "is for other.test, not for backend.test"),
        ("expired", authority.server("backend.test", [2020, 2021]), "has expired"),
        ("not yet valid", authority.server("backend.test", [2199, 2200]), "is not valid yet"),
        ("an unknown CA", Authority::new().server("backend.test", VALID), "signed by nobody that is trusted here"),
        ("half a record", raw(&half(real.clone())), "did not finish the TLS handshake in time"),
        ("half a record and the end", leaves(&half(real.clone())), "ended within the handshake"),
        ("half a header", raw(&real[..3]), "did not finish the TLS handshake in time"),
        ("garbage", raw(&[0xff; 64]), "is no TLS"),
        ("a record of another length", raw(&[22, 3, 1, 0xff, 0xff, 2, 0, 0]), "TLS"),
        ("a plain reply", raw(b"220 backend ESMTP\r\n"), "speaks in clear where TLS was due"),
        ("an alert", alert(INTERNAL_ERROR), "internal_error"),
        ("an alert that says why", alert(HANDSHAKE_FAILURE), "no cipher, key exchange or signature in common"),
        ("a reset", Server::Raw(Raw::Resets), "no TLS with it"),
        ("the end", leaves(b""), "ended within the handshake"),
        ("silence", raw(b""), "did not finish the TLS handshake in time"),
    ]
}

/// A mail server that fails so; the lines that it heard.
fn failing(server: Server, starttls: bool) -> (SocketAddr, mpsc::Receiver<(bool, String)>) {
    let (sender, heard) = mpsc::channel();
    let place = listen(move |stream| {
        let mut clear = Speaker(BufReader::new(stream));
        if starttls {
            clear.say("220 backend\r\n");
            if !serve(&mut clear, false, &sender) {
                return;
            }
        }
        let mut stream = clear.0.into_inner();
        match &server {
            Server::Raw(raw) => {
                // A ClientHello has come: what is said before is said in clear.
                let _ = stream.peek(&mut [0]);
                raw.clone().act(stream);
            }
            Server::Shows(config) => {
                let mut tls = ServerConnection::new(config.clone()).unwrap();
                while tls.complete_io(&mut stream).is_ok_and(|(read, _)| read > 0) {}
                let mut plain = Vec::new();
                let _ = tls.reader().read_to_end(&mut plain);
                let _ = sender.send((true, String::from_utf8_lossy(&plain).into_owned()));
                until_closed(&mut stream);
            }
        }
    });
    (place, heard)
}

fn servers_that_fail(way: &str) {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let roots = folder.path().join("roots.pem");
    std::fs::write(&roots, authority.0.pem()).unwrap();
    let faults = faults_of_servers(&authority);
    let mut servers = Vec::new();
    let (mut more, mut first) = (String::new(), None);
    for (number, (what, server, says)) in faults.into_iter().enumerate() {
        let (place, heard) = failing(server, way == "required");
        let front: SocketAddr = (address(), 2525).into();
        first.get_or_insert(place);
        let keys = format!("tls = \"{way}\"\ntls_verify = \"ca\"\ntls_ca = \"{}\"", roots.display());
        writeln!(
            more,
            "[[listener]]\naddress = \"{front}\"\nbackend = \"b{number}\"\n[[backend]]\nname = \"b{number}\"\n\
             address = \"{place}\"\nidentity = \"none\"\n{keys}\ntls_name = \"backend.test\""
        )
        .unwrap();
        servers.push((what, front, heard, says));
    }
    more.push_str("[timeouts]\nconnect = \"1s\"\nhandshake = \"1s\"\nhealth_interval = \"1h\"\n");
    let front: SocketAddr = (address(), 2525).into();
    let gateway = LocalGateway::start(front, &configuration(front, "", first.unwrap(), "none", &more));
    thread::scope(|scope| {
        for (what, front, heard, _) in servers.iter_mut() {
            scope.spawn(move || {
                let stream = tests::peers::local::connect(Ipv4Addr::LOCALHOST, *front).unwrap();
                stream.set_read_timeout(Some(ENDED)).unwrap();
                let mut client = Speaker(BufReader::new(stream));
                assert!(client.line().starts_with("220 "));
                assert!(client.reply("EHLO client.test\r\n").starts_with("250 "));
                let begun = Instant::now();
                let reply = client.reply("MAIL FROM:<a@client.test>\r\n");
                assert!(reply.starts_with("451 4."), "{what}: {reply}");
                assert!(begun.elapsed() < ENDED, "{what}: {:?}", begun.elapsed());
                assert!(client.reply("QUIT\r\n").starts_with("221 "), "{what}");
                let heard: Vec<_> = heard.try_iter().collect();
                let told = heard.iter().find(|(_, line)| line.contains("client.test"));
                assert_eq!(told, None, "{what}: said to nobody knows whom");
            });
        }
    });
    for (number, (_, _, _, says)) in servers.iter().enumerate() {
        gateway.log().wait_for(&["backend is unhealthy", &format!("backend=\"b{number}\""), says]);
    }
}

#[test]
fn servers_that_fail_behind_starttls() {
    servers_that_fail("required");
}

#[test]
fn servers_that_fail_from_the_first_byte() {
    servers_that_fail("implicit");
}
