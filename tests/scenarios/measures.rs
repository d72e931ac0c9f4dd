//! How much a change is felt: what clients wait longer, and what memory is kept. Numbers mean something for a release build on a
//! machine that has nothing else to do, so all of this is left out of the ordinary run:
//! `cargo xtask test --release measures:: -- --ignored --nocapture --test-threads 1`

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use smtp_gateway::sink::{Options, SinkIdentity};
use tests::peers::local::{LocalGateway, LocalSink, address, configuration, connect, run};
use tests::peers::stage::said;
use tests::peers::threads::Thread;

const IDLE_SESSIONS: usize = 5000;
/// What a new connection may wait longer while a process takes over.
const WAIT_MAX: Duration = Duration::from_millis(50);
const DOMAINS: usize = 10_000;
const BANS: u32 = 1000;
const RELOADS: usize = 100;
/// How long a session may be held up by a reload.
const GAP_MAX: Duration = Duration::from_millis(5);
/// What may stay of a hundred reloads beyond what stays of the first, for an allocator's sake.
const KEPT_KIB_MAX: u64 = 4096;

/// From the attempt to connect until the greeting, again and again until `done`; the longest last.
fn greetings(to: SocketAddr, done: &AtomicBool) -> Vec<Duration> {
    let from = address();
    let mut waits = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let since = Instant::now();
        let stream = connect(from, to).unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        waits.push(since.elapsed());
        assert!(line.starts_with("220 "), "{line}");
        (&stream).write_all(b"QUIT\r\n").unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    waits.sort();
    waits
}

/// The waits while `during` runs.
fn waits_while(to: SocketAddr, during: impl FnOnce()) -> Vec<Duration> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| greetings(to, &done));
        during();
        done.store(true, Ordering::Relaxed);
        waits.join().unwrap()
    })
}

#[test]
#[ignore = "a measure: it wants a release build and a quiet machine"]
fn an_upgrade_with_many_idle_sessions_is_not_felt() {
    let sink = LocalSink::start(Options { identity: SinkIdentity::Xclient, ..Options::default() });
    let front: SocketAddr = (address(), 2525).into();
    let limits = "[limits]\nsessions = 8000\nsessions_per_client = 8000\n[timeouts]\ncommand = \"1h\"\n";
    let gateway = LocalGateway::start(front, &configuration(front, "", sink.address, "xclient", limits));
    let from = address();
    let idle: Vec<TcpStream> = (0..IDLE_SESSIONS)
        .map(|_| {
            let stream = connect(from, front).unwrap();
            let mut greeting = String::new();
            BufReader::new(&stream).read_line(&mut greeting).unwrap();
            stream
        })
        .collect();
    assert_eq!(gateway.status()["sessions"]["active"], IDLE_SESSIONS);
    let quiet = waits_while(front, || std::thread::sleep(Duration::from_secs(3)));
    let since = Instant::now();
    let upgraded = waits_while(front, || {
        let output = gateway.upgrade();
        assert!(output.status.success(), "{}", said(&output));
        std::thread::sleep(Duration::from_millis(500));
    });
    let took = since.elapsed();
    let shown = |waits: &[Duration]| {
        let last = waits.len() - 1;
        format!(
            "median {:?}, 99 % {:?}, longest {:?} of {}",
            waits[last / 2],
            waits[last * 99 / 100],
            waits[last],
            last + 1
        )
    };
    println!("greeting without: {}", shown(&quiet));
    println!("while a process takes over ({took:?}): {}", shown(&upgraded));
    // Whoever was there still is.
    for stream in idle.iter().step_by(500) {
        (&*stream).write_all(b"NOOP\r\n").unwrap();
        let mut reply = String::new();
        BufReader::new(stream).read_line(&mut reply).unwrap();
        assert!(reply.starts_with("250 "), "{reply}");
    }
    assert!(upgraded.last() <= quiet.last().map(|longest| *longest + WAIT_MAX).as_ref());
}

/// A batch of pipelined commands, from the first octet until the last reply.
struct Batch {
    since: Instant,
    took: Duration,
    /// Without what its client and the worker waited for a CPU that others had.
    of_the_gateway: Duration,
}

