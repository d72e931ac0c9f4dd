//! What it costs to look where there is much to see, and that mail does not notice who looks.
//!
//! All of it is opt-in, for times mean something only on a machine that does nothing else:
//! `cargo test --release -p tests observe_scale -- --ignored --nocapture --test-threads 1`.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use smtp_gateway::sink::{Options, SinkIdentity};
use tests::peers::client::Client;
use tests::peers::local::{LocalGateway, LocalSink, address, configuration, connect};

/// As many as a process may have files, less what it needs for itself.
const SESSIONS_MAX: usize = 20_000;
const FILES_OF_ITS_OWN: usize = 1_500;
const SOURCES: u32 = 65_536;
const SCRAPES: usize = 1_000;
const SILENT_CONNECTIONS: usize = 10_000;
/// Mails whose times are compared, and how many clients send them.
const MAILS: usize = 4_000;
const SENDERS: usize = 16;
/// How many times the 99th percentile may be what it is without: noise of the machine, and no more.
const HINDERED_MAX: u32 = 2;
/// What nobody exceeds unless something is wrong, whatever the machine does beside.
const SCRAPE_MAX: Duration = Duration::from_millis(100);

struct Stage {
    gateway: LocalGateway,
    metrics: SocketAddr,
}

impl Stage {
    fn set() -> (Self, LocalSink) {
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
        let sink = LocalSink::start(Options { identity: SinkIdentity::Xclient, ..Options::default() });
        let front = (address(), 2525).into();
        let metrics = SocketAddr::from((address(), 9525));
        let more = format!(
            "[metrics]\naddress = \"{metrics}\"\n[log]\nlevel = \"error\"\n\
             [limits]\nsessions = 30000\nsessions_per_client = 30000\n"
        );
        let gateway = LocalGateway::start(front, &configuration(front, "", sink.address, "xclient", &more));
        (Self { gateway, metrics }, sink)
    }

    /// How long one scrape takes, from its connection to its last octet, and what it said.
    fn scrape(&self) -> (Duration, String) {
        let start = Instant::now();
        let mut stream = TcpStream::connect(self.metrics).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        (start.elapsed(), answer)
    }

    /// The times of mails that several clients send one after the other, sorted.
    fn mail(&self) -> Vec<Duration> {
        let mut times: Vec<Duration> = thread::scope(|scope| {
            let senders: Vec<_> = (0..SENDERS)
                .map(|_| {
                    scope.spawn(|| {
                        let from = address();
                        (0..MAILS / SENDERS).map(|_| self.mail_from(from)).collect::<Vec<_>>()
                    })
                })
                .collect();
            senders.into_iter().flat_map(|sender| sender.join().unwrap()).collect()
        });
        times.sort_unstable();
        times
    }

    fn mail_from(&self, from: Ipv4Addr) -> Duration {
        let start = Instant::now();
        let mut client = self.gateway.client(from);
        let reply = client.mail("sender@client.test", "user@example.com", b"Subject: seen\r\n\r\nyes\r\n");
        assert_eq!(reply.code, 250, "{reply:?}");
        client.quit();
        start.elapsed()
    }
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[sorted.len() * percent / 100]
}

fn report(what: &str, sorted: &[Duration]) {
    let (half, most) = (percentile(sorted, 50), percentile(sorted, 99));
    println!("{what}: p50 {half:.2?}, p99 {most:.2?}, longest {:.2?}", sorted[sorted.len() - 1]);
}

/// That mail beside others' curiosity took no longer than it may, and than it took without.
fn assert_unhindered(alone: &[Duration], beside: &[Duration]) {
    let (alone, beside) = (percentile(alone, 99), percentile(beside, 99));
    assert!(beside <= HINDERED_MAX * alone, "p99 is {beside:.2?}, and {alone:.2?} without");
}

/// A session whose client asks for what it may not, and goes.
fn offend(front: SocketAddr, from: Ipv4Addr) {
    let mut client = Client::over(connect(from, front).unwrap());
    client.expect(2);
    client.must("EHLO client.test");
    client.must("MAIL FROM:<sender@client.test>");
    assert_eq!(client.command("RCPT TO:<user@foreign.test>").code / 100, 5);
    client.quit();
}

