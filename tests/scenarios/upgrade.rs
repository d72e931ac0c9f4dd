//! Another process takes the running one's place, and no client notices; where it cannot, the one that runs goes on.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use smtp_gateway::sink::{Options, SinkIdentity};
use tests::peers::client::Client;
use tests::peers::gateway::program;
use tests::peers::local::{LocalGateway, LocalSink, address, configuration, connect, run};
use tests::peers::log::{PATIENCE, wait_for_end_of};
use tests::peers::stage::{said, temporary_folder};

const MESSAGE: &[u8] = b"Subject: x\r\n\r\none\r\n";
/// Of the words by which one process hands over to another.
const VERSION: u32 = 2;

fn setting(more: &str) -> (LocalSink, LocalGateway, String) {
    let sink = LocalSink::start(Options { identity: SinkIdentity::Xclient, ..Options::default() });
    let front: SocketAddr = (address(), 2525).into();
    let config = configuration(front, "", sink.address, "xclient", more);
    let gateway = LocalGateway::start(front, &config);
    (sink, gateway, config)
}

fn upgraded(gateway: &LocalGateway) -> u32 {
    let before = gateway.serving();
    let output = gateway.upgrade();
    assert!(output.status.success() && said(&output).contains("upgraded"), "{}", said(&output));
    let after = gateway.serving();
    assert_ne!(before, after);
    after
}

fn write(gateway: &LocalGateway, config: &str) {
    fs::write(gateway.folder().join("gateway.toml"), config).unwrap();
}

fn send_one(gateway: &LocalGateway) {
    assert_eq!(gateway.client(address()).mail("a@client.test", "b@example.com", MESSAGE).code, 250);
}

/// What was going on is finished by the process before, what is known is known by the one after.
#[test]
fn sessions_go_on_and_what_is_known_goes_over() {
    let balanced: SocketAddr = (address(), 2525).into();
    let listener =
        format!("[[listener]]\naddress = \"{balanced}\"\nproxy_protocol_from = [\"127.0.0.0/8\"]\n[[backend]]");
    let metrics = format!("[metrics]\naddress = \"{}:9525\"\n", address());
    let sink = LocalSink::start(Options { identity: SinkIdentity::Xclient, ..Options::default() });
    let front: SocketAddr = (address(), 2525).into();
    let config = configuration(front, "", sink.address, "xclient", &metrics).replace("[[backend]]", &listener);
    let gateway = LocalGateway::start(front, &config);
    let offend = || {
        let mut stream = connect(address(), balanced).unwrap();
        stream.write_all(b"PROXY TCP4 203.0.113.77 192.0.2.1 4711 25\r\n").unwrap();
        let mut client = Client::over(stream);
        client.expect(2);
        client.attempt_relay(4);
    };
    (0..3).for_each(|_| offend());
    let banned = run(
        gateway.folder(),
        &["ban", "203.0.113.9", "--for", "1h", "--reason", "ticket 4711", "--socket", "control.sock"],
    );
    assert!(banned.status.success(), "{}", said(&banned));
    send_one(&gateway);
    sink.message();
    let mut begun = gateway.client(address());
    begun.must("EHLO client.test");
    begun.envelope("a@client.test", "b@example.com", "");
    begun.send(b"Subject: old\r\n\r\n");
    let verb = |arguments: &[&str]| said(&run(gateway.folder(), &[arguments, &["--socket", "control.sock"]].concat()));
    assert!(verb(&["log", "debug", "--for", "30m"]).contains("debug"));
    let before = gateway.status();

    upgraded(&gateway);
    let after = gateway.status();
    let events = verb(&["events"]);
    for text in ["started, version", "the level is debug", "hands over to another process"] {
        assert!(events.contains(text), "what happened before is remembered: {events}");
    }
    assert!(events.find("hands over").unwrap() < events.rfind("started, version").unwrap(), "in order: {events}");
    // As does the log's level, for as long as it was asked for.
    let mut banned = connect(address(), balanced).unwrap();
    banned.write_all(b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 25\r\n").unwrap();
    gateway.log().wait_for(&["DEBUG", "connection refused"]);
    for pointer in ["/sessions/accepted_total", "/messages/accepted_total", "/sessions/active", "/refusals_total"] {
        assert_eq!(before.pointer(pointer), after.pointer(pointer), "{pointer}");
    }
    let bans = |gateway: &LocalGateway| said(&run(gateway.folder(), &["bans", "--socket", "control.sock"]));
    assert!(bans(&gateway).contains("203.0.113.9") && bans(&gateway).contains("ticket 4711"), "{}", bans(&gateway));

    // The message ends where it began, and is counted.
    begun.send(b"one\r\n.\r\n");
    assert_eq!(begun.reply().code, 250);
    assert_eq!(sink.message().size, 21, "whole");
    begun.quit();
    gateway.log().wait_for(&["stopped; another process serves"]);
    gateway.log().wait_for(&["the process before has ended"]);
    let status = gateway.status();
    assert_eq!(status["messages"]["accepted_total"], 2);
    assert_eq!(status["sessions"]["active"], 0);

    // What was on the offender counts with what it does now.
    send_one(&gateway);
    (0..2).for_each(|_| offend());
    gateway.log().wait_for(&["banned", "203.0.113.77", "relay attempt"]);
    assert!(bans(&gateway).contains("203.0.113.77"), "{}", bans(&gateway));
}

/// A service manager hears which process is the main one, and that it is well: the successor's own watchdog waits first, and
/// several upgrades one after the other would add that up.
#[test]
fn the_service_manager_hears_of_the_successor() {
    let sink = LocalSink::start(Options { identity: SinkIdentity::Xclient, ..Options::default() });
    let front: SocketAddr = (address(), 2525).into();
    let folder = temporary_folder();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    let environment = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "3600000000")];
    let config = configuration(front, "", sink.address, "xclient", "");
    let gateway = LocalGateway::start_with(front, &config, &environment);
    let hear = || {
        let mut datagram = [0; 256];
        let length = manager.recv(&mut datagram).unwrap();
        String::from_utf8_lossy(&datagram[..length]).into_owned()
    };
    assert_eq!(hear(), "READY=1");
    for _ in 0..2 {
        let process = upgraded(&gateway);
        assert_eq!(hear(), format!("MAINPID={process}\nWATCHDOG=1"));
    }
}

