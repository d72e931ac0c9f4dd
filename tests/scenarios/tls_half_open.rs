//! Ten thousand clients that do nothing, and then end all at once: mail of others takes its way in its time.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
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
const CROWD: usize = SOURCES as usize * EACH;
/// Of a look at how long sessions take, and how many looks: the machine has other work, so the best of them counts.
const SESSIONS: usize = 200;
const LOOKS: usize = 3;
/// What the gateway may do for others at most, in time of the processor, while a session takes its way and ten thousand others
/// end: whoever waits for more has been put behind all of them. How long that takes is the machine's affair.
const HELD_UP: Duration = Duration::from_millis(200);
/// When the last of a crowd has ended that was told to.
const GONE: Duration = Duration::from_secs(60);

/// A gateway with one worker, a mail server, and a hundred more addresses for clients.
struct Setting {
    gateway: Gateway,
    _sink: Mutex<LocalSink>,
    client: Arc<ClientConfig>,
    _own: Files,
    addresses: Vec<Ipv4Addr>,
    trio: Trio,
}

impl Setting {
    fn new(limits: &str) -> Self {
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
             [limits]\nsessions_per_client = {}\nhandshakes_per_client = 1000000\n{limits}\
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
        Self { gateway, _sink: Mutex::new(sink), client, _own: own, addresses, trio }
    }

    /// Ten thousand connections from a hundred addresses, each brought so far.
    fn crowd(&self, bring: impl Fn(usize, Speaker<TcpStream>) -> TcpStream) -> Vec<TcpStream> {
        let addresses = self.addresses.iter().cycle().take(CROWD);
        let crowd: Vec<_> = addresses.enumerate().map(|(number, from)| bring(number, connect(*from))).collect();
        assert_eq!(self.active(), CROWD as u64);
        crowd
    }

    fn active(&self) -> u64 {
        self.gateway.json(&["status"])["sessions"]["active"].as_u64().unwrap()
    }

    /// How long a session takes, from the connection to the end of a message that arrived.
    fn session(&self) -> Duration {
        let Ok(IpAddr::V4(from)) = CLIENT[0].parse() else { panic!("no IPv4 address") };
        let begun = Instant::now();
        let mut clear = connect(from);
        assert!(clear.reply("STARTTLS\r\n").starts_with("220 "));
        let tls = ClientConnection::new(self.client.clone(), "gateway.test".try_into().unwrap()).unwrap();
        Speaker(BufReader::new(StreamOwned::new(tls, clear.0.into_inner()))).deliver_to("box@local.test");
        begun.elapsed()
    }

    fn look(&self, what: &str) -> Duration {
        let look = || told(what, (0..SESSIONS).map(|_| self.session()).collect());
        (0..LOOKS).map(|_| look()).min().unwrap()
    }

    /// Time of the processor that the gateway has had.
    fn worked(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.gateway.pid())).unwrap();
        let of = |task: fs::DirEntry| {
            // A thread that has just ended has no more to tell.
            let said = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            said.split(' ').next().and_then(|count| count.parse().ok()).unwrap_or(0)
        };
        Duration::from_nanos(tasks.flatten().map(of).sum())
    }

    /// The most that the gateway did while a session took its way, until the crowd was gone.
    fn worst_until_gone(&self, what: &str) -> Duration {
        let begun = Instant::now();
        let (mut took, mut most) = (Vec::new(), Duration::ZERO);
        while took.len() % 20 > 0 || self.active() > 1 {
            assert!(begun.elapsed() < GONE, "{} sessions are left", self.active());
            let before = self.worked();
            took.push(self.session());
            most = most.max(self.worked().saturating_sub(before));
        }
        told(what, took);
        println!("{what}: {most:?} of the processor's time within one session at most");
        most
    }
}

/// Of sessions, what one of a hundred took at least.
fn told(what: &str, mut took: Vec<Duration>) -> Duration {
    took.sort_unstable();
    let at = |percent: usize| took[took.len() * percent / 100];
    let worst = *took.last().unwrap();
    println!("{what}: {} sessions, p50 {:?}, p99 {:?}, worst {worst:?}", took.len(), at(50), at(99));
    at(99)
}

fn connect(from: Ipv4Addr) -> Speaker<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect_timeout(&Family::V4.smtp(FRONT).into(), PATIENCE).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut clear = Speaker(BufReader::new(stream));
    assert!(clear.line().starts_with("220 "));
    clear
}

#[test]
#[ignore = "for a quiet machine and `ulimit -n 11000`: `cargo test --release -p tests -- --ignored ten_thousand`"]
fn ten_thousand_half_open_handshakes_hold_up_nobody() {
    if !available("half-open handshakes from a hundred sources", &[]) {
        return;
    }
    let setting = Setting::new("[timeouts]\ntls_handshake = \"5m\"\n");
    setting.trio.client.within(|| {
        setting.look("warming up");
        let without = setting.look("without");
        // Some have begun with a hello, most with nothing.
        let crowd = setting.crowd(|number, mut clear| {
            assert!(clear.reply("STARTTLS\r\n").starts_with("220 "));
            let mut stream = clear.0.into_inner();
            stream.write_all(&[22, 3, 1][..number % 4]).unwrap();
            stream
        });
        let with = setting.look("with");
        assert!(with <= without * 3 / 2, "{with:?}, and {without:?} without");
        let worst = thread::scope(|scope| {
            scope.spawn(|| drop(crowd));
            setting.worst_until_gone("while they leave")
        });
        assert!(worst < HELD_UP, "{worst:?} while they leave");
    });
    assert_eq!(setting.gateway.json(&["status"])["xdp"]["bans"], 0);
}

/// Places run out, so everybody who has brought no mail gets the same short deadline.
#[test]
#[ignore = "for a quiet machine and `ulimit -n 11000`: `cargo test --release -p tests -- --ignored ten_thousand`"]
fn ten_thousand_sessions_that_end_at_one_moment_hold_up_nobody() {
    if !available("sessions of a hundred sources that end together", &[]) {
        return;
    }
    // Places are short from seven eighths on.
    let setting = Setting::new(&format!("sessions = {}\n", CROWD * 8 / 7));
    setting.trio.client.within(|| {
        setting.look("warming up");
        setting.look("without");
        let _crowd = setting.crowd(|_, clear| clear.0.into_inner());
        let worst = setting.worst_until_gone("until they were ended");
        assert!(worst < HELD_UP, "{worst:?} while they are ended");
    });
    assert_eq!(setting.gateway.json(&["status"])["xdp"]["bans"], 0);
}