#[test]
#[ignore = "takes a minute, and its times want a quiet machine"]
fn a_scrape_of_many_sessions_and_sources_is_quick() {
    let (stage, _sink) = Stage::set();
    let few: Vec<_> = (0..50).map(|_| stage.scrape().0).collect();
    let front = stage.gateway.address;
    thread::scope(|scope| {
        for sixteenth in 0..16 {
            scope.spawn(move || {
                for number in (sixteenth..SOURCES).step_by(16) {
                    offend(front, Ipv4Addr::from_bits(u32::from_be_bytes([127, 200, 0, 0]) + number));
                }
            });
        }
    });
    let from = address();
    let files = getrlimit(Resource::Nofile).current.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX);
    let count = SESSIONS_MAX.min(files - FILES_OF_ITS_OWN);
    let sessions: Vec<Client> = (0..count)
        .map(|_| {
            let mut client = Client::over(stage.gateway.connect_from(from));
            client.expect(2);
            client
        })
        .collect();
    let (_, said) = stage.scrape();
    let open = said.lines().find_map(|line| line.strip_prefix("smtp_gateway_sessions ")).unwrap();
    assert_eq!(open, format!("{count}.0"), "sessions that go on");
    let mut times: Vec<_> = (0..200).map(|_| stage.scrape().0).collect();
    times.sort_unstable();
    println!("{count} sessions, {} octets a scrape; of an idle gateway: {:.2?}", said.len(), few[few.len() / 2]);
    report("a scrape", &times);
    assert!(percentile(&times, 50) <= SCRAPE_MAX, "{times:?}");
    drop(sessions);
}

#[test]
#[ignore = "takes a minute, and its times want a quiet machine"]
fn scrapes_do_not_hold_mail_up() {
    let (stage, _sink) = Stage::set();
    stage.mail();
    let alone = stage.mail();
    let stop = AtomicBool::new(false);
    let (beside, scrapes) = thread::scope(|scope| {
        let scraper = scope.spawn(|| {
            let mut scrapes = Vec::with_capacity(SCRAPES);
            while scrapes.len() < SCRAPES || !stop.load(Ordering::Relaxed) {
                scrapes.push(stage.scrape().0);
                // Up to two hundred a second: so many monitoring systems would be an attack already.
                thread::sleep(Duration::from_millis(5));
            }
            scrapes
        });
        let beside = stage.mail();
        stop.store(true, Ordering::Relaxed);
        (beside, scraper.join().unwrap())
    });
    println!("{} scrapes beside {MAILS} mails", scrapes.len());
    report("mail without", &alone);
    report("mail beside", &beside);
    assert_unhindered(&alone, &beside);
}

#[test]
#[ignore = "opens ten thousand connections"]
fn ten_thousand_silent_connections_leave_mail_alone() {
    let (stage, _sink) = Stage::set();
    let alone = stage.mail();
    let from = address();
    // More than wait in the kernel's queue are not even connected, which is the bound.
    let silent: Vec<_> = (0..SILENT_CONNECTIONS).filter_map(|_| begin(from, stage.metrics)).collect();
    let beside = stage.mail();
    let open = std::fs::read_dir(format!("/proc/{}/fd", stage.gateway.pid())).unwrap().count();
    println!("{} silent connections, {open} files open", silent.len());
    report("mail without", &alone);
    report("mail beside", &beside);
    assert!(open < 300, "{open} files are open");
    assert_unhindered(&alone, &beside);
    drop(silent);
}

/// Begins a connection, and does not wait for it.
fn begin(from: Ipv4Addr, to: SocketAddr) -> Option<socket2::Socket> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).ok()?;
    socket.bind(&SocketAddr::from((from, 0)).into()).ok()?;
    socket.set_nonblocking(true).ok()?;
    // "In progress" is all that is wanted.
    let _ = socket.connect(&to.into());
    Some(socket)
}