/// As many queues as there were are served, by fewer workers or by more.
#[test]
fn the_number_of_workers_changes() {
    let (sink, gateway, config) = setting("");
    for workers in [5, 1, 3, 2] {
        write(&gateway, &config.replace("workers = 2", &format!("workers = {workers}")));
        upgraded(&gateway);
        for _ in 0..20 {
            send_one(&gateway);
            sink.message();
        }
    }
    assert_eq!(gateway.status()["messages"]["accepted_total"], 80);
}

/// Whatever fails, clients end.
struct Ends<'d>(&'d AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Clients that come again and again, each in its own way, while one process after the other takes over, each of which reloads
/// a few times; workers become more and fewer, and a listener comes and goes.
fn under_load(upgrades: usize, reloads_each: usize) {
    let (sink, gateway, config) = setting("");
    let second: SocketAddr = (address(), 2525).into();
    let second = format!("[[listener]]\naddress = \"{second}\"\n[[backend]]");
    let (done, mut before) = (AtomicBool::new(false), Vec::new());
    let (sent, slowest) = std::thread::scope(|scope| {
        let ends = Ends(&done);
        let clients: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let (from, mut sent, mut slowest) = (address(), 0, Duration::ZERO);
                    while !done.load(Ordering::Relaxed) {
                        let since = Instant::now();
                        let mut client = gateway.client(from);
                        slowest = slowest.max(since.elapsed());
                        for _ in 0..=sent % 3 {
                            assert_eq!(client.mail("a@client.test", "b@example.com", MESSAGE).code, 250);
                            sent += 1;
                        }
                        client.quit();
                    }
                    (sent, slowest)
                })
            })
            .collect();
        let mut accepted = 0;
        for number in 0..upgrades {
            before.push(gateway.serving());
            let workers = 1 + number % 4;
            write(&gateway, &config.replace("workers = 2", &format!("workers = {workers}")));
            upgraded(&gateway);
            for reload in 0..reloads_each {
                let config = config.replace("workers = 2", &format!("workers = {workers}"));
                write(&gateway, &if reload % 2 == 0 { config.replace("[[backend]]", &second) } else { config });
                let output = run(gateway.folder(), &["reload", "--socket", "control.sock"]);
                assert!(output.status.success(), "{}", said(&output));
            }
            let now = gateway.status()["messages"]["accepted_total"].as_u64().unwrap();
            assert!(now >= accepted, "from {accepted} to {now}");
            accepted = now;
        }
        drop(ends);
        let clients = clients.into_iter().map(|client| client.join().unwrap());
        clients.fold((0, Duration::ZERO), |(sum, slowest), (sent, own)| (sum + sent, slowest.max(own)))
    });
    println!("{upgrades} upgrades, {} reloads, {sent} messages, slowest greeting {slowest:?}", upgrades * reloads_each);
    for _ in 0..sent {
        sink.message();
    }
    before.into_iter().map(u64::from).for_each(wait_for_end_of);
    let since = Instant::now();
    let status = loop {
        // What the last to go said last is heard a moment later.
        let status = gateway.status();
        if status["messages"]["accepted_total"] == sent || since.elapsed() > PATIENCE {
            break status;
        }
    };
    assert_eq!(status["messages"]["accepted_total"], sent, "none lost, none twice");
    assert_eq!((&status["sessions"]["refused_total"], &status["sessions"]["active"]), (&json!(0), &json!(0)));
}

