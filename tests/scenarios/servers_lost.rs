//! Three real Postfix behind one gateway: one after the other is killed, frozen, or made to answer 421, while mail comes in.
//! Nothing that was acknowledged is lost, nothing arrives twice, and no client waits for long.

use std::collections::{HashMap, HashSet};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tests::peers::gateway::Gateway;
use tests::peers::net::{FRONT, Family, Trio};
use tests::peers::postfix::{Postfix, Temper};
use tests::peers::{Backend as _, LOCAL_DOMAIN, available};

/// Clients at once. Each second one pipelines.
const CLIENTS: u64 = 12;
/// Messages in one session.
const MESSAGES: usize = 3;
const METRICS: &str = "127.0.0.1:9925";
const CONNECT: Duration = Duration::from_secs(1);

/// What came of one message.
#[derive(Debug)]
struct Attempt {
    subject: String,
    /// Whether its client had been told 354.
    begun: bool,
    /// The last reply; 0 if the connection was closed instead.
    code: u16,
    /// The longest wait for a reply.
    waited: Duration,
}

/// One client's connection.
struct Sender {
    stream: BufReader<TcpStream>,
    waited: Duration,
}

impl Sender {
    fn greeted(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        let mut sender = Self { stream: BufReader::new(stream), waited: Duration::ZERO };
        let greeted = sender.reply().and_then(|_| sender.say(&["EHLO client.test"], false));
        assert_eq!(greeted.unwrap_or(0), 250, "the gateway greets");
        sender
    }

    fn reply(&mut self) -> io::Result<u16> {
        let since = Instant::now();
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if line.as_bytes().get(3) != Some(&b'-') {
                self.waited = self.waited.max(since.elapsed());
                return line.get(..3).and_then(|code| code.parse().ok()).ok_or(io::ErrorKind::InvalidData.into());
            }
        }
    }

    /// Says lines, and reads the reply to each; the first that is not as it should be.
    fn say(&mut self, lines: &[&str], pipelined: bool) -> io::Result<u16> {
        let mut last = 0;
        if pipelined {
            self.stream.get_mut().write_all(lines.join("\r\n").as_bytes())?;
            self.stream.get_mut().write_all(b"\r\n")?;
        }
        for line in lines {
            if !pipelined {
                self.stream.get_mut().write_all(format!("{line}\r\n").as_bytes())?;
                // Servers are lost between any two commands.
                thread::sleep(Duration::from_millis(5));
            }
            last = self.reply()?;
            if last >= 400 {
                break;
            }
        }
        Ok(last)
    }

    fn send(&mut self, subject: &str, pipelined: bool) -> Attempt {
        self.waited = Duration::ZERO;
        let envelope = ["MAIL FROM:<a@client.test>", "RCPT TO:<one@local.test>", "RCPT TO:<two@local.test>", "DATA"];
        let code = self.say(&envelope, pipelined).unwrap_or(0);
        let begun = code == 354;
        let message = format!("Subject: {subject}\r\n\r\n{}.", "A line of the message.\r\n".repeat(40));
        let code = if begun { self.say(&[&message], false).unwrap_or(0) } else { code };
        Attempt { subject: subject.to_owned(), begun, code, waited: self.waited }
    }
}

fn session(stream: TcpStream, client: u64, next: &AtomicU64, attempts: &Mutex<Vec<Attempt>>) {
    let mut sender = Sender::greeted(stream);
    for _ in 0..MESSAGES {
        let subject = format!("message-{}", next.fetch_add(1, Ordering::Relaxed));
        let attempt = sender.send(&subject, client.is_multiple_of(2));
        let ends = attempt.code != 250;
        attempts.lock().expect("no panic").push(attempt);
        if ends {
            return;
        }
    }
    let _ = sender.say(&["QUIT"], false);
}

