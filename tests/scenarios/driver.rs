//! The driver on loopback: peers that are slow, silent, verbose or gone. Nobody waits who has something to do, nothing
//! grows without bound, and everything that was taken is given back.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use smtp_gateway::sink::{Options, SinkIdentity};
use socket2::{Domain, SockRef, Socket, Type};
use tests::peers::client::{Client, Reply};
use tests::peers::local::{LocalGateway, LocalSink, address, configuration, connect};
use tests::peers::queues::{until_arrived, until_full};
use tests::peers::scripted::{self, Answer};

/// What takes longer was not driven by an event but by a timer.
const SOON: Duration = Duration::from_secs(8);

fn before(backend: SocketAddr, identity: &str, more: &str) -> LocalGateway {
    let front = (address(), 2525).into();
    LocalGateway::start(front, &configuration(front, "", backend, identity, more))
}

fn before_sink(more: &str) -> (LocalGateway, LocalSink) {
    let sink = LocalSink::start(Options { identity: SinkIdentity::Xclient, ..Options::default() });
    (before(sink.address, "xclient", more), sink)
}

/// A connection that holds few bytes which its client has not read.
fn narrow(gateway: &LocalGateway) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    // What a sender holds for a peer grows with the segments it may send.
    socket.set_tcp_mss(536).unwrap();
    socket.bind(&SocketAddr::from((address(), 0)).into()).unwrap();
    socket.connect(&gateway.address.into()).unwrap();
    socket.into()
}

fn greeted(stream: TcpStream) -> Client {
    let mut client = Client::over(stream);
    client.expect(2);
    client
}

/// Sends from a thread of its own, for the gateway may have to be read from before it has taken everything.
fn send_aside(stream: &TcpStream, bytes: Vec<u8>) {
    let mut stream = stream.try_clone().unwrap();
    // A gateway that takes no more shows itself in what it answers.
    thread::spawn(move || drop(stream.write_all(&bytes)));
}

fn expect_soon(client: &mut Client, count: usize, what: &str) -> Reply {
    let since = Instant::now();
    let mut last = Reply { code: 0, lines: Vec::new() };
    for number in 0..count {
        last = client.expect(2);
        assert!(since.elapsed() < SOON, "{what}: only {number} of {count} replies in time");
    }
    last
}

/// Waits until nobody is in and no descriptor is held that was not held before.
fn all_is_given_back(gateway: &LocalGateway, descriptors: usize) {
    let since = Instant::now();
    loop {
        let active = gateway.status()["sessions"]["active"].as_u64().unwrap();
        let open = open_files(gateway);
        if active == 0 && open <= descriptors {
            return;
        }
        assert!(since.elapsed() < SOON, "{active} sessions are active, {open} files open, {descriptors} before");
        thread::sleep(Duration::from_millis(50));
    }
}

fn signal(gateway: &LocalGateway, signal: &str) {
    let status = Command::new("kill").args([signal, &gateway.pid().to_string()]).status().unwrap();
    assert!(status.success());
}

/// A thread that was about to read still may when the signal has been sent.
fn until_stopped(gateway: &LocalGateway) {
    let since = Instant::now();
    let is_stopped = |task: fs::DirEntry| {
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
    };
    while !fs::read_dir(format!("/proc/{}/task", gateway.pid())).unwrap().flatten().all(is_stopped) {
        assert!(since.elapsed() < SOON, "the gateway does not stop");
        thread::sleep(Duration::from_millis(5));
    }
}

fn open_files(gateway: &LocalGateway) -> usize {
    fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap().count()
}