/// Batches in sessions that hardly ever pause.
fn batches(to: SocketAddr, worker: &Thread, done: &AtomicBool) -> Vec<Batch> {
    let (mut line, mut batches, own) = (String::new(), Vec::new(), Thread::own());
    let waited = || worker.scheduled().waited + own.scheduled().waited;
    while !done.load(Ordering::Relaxed) {
        let stream = connect(address(), to).unwrap();
        let mut heard = BufReader::new(stream.try_clone().unwrap());
        heard.read_line(&mut line).unwrap();
        // Before `limits.idle_commands` is reached.
        for _ in 0..20_000 {
            let (before, since) = (waited(), Instant::now());
            (&stream).write_all(&b"RSET\r\n".repeat(4)).unwrap();
            for _ in 0..4 {
                line.clear();
                heard.read_line(&mut line).unwrap();
                assert!(line.starts_with("250 "), "{line}");
            }
            let took = since.elapsed();
            batches.push(Batch { since, took, of_the_gateway: took.saturating_sub(waited() - before) });
            if done.load(Ordering::Relaxed) {
                break;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    batches
}

#[test]
#[ignore = "a measure: it wants a release build and a quiet machine"]
fn a_reload_of_much_holds_nobody_up_and_keeps_nothing() {
    let sink = LocalSink::start(Options { identity: SinkIdentity::Xclient, ..Options::default() });
    let front: SocketAddr = (address(), 2525).into();
    let limits = "[limits]\nidle_commands = 100000\n";
    let plain = configuration(front, "", sink.address, "xclient", limits).replace("workers = 2", "workers = 1");
    let with = |more: &str| {
        let mut domains = format!("[\"example.com\", \"{more}.test\"");
        (0..DOMAINS).for_each(|number| write!(domains, ", \"domain-{number}.example.net\"").unwrap());
        plain.replace("[\"example.com\"]", &format!("{domains}]"))
    };
    let texts = [with("one"), with("two")];
    let gateway = LocalGateway::start(front, &texts[0]);
    for number in 0..BANS {
        let source = Ipv4Addr::from_bits(Ipv4Addr::new(203, 0, 113, 0).to_bits() + number).to_string();
        let ban = ["ban", &source, "--for", "1h", "--reason", "x", "--socket", "control.sock"];
        assert!(run(gateway.folder(), &ban).status.success());
    }
    let resident = || {
        let status = fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap().to_owned();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let worker = Thread::of(gateway.pid(), "worker-0");
    let done = AtomicBool::new(false);
    let (mut spans, mut memory) = (Vec::new(), Vec::new());
    let batches: Vec<_> = std::thread::scope(|scope| {
        let sessions: Vec<_> = (0..2).map(|_| scope.spawn(|| batches(front, &worker, &done))).collect();
        for number in 0..RELOADS {
            // As long without as with.
            let since = Instant::now();
            fs::write(gateway.folder().join("gateway.toml"), &texts[(number + 1) % 2]).unwrap();
            let output = run(gateway.folder(), &["reload", "--socket", "control.sock"]);
            assert!(output.status.success(), "{}", said(&output));
            let reloaded = Instant::now();
            std::thread::sleep(reloaded - since);
            spans.push((since, reloaded, Instant::now()));
            memory.push(resident());
        }
        done.store(true, Ordering::Relaxed);
        sessions.into_iter().flat_map(|session| session.join().unwrap()).collect()
    });
    let longest = |from: Instant, to: Instant, of: fn(&Batch) -> Duration| {
        let within = batches.iter().filter(|batch| batch.since >= from && batch.since < to);
        within.map(of).max().unwrap_or_default()
    };
    println!("{} batches; the longest in each of {RELOADS} reloads, and in as long a time without", batches.len());
    let show = |what: &str, of: fn(&Batch) -> Duration| {
        let longest =
            |during: bool| {
                let each = spans.iter().map(|(since, reloaded, end)| {
                    if during { longest(*since, *reloaded, of) } else { longest(*reloaded, *end, of) }
                });
                let mut all: Vec<_> = each.collect();
                all.sort();
                all
            };
        let [with, without] = [true, false].map(longest);
        for (when, all) in [("with", &with), ("without", &without)] {
            let last = all.len() - 1;
            println!(
                "{what}, {when}: median {:?}, 90 % {:?}, longest {:?}",
                all[last / 2],
                all[last * 9 / 10],
                all[last]
            );
        }
        with[with.len() - 1]
    };
    show("as the client saw it", |batch| batch.took);
    let held_up = show("of the gateway", |batch| batch.of_the_gateway);
    println!("resident after 1, 2, 10, 50, 100 reloads, KiB: {:?}", [0, 1, 9, 49, 99].map(|index| memory[index]));
    assert!(held_up <= GAP_MAX, "{held_up:?}");
    assert!(memory[RELOADS - 1] <= memory[0] + KEPT_KIB_MAX, "{memory:?}");
}
