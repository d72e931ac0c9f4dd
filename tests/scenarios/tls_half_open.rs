//! Ten thousand clients that were told to begin TLS, and do not: mail of others takes its way in its time.

use std::fmt::Write as _;
use std::io::{BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use smtp_gateway::sink::{Options, SinkIdentity};
use socket2::{Domain, Socket, Type};
use tests::peers::LOCAL_DOMAIN;
use tests::peers::available;
use tests::peers::gateway::Gateway;
use tests::peers::local::LocalSink;
use tests::peers::local_tls::Speaker;
use tests::peers::log::PATIENCE;
use tests::peers::net::{BACK, BACKEND, CLIENT, FRONT, Family, Trio};
use tests::peers::tls::Files;

const SOURCES: u8 = 100;
const EACH: usize = 100;
const SESSIONS: usize = 400;

fn connect(from: Ipv4Addr) -> Speaker<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect_timeout(&Family::V4.smtp(FRONT).into(), PATIENCE).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut clear = Speaker(BufReader::new(stream));
    assert!(clear.line().starts_with("220 "));
    assert!(clear.reply("STARTTLS\r\n").starts_with("220 "));
    clear
}

/// How long each of some sessions took, from the connection to the end of a message that arrived; in order.
fn sessions(client: &Arc<ClientConfig>) -> Vec<Duration> {
    let Ok(IpAddr::V4(from)) = CLIENT[0].parse() else { panic!("no IPv4 address") };
    let session = |_| {
        let begun = Instant::now();
        let clear = connect(from);
        let tls = ClientConnection::new(client.clone(), "gateway.test".try_into().unwrap()).unwrap();
        Speaker(BufReader::new(StreamOwned::new(tls, clear.0.into_inner()))).deliver_to("box@local.test");
        begun.elapsed()
    };
    let mut took: Vec<_> = (0..SESSIONS).map(session).collect();
    took.sort_unstable();
    took
}

#[test]
#[ignore = "a measurement, for a quiet machine and `ulimit -n 11000`: `cargo test --release -p tests -- --ignored ten_thousand`"]
fn ten_thousand_half_open_handshakes_hold_up_nobody() {
    if !available("half-open handshakes from a hundred sources", &[]) {
        return;
    }
    let trio = Trio::new();
    let addresses: Vec<Ipv4Addr> = (0..SOURCES).map(|number| Ipv4Addr::new(192, 0, 2, 100 + number)).collect();
    let mut batch = String::new();
    for address in &addresses {
        writeln!(batch, "ip address add {address}/24 dev eth0").unwrap();
    }
    assert!(trio.client.command("sh").args(["-ec", &batch]).status().unwrap().success());
    let xclient_from = vec![smtp_gateway::sink::network(BACK[0]).unwrap()];
    let options = Options {
        identity: SinkIdentity::Xclient,
        listen: Family::V4.smtp(BACKEND),
        xclient_from,
        ..Options::default()
    };
    let sink = trio.backend.within(|| LocalSink::start(options));
    let own = Files::new("gateway.test");
    let config = format!(
        "[server]\nhostname = \"gateway.test\"\nworkers = 1\n[[listener]]\naddress = \"{}\"\n\
         [[backend]]\naddress = \"{}\"\n[tls]\ncertificates = [{}]\n[relay]\nlocal_domains = [\"{LOCAL_DOMAIN}\"]\n\
         [limits]\nsessions_per_client = {}\nhandshakes_per_client = 1000000\n[timeouts]\ntls_handshake = \"5m\"\n\
         [proof]\nenabled = false\n",
        Family::V4.smtp(FRONT),
        sink.address,
        own.pair(),
        EACH + 1,
    );
    let gateway = Gateway::by(&trio, &config);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&own.certificate).unwrap()).unwrap();
    let client = Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth());
    trio.client.within(|| {
        sessions(&client);
        let without = sessions(&client);
        // Some have begun with a hello, most with nothing.
        let mut open = Vec::new();
        for (number, &address) in addresses.iter().cycle().take(usize::from(SOURCES) * EACH).enumerate() {
            let mut stream = connect(address).0.into_inner();
            stream.write_all(&[22, 3, 1][..number % 4]).unwrap();
            open.push(stream);
        }
        assert_eq!(gateway.json(&["status"])["sessions"]["active"], open.len());
        let with = sessions(&client);
        drop(open);
        let at = |took: &[Duration], percent: usize| took[took.len() * percent / 100];
        for (when, took) in [("without", &without), ("with", &with)] {
            println!("{when}: p50 {:?}, p99 {:?}, worst {:?}", at(took, 50), at(took, 99), took[took.len() - 1]);
        }
        let (without, with) = (at(&without, 99), at(&with, 99));
        assert!(with <= without * 3 / 2, "{with:?}, and {without:?} without");
    });
    assert_eq!(gateway.json(&["status"])["xdp"]["bans"], 0);
}