/// One client, which tries each message once more in another session if it was not taken. Those that were not taken then either.
fn insistent(client: u64, next: &AtomicU64, attempts: &Mutex<Vec<Attempt>>) -> usize {
    let connect = || Sender::greeted(TcpStream::connect(Family::V4.smtp(FRONT)).expect("the gateway accepts"));
    let mut sender = connect();
    let mut failed = 0;
    for _ in 0..MESSAGES {
        let subject = format!("message-{}", next.fetch_add(1, Ordering::Relaxed));
        let mut attempt = sender.send(&subject, client.is_multiple_of(2));
        if attempt.code != 250 {
            attempts.lock().expect("no panic").push(attempt);
            sender = connect();
            attempt = sender.send(&format!("{subject}-again"), client.is_multiple_of(2));
            failed += usize::from(attempt.code != 250);
        }
        attempts.lock().expect("no panic").push(attempt);
    }
    let _ = sender.say(&["QUIT"], false);
    failed
}

/// Sends while `disturb` goes on.
fn under_load(trio: &Trio, disturb: impl FnOnce()) -> Vec<Attempt> {
    let attempts = Mutex::new(Vec::new());
    let next = AtomicU64::new(0);
    let send = |client| {
        let stream = TcpStream::connect(Family::V4.smtp(FRONT));
        session(stream.expect("the gateway accepts"), client, &next, &attempts);
    };
    all_the_while(trio, send, disturb);
    attempts.into_inner().expect("no panic")
}

/// Has each client do this again and again while `disturb` goes on. That is this thread's: what it starts ends with the thread
/// that started it.
fn all_the_while(trio: &Trio, send: impl Fn(u64) + Sync, disturb: impl FnOnce()) {
    let is_over = AtomicBool::new(false);
    let (over, send) = (&is_over, &send);
    thread::scope(|scope| {
        scope.spawn(move || {
            trio.client.within(move || {
                thread::scope(|scope| {
                    for client in 0..CLIENTS {
                        scope.spawn(move || {
                            while !over.load(Ordering::Relaxed) {
                                send(client);
                            }
                        });
                    }
                });
            });
        });
        disturb();
        over.store(true, Ordering::Relaxed);
    });
}

fn three(trio: &Trio) -> [Postfix; 3] {
    [2501, 2502, 2503].map(|port| Postfix::start_on(&trio.backend, Temper::CatchAll, port))
}

fn gateway(trio: &Trio, servers: &[Postfix]) -> Gateway {
    let servers: Vec<_> = servers.iter().map(|server| format!("\"{}\"", server.address())).collect();
    Gateway::by(
        trio,
        &format!(
            "[server]\nhostname = \"gateway.test\"\nworkers = 2\n[[listener]]\naddress = \"{}\"\n\
             [[backend]]\nname = \"backend\"\nservers = [{}]\nidentity = \"xclient\"\n\
             [relay]\nlocal_domains = [\"{LOCAL_DOMAIN}\"]\n[proof]\nenabled = false\n\
             [metrics]\naddress = \"{METRICS}\"\n\
             [timeouts]\nconnect = \"1s\"\nhandshake = \"5s\"\nend_of_data = \"1500ms\"\nhealth_interval = \"5s\"\n",
            Family::V4.smtp(FRONT),
            servers.join(", "),
        ),
    )
}

/// How many transactions have gone on with another server.
fn failovers(trio: &Trio) -> u64 {
    let mut stream = trio.gateway.connect(METRICS.parse().expect("an address")).expect("the metrics listener");
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {METRICS}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let value = answer.lines().find_map(|line| line.strip_prefix("smtp_gateway_failovers_total "));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("{answer}"))
}