#[test]
fn upgrades_under_load_lose_nothing() {
    under_load(4, 1);
}

#[test]
#[ignore = "takes a while; the same as the one before, for longer"]
fn twenty_upgrades_and_a_hundred_reloads_under_load_lose_nothing() {
    under_load(20, 5);
}

/// A process that takes over, by hand.
struct Successor {
    stream: UnixStream,
    heard: BufReader<UnixStream>,
}

impl Successor {
    fn ask(gateway: &LocalGateway, version: u32) -> (Self, Value) {
        let stream = UnixStream::connect(gateway.control_socket()).unwrap();
        let mut successor = Self { heard: BufReader::new(stream.try_clone().unwrap()), stream };
        successor.say(&json!({ "verb": "take-over", "version": version }));
        let answer = successor.hear();
        (successor, answer)
    }

    fn say(&mut self, word: &Value) {
        writeln!(self.stream, "{word}").unwrap();
    }

    /// Dots stand for descriptors, which are closed if nobody takes them.
    fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.heard.read_line(&mut line).unwrap();
        serde_json::from_str(line.trim_start_matches('.')).unwrap()
    }
}

#[test]
fn a_successor_that_dies_at_any_step_leaves_all_as_it_was() {
    let (sink, gateway, _) = setting("");
    let process = gateway.serving();
    let bans = gateway.folder().join("state/bans.json");
    for steps in 0..4 {
        let (mut successor, offer) = Successor::ask(&gateway, VERSION);
        assert_eq!(offer["listeners"].as_array().unwrap().len(), 1, "{offer}");
        if steps >= 1 {
            successor.say(&json!({ "word": "ready" }));
        }
        if steps >= 2 {
            assert!(successor.hear()["bans"].is_array());
            successor.say(&json!({ "word": "taken" }));
        }
        if steps >= 3 {
            assert_eq!(successor.hear(), json!({ "word": "go" }));
        }
        drop(successor);
        gateway.log().wait_for_count(&["nobody took over; this process goes on"], steps + 1);
        assert_eq!(gateway.serving(), process);
        send_one(&gateway);
        sink.message();
        // It writes its journal again.
        let network = format!("203.0.113.{steps}");
        let ban = ["ban", &network, "--for", "1h", "--reason", "x", "--socket", "control.sock"];
        assert!(run(gateway.folder(), &ban).status.success());
        while !fs::read_to_string(&bans).is_ok_and(|text| text.contains(&network)) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    // A word out of turn is no step.
    let (mut successor, _) = Successor::ask(&gateway, VERSION);
    successor.say(&json!({ "word": "go" }));
    gateway.log().wait_for(&["nobody took over", "out of turn"]);
    upgraded(&gateway);
    send_one(&gateway);
}

/// One that hangs is given up, and then another may come.
#[test]
#[ignore = "waits for a minute"]
fn a_successor_that_is_not_ready_in_time_is_given_up() {
    let (sink, gateway, _) = setting("");
    let process = gateway.serving();
    let since = Instant::now();
    let (mut successor, _) = Successor::ask(&gateway, VERSION);
    // Until its end of the connection closes.
    successor.heard.read_line(&mut String::new()).unwrap();
    assert!(since.elapsed() >= Duration::from_secs(55), "{:?}", since.elapsed());
    gateway.log().wait_for(&["nobody took over; this process goes on"]);
    assert_eq!(gateway.serving(), process);
    send_one(&gateway);
    sink.message();
    upgraded(&gateway);
}

#[test]
fn two_at_once_another_version_and_what_is_faulty_change_nothing() {
    let (sink, gateway, config) = setting("");
    let process = gateway.serving();
    let (first, _) = Successor::ask(&gateway, VERSION);
    let second = gateway.upgrade();
    assert_eq!(second.status.code(), Some(1), "{}", said(&second));
    assert!(said(&second).contains("another upgrade is under way"), "{}", said(&second));
    drop(first);
    gateway.log().wait_for(&["nobody took over"]);
    let (_, answer) = Successor::ask(&gateway, 999);
    assert!(answer["refused"].as_str().unwrap().contains("takes a restart"), "{answer}");

    let taken = std::net::TcpListener::bind((address(), 0)).unwrap();
    let taken = format!("[[listener]]\naddress = \"{}\"\n[[backend]]", taken.local_addr().unwrap());
    for (faulty, code, words) in [
        (config.replace("hostname", "hostnam"), 78, "did you mean `hostname`?"),
        (config.replace("[[backend]]", &taken), 1, "the port is in use"),
        (config.replace("workers = 2", "user = \"nobody-there\"\nworkers = 2"), 78, "there is no such user"),
    ] {
        if code == 78 && words.contains("user") && !rustix::process::geteuid().is_root() {
            continue;
        }
        write(&gateway, &faulty);
        let output = gateway.upgrade();
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        assert!(said(&output).contains(words), "{}", said(&output));
        assert_eq!(gateway.serving(), process);
        send_one(&gateway);
        sink.message();
    }
    // Nor does a gateway of another version take this one over.
    let other = gateway.folder().join("other.sock");
    let listener = UnixListener::bind(&other).unwrap();
    let offering = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        BufReader::new(&stream).read_line(&mut String::new()).unwrap();
        let offer = json!({ "version": 999, "control": "/x", "metrics": null, "listeners": [], "tickets": null, "kernel": false });
        writeln!(stream, "{offer}").unwrap();
    });
    write(&gateway, &config);
    let output = run(gateway.folder(), &["run", "-c", "gateway.toml", "--take-over", "other.sock"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("version 999") && said(&output).contains("takes a restart"), "{}", said(&output));
    offering.join().unwrap();
}