fn memory_kib(gateway: &LocalGateway) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Replies of the backend that a client is slow to read all arrive, and the session goes on.
#[test]
fn a_slow_reader_gets_every_reply_of_a_verbose_backend() {
    // No more than may be owed at once: nothing but replies is left to wake the session.
    const RECIPIENTS: usize = 120;
    let line = format!("250-{}\r\n", "x".repeat(1990));
    let verbose = format!("{}250 Ok\r\n", line.repeat(6));
    let backend = scripted::start(move |talk, command| {
        if !command.starts_with("RCPT") {
            return Answer::Usual;
        }
        talk.say(&verbose);
        Answer::Given
    });
    let gateway = before(backend, "none", "");
    let stream = narrow(&gateway);
    let mut client = greeted(stream.try_clone().unwrap());
    client.must("EHLO client.test");
    client.must("MAIL FROM:<a@client.test>");
    send_aside(&stream, b"RCPT TO:<b@example.com>\r\n".repeat(RECIPIENTS));
    until_full(gateway.address, stream.local_addr().unwrap());
    let last = expect_soon(&mut client, RECIPIENTS, "RCPT");
    assert_eq!(last.lines.len(), 7);
    client.must("RSET");
    client.quit();
}

/// The same for replies of the gateway's own.
#[test]
fn a_slow_reader_gets_every_reply_of_the_gateway() {
    const COMMANDS: usize = 20_000;
    let (gateway, _sink) = before_sink("[limits]\nidle_commands = 100000\n");
    let stream = narrow(&gateway);
    let mut client = greeted(stream.try_clone().unwrap());
    send_aside(&stream, b"HELP\r\n".repeat(COMMANDS));
    until_full(gateway.address, stream.local_addr().unwrap());
    expect_soon(&mut client, COMMANDS, "HELP");
    client.quit();
}

#[test]
fn ten_thousand_commands_in_one_write_are_answered_in_order() {
    const COMMANDS: usize = 10_000;
    let gateway =
        before(scripted::start(|_, _| Answer::Usual), "none", "[limits]\nrecipients = 20000\nerrors = 10000\n");
    let stream = gateway.connect_from(address());
    let mut client = greeted(stream.try_clone().unwrap());
    client.must("EHLO client.test");
    client.must("MAIL FROM:<a@client.test>");
    let pair = b"RCPT TO:<b@example.com>\r\nRCPT TO:<b@elsewhere.example>\r\n";
    send_aside(&stream, pair.repeat(COMMANDS / 2));
    let since = Instant::now();
    for _ in 0..COMMANDS / 2 {
        assert_eq!(client.reply().code, 250);
        assert_eq!(client.reply().code, 550);
    }
    assert!(since.elapsed() < SOON);
    client.quit();
}

/// Bytes behind a command that must wait are not read on and on while it waits.
#[test]
fn what_comes_behind_a_command_that_waits_waits_too() {
    let (gateway, sink) = before_sink("");
    let from = address();
    let stream = gateway.connect_from(from);
    let mut client = greeted(stream.try_clone().unwrap());
    client.must("EHLO client.test");
    let body = [b"Subject: x\r\n\r\n".as_slice(), &b"0123456789abcde\n".repeat(40_000)].concat();
    // BDAT waits until the backend's session is open, which takes it several replies.
    let envelope = format!("MAIL FROM:<a@client.test>\r\nRCPT TO:<b@example.com>\r\nBDAT {} LAST\r\n", body.len());
    send_aside(&stream, [envelope.as_bytes(), &body].concat());
    expect_soon(&mut client, 3, "MAIL, RCPT, BDAT");
    assert_eq!(sink.message_from(), Some(from.into()));
    client.quit();
}

/// A client that sends a whole message and then no more has sent a whole message.
#[test]
fn a_half_close_behind_a_whole_message_loses_nothing() {
    let (gateway, sink) = before_sink("");
    let from = address();
    let stream = gateway.connect_from(from);
    let mut client = greeted(stream.try_clone().unwrap());
    client.must("EHLO client.test");
    client.send(b"MAIL FROM:<a@client.test>\r\nRCPT TO:<b@example.com>\r\nBDAT 14 LAST\r\nSubject: x\r\n\r\nNOOP\r\n");
    stream.shutdown(Shutdown::Write).unwrap();
    expect_soon(&mut client, 4, "MAIL, RCPT, BDAT, NOOP");
    assert_eq!(sink.message_from(), Some(from.into()));
    assert_eq!(client.reply().code, 0, "then the gateway closes too");
}