/// Waits until every message that was acknowledged is in a mailbox, and counts how often each is there.
fn delivered(servers: &[Postfix], attempts: &[Attempt]) -> HashMap<String, usize> {
    let acknowledged: Vec<_> = attempts.iter().filter(|attempt| attempt.code == 250).collect();
    let since = Instant::now();
    loop {
        let mut times: HashMap<String, usize> = HashMap::new();
        for message in servers.iter().flat_map(Postfix::mailbox) {
            let text = String::from_utf8_lossy(&message);
            let subject = text.lines().find_map(|line| line.strip_prefix("Subject: ")).unwrap_or_default();
            *times.entry(subject.to_owned()).or_default() += 1;
        }
        if acknowledged.iter().all(|attempt| times.get(&attempt.subject).is_some_and(|times| *times >= 2)) {
            return times;
        }
        let missing = acknowledged.iter().filter(|attempt| times.get(&attempt.subject).is_none_or(|times| *times < 2));
        let missing: Vec<_> = missing.map(|attempt| &attempt.subject).collect();
        assert!(since.elapsed() < Duration::from_secs(30), "acknowledged and not delivered: {missing:?}");
        thread::sleep(Duration::from_millis(200));
    }
}

fn check(trio: &Trio, rounds: usize, span: Duration) {
    let mut servers = three(trio);
    let _gateway = gateway(trio, &servers);
    let attempts = under_load(trio, || {
        for round in 0..rounds {
            let server = &mut servers[round % 3];
            match round % 3 {
                0 => {
                    server.kill();
                    thread::sleep(span);
                    server.revive(&trio.backend);
                }
                1 => {
                    server.freeze();
                    thread::sleep(span);
                    server.thaw();
                }
                _ => {
                    server.say_421(true);
                    thread::sleep(span);
                    server.say_421(false);
                }
            }
            thread::sleep(span / 2);
        }
    });
    let failovers = failovers(trio);
    let times = delivered(&servers, &attempts);
    let count = |fits: &dyn Fn(&Attempt) -> bool| attempts.iter().filter(|attempt| fits(attempt)).count();
    let longest = attempts.iter().map(|attempt| attempt.waited).max().unwrap_or_default();
    let summary = format!(
        "{} messages: {} acknowledged, {} told to come again behind 354, {} before it; longest wait {longest:?}; {failovers} failovers",
        attempts.len(),
        count(&|attempt| attempt.code == 250),
        count(&|attempt| attempt.begun && attempt.code != 250),
        count(&|attempt| !attempt.begun),
    );
    println!("{summary}");
    assert_ne!(failovers, 0, "sessions were there when servers went: {summary}");
    let odd: Vec<_> = attempts.iter().filter(|attempt| !attempt.begun).collect();
    assert!(odd.is_empty(), "{summary}\n{odd:?}");
    let odd: Vec<_> = attempts.iter().filter(|attempt| attempt.code != 250 && attempt.code / 100 != 4).collect();
    assert!(odd.is_empty(), "only 4xx behind 354: {summary}\n{odd:?}");
    // Two recipients, each with a mailbox file.
    let doubled: Vec<_> = times.iter().filter(|(_, times)| **times > 2).collect();
    assert!(doubled.is_empty(), "{summary}\n{doubled:?}");
    assert!(longest <= CONNECT + Duration::from_secs(1), "{summary}");
    assert!(count(&|attempt| attempt.code == 250) > 50, "{summary}");
}

#[test]
fn a_server_that_is_killed_frozen_or_busy_loses_and_doubles_no_message() {
    if available("Three Postfix, one of them killed, frozen or busy", &["postfix"]) {
        check(&Trio::new(), 3, Duration::from_secs(2));
    }
}