#[test]
fn strangers_neither_take_over_nor_listen_beside() {
    let (_sink, gateway, config) = setting("");
    upgraded(&gateway);
    write(&gateway, &config.replace("control.sock", "second.sock"));
    let output = run(gateway.folder(), &["run", "-c", "gateway.toml"]);
    assert!(said(&output).contains("the port is in use"), "{}", said(&output));
    if !rustix::process::geteuid().is_root() {
        println!("left out: only root can be somebody else");
        return;
    }
    write(&gateway, &config.replace("control.sock\"\n", "control.sock\"\nallowed_uids = [64999]\n"));
    let process = upgraded(&gateway);
    let ask = |verb: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "64999", "--regid", "64999", "--clear-groups"]).arg(program());
        command.args([verb, "--socket"]).arg(gateway.control_socket()).output().unwrap()
    };
    assert!(ask("status").status.success(), "he may ask");
    let output = ask("upgrade");
    assert!(said(&output).contains("may not upgrade the gateway"), "{}", said(&output));
    assert_eq!(gateway.serving(), process);
}

/// `reload --or-upgrade`, as the unit has it: the same program reads its configuration, another one takes over.
#[test]
fn a_reload_is_an_upgrade_where_another_program_is_installed() {
    let (_sink, gateway, _) = setting("");
    let process = gateway.serving();
    let arguments = ["reload", "--or-upgrade", "-c", "gateway.toml"];
    let output = run(gateway.folder(), &arguments);
    assert!(said(&output).contains("reloaded"), "{}", said(&output));
    assert_eq!(gateway.serving(), process);
    let installed = gateway.folder().join("smtp-gateway");
    // By another process: while this one has it open for writing, a child of another test's could hold it busy.
    assert!(Command::new("cp").arg(program()).arg(&installed).status().unwrap().success());
    let output = Command::new(&installed).args(arguments).current_dir(gateway.folder()).output().unwrap();
    assert!(said(&output).contains("upgraded"), "{}", said(&output));
    assert_ne!(gateway.serving(), process);
    let serving = fs::read_link(format!("/proc/{}/exe", gateway.serving()));
    // Whose user gave its privileges up may not be looked at by others than root.
    assert!(serving.is_err() || serving.unwrap().ends_with(installed.file_name().unwrap()));
    let mut client = Client::over(connect(address(), gateway.address).unwrap());
    client.expect(2);
}