/// A backend that refuses a message while it comes, and hangs up with bytes unread: its words reach the client.
#[test]
fn a_refusal_in_the_body_arrives_in_the_backends_own_words() {
    let backend = scripted::start(|talk, command| {
        if command != "DATA" {
            return Answer::Usual;
        }
        talk.say("354 go on\r\n");
        talk.read(&mut [0; 100]);
        talk.say("552 5.3.4 that is too much\r\n");
        Answer::Close
    });
    let gateway = before(backend, "none", "");
    for _ in 0..20 {
        let mut client = gateway.client(address());
        client.envelope("a@client.test", "b@example.com", "");
        for _ in 0..200 {
            client.send(&b"x".repeat(998).iter().chain(b"\r\n").copied().collect::<Vec<_>>().repeat(16));
        }
        client.send(b".\r\n");
        assert_eq!(client.reply().lines, ["552 5.3.4 that is too much"]);
        client.quit();
    }
}

/// A backend that reads slowly holds the client back, and gets everything.
#[test]
fn a_slow_backend_gets_the_whole_body() {
    const LINES: usize = 20_000;
    let (counted, count) = mpsc::channel();
    let backend = scripted::start(move |talk, command| {
        if command != "DATA" {
            return Answer::Usual;
        }
        talk.say("354 go on\r\n");
        let (mut total, mut buffer, mut tail) = (0, vec![0; 256 * 1024], Vec::new());
        while !tail.ends_with(b"\r\n.\r\n") {
            let read = talk.read(&mut buffer);
            total += read;
            tail.extend_from_slice(&buffer[read.saturating_sub(5)..read]);
            tail.drain(..tail.len().saturating_sub(5));
            thread::sleep(Duration::from_millis(5));
            if read == 0 {
                break;
            }
        }
        counted.send(total).unwrap();
        talk.say("250 Ok\r\n");
        Answer::Given
    });
    let gateway = before(backend, "none", "");
    let mut client = gateway.client(address());
    client.envelope("a@client.test", "b@example.com", "");
    let idle = memory_kib(&gateway);
    for _ in 0..LINES {
        client.send(&[b"x".repeat(1022).as_slice(), b"\r\n"].concat());
    }
    let grown = memory_kib(&gateway).saturating_sub(idle);
    assert!(grown < 2048, "{grown} KiB more");
    client.send(b".\r\n");
    client.expect(2);
    assert_eq!(count.recv().unwrap(), LINES * 1024 + 3);
    client.quit();
}

/// A backend that reads nothing stops the client, and the gateway keeps no more than a read's worth. When the backend
/// goes, the client is told.
#[test]
fn a_backend_that_never_reads_costs_no_memory() {
    let (gone, goes) = mpsc::channel::<()>();
    let goes = std::sync::Mutex::new(goes);
    let backend = scripted::start(move |talk, command| {
        if command != "DATA" {
            return Answer::Usual;
        }
        talk.say("354 go on\r\n");
        // An error is the sender's loss, which means the same.
        let _ = goes.lock().unwrap().recv();
        Answer::Close
    });
    let gateway = before(backend, "none", "");
    let stream = gateway.connect_from(address());
    let mut client = greeted(stream.try_clone().unwrap());
    client.envelope("a@client.test", "b@example.com", "");
    let idle = memory_kib(&gateway);
    send_aside(
        &stream,
        [b"x".repeat(998).as_slice(), b"\r\n"].concat().repeat(60_000).into_iter().chain(*b".\r\n").collect(),
    );
    until_full(stream.local_addr().unwrap(), gateway.address);
    let grown = memory_kib(&gateway).saturating_sub(idle);
    assert!(grown < 2048, "{grown} KiB more");
    drop(gone);
    assert_eq!(client.reply().code, 451);
    client.quit();
}