/// All servers are begun anew, one after the other, as an update does it; nobody takes them out before.
#[test]
fn who_tries_twice_does_not_notice_that_all_servers_are_begun_anew() {
    if !available("Three Postfix that are begun anew one after the other", &["postfix"]) {
        return;
    }
    let trio = Trio::new();
    let mut servers = three(&trio);
    let _gateway = gateway(&trio, &servers);
    let (attempts, next, failed) = (Mutex::new(Vec::new()), AtomicU64::new(0), AtomicU64::new(0));
    let send = |client| {
        let lost = insistent(client, &next, &attempts);
        failed.fetch_add(u64::try_from(lost).expect("a few"), Ordering::Relaxed);
    };
    all_the_while(&trio, send, || {
        for server in &mut servers {
            server.stop();
            server.revive(&trio.backend);
            // It has mail again before the next one goes.
            server.log().wait_for(&["postfix/smtpd[", ": client="]);
        }
    });
    let attempts = attempts.into_inner().expect("no panic");
    let messages = next.into_inner();
    let again = attempts.iter().filter(|attempt| attempt.subject.ends_with("-again")).count();
    let summary = format!("{messages} messages, {again} of them tried twice, {} failovers", failovers(&trio));
    println!("{summary}");
    assert_eq!(failed.into_inner(), 0, "{summary}");
    delivered(&servers, &attempts);
    let mut names: HashMap<String, HashSet<String>> = HashMap::new();
    for (subject, name) in servers.iter().flat_map(Postfix::queued) {
        names.entry(subject).or_default().insert(name);
    }
    let doubled: Vec<_> = names.iter().filter(|(_, names)| names.len() > 1).collect();
    assert!(doubled.is_empty(), "{summary}\n{doubled:?}");
    assert!(messages > 50 && u64::try_from(names.len()).expect("a few") >= messages, "{summary}");
}

/// A gateway before this one alone, which has two seconds to be connected to, and is rarely asked how it is.
fn gateway_of_one(trio: &Trio, server: &Postfix, identity: &str) -> Gateway {
    Gateway::by(
        trio,
        &format!(
            "[server]\nhostname = \"gateway.test\"\n[[listener]]\naddress = \"{}\"\n\
             [[backend]]\naddress = \"{}\"\nidentity = \"{identity}\"\n\
             [relay]\nlocal_domains = [\"{LOCAL_DOMAIN}\"]\n[proof]\nenabled = false\n\
             [timeouts]\nconnect = \"2s\"\nhealth_interval = \"1h\"\n",
            Family::V4.smtp(FRONT),
            server.address(),
        ),
    )
}

#[test]
fn who_is_frozen_and_alone_holds_no_client() {
    if !available("A Postfix alone, frozen", &["postfix"]) {
        return;
    }
    let trio = Trio::new();
    let server = Postfix::start(&trio.backend, Temper::CatchAll);
    let _gateway = gateway_of_one(&trio, &server, "xclient");
    let send = |subject: &str| {
        let stream = trio.client.connect(Family::V4.smtp(FRONT)).expect("the gateway accepts");
        Sender::greeted(stream).send(subject, false)
    };
    assert_eq!(send("before").code, 250);
    server.freeze();
    for _ in 0..2 {
        let attempt = send("frozen");
        assert!(attempt.code == 451 && attempt.waited < Duration::from_secs(3), "{attempt:?}");
    }
    server.thaw();
    assert_eq!(send("behind").code, 250);
}

#[test]
fn who_holds_his_greeting_back_for_six_seconds_is_waited_for() {
    if !available("Postfix postscreen that takes its time", &["postfix"]) {
        return;
    }
    let trio = Trio::new();
    let server = Postfix::start(&trio.backend, Temper::PostscreenSlow);
    let _gateway = gateway_of_one(&trio, &server, "proxy-v2");
    for _ in 0..2 {
        let stream = trio.client.connect(Family::V4.smtp(FRONT)).expect("the gateway accepts");
        let mut sender = Sender::greeted(stream);
        sender.waited = Duration::ZERO;
        let code = sender.say(&["MAIL FROM:<a@client.test>"], false).expect("an answer");
        assert!(code == 250 && sender.waited >= Duration::from_secs(5), "{code} after {:?}", sender.waited);
    }
}

#[test]
#[ignore = "takes two minutes; the same as the one before, for longer"]
fn servers_come_and_go_for_a_while() {
    if available("Three Postfix that come and go", &["postfix"]) {
        check(&Trio::new(), 12, Duration::from_secs(7));
    }
}