/// A client that says QUIT and reads nothing is not waited for as long as one that may still say something.
#[test]
fn a_client_that_does_not_read_its_farewell_is_let_go() {
    let (gateway, _sink) = before_sink("[limits]\nidle_commands = 100000\n");
    let descriptors = open_files(&gateway);
    let stream = narrow(&gateway);
    let mut client = greeted(stream.try_clone().unwrap());
    // All of it is read at once; what is said to it does not fit between the two.
    signal(&gateway, "-STOP");
    until_stopped(&gateway);
    client.send(&[b"HELP\r\n".repeat(10_000).as_slice(), b"QUIT\r\n"].concat());
    until_arrived(stream.local_addr().unwrap(), gateway.address);
    signal(&gateway, "-CONT");
    gateway.log().wait_for(&["end=\"quit\""]);
    all_is_given_back(&gateway, descriptors);
}

/// What a client says up to any point, and the reply it waits for there, if any.
const STEPS: [(&[u8], u16); 8] = [
    (b"EHLO client.test\r\n", 250),
    (b"MAIL FROM:<a@client.test>\r\n", 250),
    (b"RCPT TO:<b@example.com>\r\nRCPT TO:<c@elsewhere.example>\r\nNO", 0),
    (b"OP\r\nRSET\r\nMAIL FROM:<a@client.test>\r\nRCPT TO:<b@example.com>\r\nBDAT 30000\r\n", 0),
    (&[b'x'; 20_000], 0),
    (&[b'x'; 10_000], 0),
    (b"RSET\r\nMAIL FROM:<a@client.test>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n", 354),
    (b"Subject: x\r\n\r\nhalf a lin", 0),
];

/// How a client goes.
#[derive(Debug, Clone, Copy)]
enum Going {
    Quit,
    Close,
    Reset,
    HalfClose,
}

fn answered(client: &mut Client) -> Reply {
    let reply = client.reply();
    assert_ne!(reply.code, 0, "the gateway closed");
    reply
}

/// Says the first steps, and goes.
fn come_and_go(gateway: SocketAddr, from: Ipv4Addr, steps: usize, going: Going) {
    let stream = connect(from, gateway).unwrap();
    let mut client = Client::over(stream.try_clone().unwrap());
    client.expect(2);
    for (said, awaited) in &STEPS[..steps] {
        client.send(said);
        while *awaited != 0 && answered(&mut client).code != *awaited {}
    }
    match going {
        Going::Quit => drop(client.command("\r\n.\r\nQUIT")),
        Going::Close => {}
        Going::Reset => SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap(),
        Going::HalfClose => {
            stream.shutdown(Shutdown::Write).unwrap();
            while client.reply().code != 0 {}
        }
    }
}

#[test]
fn whoever_goes_at_whatever_point_leaves_nothing_behind() {
    let (gateway, _sink) = before_sink("");
    let descriptors = open_files(&gateway);
    for steps in 0..=STEPS.len() {
        for going in [Going::Close, Going::Reset, Going::HalfClose] {
            come_and_go(gateway.address, address(), steps, going);
        }
    }
    all_is_given_back(&gateway, descriptors);
    let status = gateway.status();
    assert_eq!(status["sessions"]["accepted_total"], 3 * (STEPS.len() + 1));
    assert_eq!(status["messages"]["accepted_total"], 0);
}

#[test]
fn a_crowd_that_comes_and_goes_leaves_nothing_behind() {
    const CROWD: usize = 48;
    let (gateway, _sink) = before_sink("[limits]\nsessions_per_client = 1000\nerrors = 1000\n");
    let descriptors = open_files(&gateway);
    let (front, until) = (gateway.address, Instant::now() + Duration::from_secs(5));
    let from = address();
    let visit = move |mut number: usize| {
        let mut visits = 0;
        while Instant::now() < until {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let going = [Going::Quit, Going::Close, Going::Reset, Going::HalfClose][(number >> 33) % 4];
            come_and_go(front, from, (number >> 40) % (STEPS.len() + 1), going);
            visits += 1;
        }
        visits
    };
    let crowd: Vec<_> = (0..CROWD).map(|number| thread::spawn(move || visit(number))).collect();
    let visits: usize = crowd.into_iter().map(|visitor| visitor.join().unwrap()).sum();
    all_is_given_back(&gateway, descriptors);
    assert_eq!(gateway.status()["sessions"]["accepted_total"], visits);
    assert!(!gateway.log().text().contains("panicked"));
}
