//! An upgrade of a gateway with its kernel side at work: bans hold at the card throughout, and one process writes.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use smtp_gateway::sink::{self, Options, SinkIdentity};
use tests::kernel::pins::Pins;
use tests::peers::client::Client;
use tests::peers::delay::Delay;
use tests::peers::gateway::Gateway;
use tests::peers::log::{PATIENCE, wait_for_end_of};
use tests::peers::net::{BACKEND, CLIENT, FRONT, Family, Trio};
use tests::peers::postfix::{Postfix, Temper};
use tests::peers::stage::{Stage, said};
use tests::peers::{Backend as _, LOCAL_DOMAIN, available};

const MESSAGE: &[u8] = b"Subject: x\r\n\r\nbody\r\n";

#[test]
fn bans_at_the_card_hold_over_upgrades() {
    if !available("upgrade with the kernel side", &[]) {
        return;
    }
    let (trio, pins) = (Trio::new(), Pins::new());
    let options = Options {
        listen: Family::V4.smtp(BACKEND),
        identity: SinkIdentity::ProxyV2,
        local_domains: vec![LOCAL_DOMAIN.to_owned()],
        quiet: true,
        ..Options::default()
    };
    let sink = trio.backend.within(|| sink::start(options)).unwrap();
    let more = format!("[xdp]\ninterfaces = [\"client\"]\nmode = \"native\"\npins = \"{}\"\n", pins.folder().display());
    let gateway = Gateway::start_with(&trio, sink.address(), "proxy-v2", &more);
    let verb = |arguments: &[&str]| {
        let output = gateway.run(arguments);
        assert!(output.status.success(), "{}", said(&output));
    };
    let reaches = |patience| {
        trio.client
            .within(|| TcpStream::connect_timeout(&Family::V4.smtp(FRONT), Duration::from_millis(patience)))
            .is_ok()
    };
    let soon = |expected: bool| {
        let since = Instant::now();
        while reaches(300) != expected {
            assert!(since.elapsed() < Duration::from_secs(10), "reached: {}", !expected);
        }
    };
    let packets = || gateway.json(&["status"])["xdp"]["packets_total"].as_u64().unwrap();
    let mail = || {
        let mut client = Client::to_gateway(&trio.client, Family::V6);
        assert_eq!(client.mail("a@client.test", &format!("b@{LOCAL_DOMAIN}"), MESSAGE).code, 250);
    };
    verb(&["ban", CLIENT[0], "--for", "1h", "--reason", "ticket 4711"]);
    soon(false);
    let mut seen = packets();
    for round in 0..3 {
        let before = gateway.json(&["status"]);
        let output = gateway.upgrade(&trio);
        assert!(output.status.success(), "{}", said(&output));
        let after = gateway.json(&["status"]);
        assert_ne!(before["process"], after["process"]);
        assert_eq!(after["xdp"]["mode"], "native", "{after}");
        assert_eq!(after["xdp"]["problem"], json!(null));
        assert!(!reaches(300), "the ban holds at the card");
        mail();
        let now = packets();
        assert!(now > seen, "from {seen} to {now}");
        seen = now;
        let bans = gateway.json(&["bans"]);
        assert_eq!(bans["bans"][0]["reason"], "ticket 4711", "{bans}");
        // The one that serves writes.
        verb(&["unban", CLIENT[0]]);
        soon(true);
        verb(&["ban", CLIENT[0], "--for", "1h", "--reason", "ticket 4711"]);
        soon(false);
        assert_eq!(after["xdp"]["failed_writes_total"], 0, "round {round}");
    }
    // A successor that dies when it could have written: the maps are this one's again.
    let process = gateway.json(&["status"])["process"].clone();
    let mut stream = UnixStream::connect(gateway.control_socket()).unwrap();
    let mut heard = BufReader::new(stream.try_clone().unwrap());
    let mut hear = || heard.read_line(&mut String::new()).unwrap();
    writeln!(stream, "{}", json!({ "verb": "take-over", "version": 2 })).unwrap();
    hear();
    writeln!(stream, "{}", json!({ "word": "ready" })).unwrap();
    hear();
    drop((heard, stream));
    gateway.log().wait_for(&["nobody took over"]);
    let status = gateway.json(&["status"]);
    assert_eq!((&status["process"], &status["xdp"]["mode"]), (&process, &json!("native")));
    assert!(!reaches(300), "the ban holds at the card");
    verb(&["unban", CLIENT[0]]);
    soon(true);
    mail();
}

/// What a change must not do to anybody, far away: reset, refuse, lose or double; nor may a ban or a count get lost.
fn on_a_long_way(scenario: &str, upgrades: usize, reloads_each: usize) {
    const WAY: Duration = Duration::from_millis(15);
    if !available(scenario, &["postfix"]) {
        return;
    }
    let (trio, pins) = (Trio::new(), Pins::new());
    let backend = Postfix::start(&trio.backend, Temper::Xclient);
    let more = format!(
        "[limits]\nsessions = 1000\n[xdp]\ninterfaces = [\"client\"]\nmode = \"native\"\npins = \"{}\"\n",
        pins.folder().display()
    );
    let gateway = Gateway::start_with(&trio, backend.address(), "xclient", &more);
    let near = SocketAddr::from(([127, 0, 0, 1], 2525));
    let way = Delay::start(&trio.client, near, Family::V4.smtp(FRONT), WAY);
    let output = gateway.run(&["ban", CLIENT[1], "--for", "1h", "--reason", "ticket 4711"]);
    assert!(output.status.success(), "{}", said(&output));
    let kept_out = || {
        let try_it = || TcpStream::connect_timeout(&Family::V6.smtp(FRONT), Duration::from_millis(200));
        trio.client.within(try_it).is_err()
    };
    let since = Instant::now();
    while !kept_out() {
        assert!(since.elapsed() < Duration::from_secs(10), "the ban is in force");
    }
    // The gateway itself refuses who comes before the ban is at the card.
    let refused_before = gateway.json(&["status"])["sessions"]["refused_total"].clone();
    let (over, mut before) = (AtomicBool::new(false), Vec::new());
    let (sent, held) = std::thread::scope(|scope| {
        let ends = Ends(&over);
        let source = scope.spawn(|| {
            const EACH: usize = 40;
            let (count, server) = (EACH.to_string(), format!("inet:{near}"));
            let recipient = format!("box@{LOCAL_DOMAIN}");
            let options =
                ["-m", &count, "-s", "4", "-M", "client.test", "-f", "a@client.test", "-t", &recipient, &server];
            let (stage, mut sent) = (Stage::new("postfix"), 0);
            while !over.load(Ordering::Relaxed) {
                let output = stage.run(&trio.client, &[&["smtp-source"], &options[..]].concat());
                assert!(output.status.success(), "{}", said(&output));
                sent += EACH;
            }
            sent
        });
        // Sessions that are longer than a generation: begun under one, ended under another.
        let holder = scope.spawn(|| {
            let mut held = 0;
            while !over.load(Ordering::Relaxed) {
                let mut client = Client::connect(&trio.client, near);
                client.envelope("a@client.test", &format!("box@{LOCAL_DOMAIN}"), "");
                client.send(b"Subject: long\r\n\r\n");
                for _ in 0..20 {
                    client.send(b"a line\r\n");
                    std::thread::sleep(Duration::from_millis(100));
                }
                client.send(b".\r\n");
                assert_eq!(client.reply().code, 250);
                client.quit();
                held += 1;
            }
            held
        });
        let mut seen = [0; 3];
        let mut look = || {
            let status = gateway.json(&["status"]);
            let counts = ["/messages/accepted_total", "/sessions/accepted_total", "/xdp/packets_total"];
            let now = counts.map(|pointer| status.pointer(pointer).and_then(serde_json::Value::as_u64).unwrap());
            assert!(now.iter().zip(&seen).all(|(now, seen)| now >= seen), "from {seen:?} to {now:?}");
            seen = now;
            assert_eq!((&status["xdp"]["mode"], &status["xdp"]["problem"]), (&json!("native"), &json!(null)));
            assert_eq!(gateway.json(&["bans"])["bans"][0]["reason"], "ticket 4711");
            assert!(kept_out(), "the ban holds at the card");
        };
        let further = format!("[[listener]]\naddress = \"{}:2526\"\n[[backend]]", FRONT[0]);
        for number in 0..upgrades {
            before.push(gateway.json(&["status"])["process"].as_u64().unwrap());
            let workers = format!("workers = {}", 1 + number % 4);
            let workers_before = format!("workers = {}", if number == 0 { 1 } else { 1 + (number - 1) % 4 });
            gateway.rewrite(|config| config.replace(&workers_before, &workers));
            let output = gateway.upgrade(&trio);
            assert!(output.status.success(), "{}", said(&output));
            look();
            for reload in 0..reloads_each {
                gateway.rewrite(|config| match reload % 2 {
                    0 => config.replace("[[backend]]", &further),
                    _ => config.replace(&further, "[[backend]]"),
                });
                let output = gateway.run(&["reload"]);
                assert!(output.status.success(), "{}", said(&output));
                look();
            }
            gateway.rewrite(|config| config.replace(&further, "[[backend]]"));
        }
        drop(ends);
        (source.join().unwrap(), holder.join().unwrap())
    });
    let broken = way.broken();
    let [refused, reset] = [&broken.refused, &broken.reset].map(|count| count.load(Ordering::Relaxed));
    println!(
        "{upgrades} upgrades, {} reloads, {WAY:?} each way: {sent} messages and {held} long ones, {refused} refused, {reset} reset",
        upgrades * reloads_each
    );
    assert_eq!((refused, reset), (0, 0));
    backend.wait_for_deliveries(sent + held);
    assert_eq!(backend.mailbox().len(), sent + held, "none lost, none twice");
    before.into_iter().for_each(wait_for_end_of);
    let since = Instant::now();
    let status = loop {
        // What the last to go said last is heard a moment later.
        let status = gateway.json(&["status"]);
        if status["messages"]["accepted_total"] == sent + held || since.elapsed() > PATIENCE {
            break status;
        }
    };
    assert_eq!(status["messages"]["accepted_total"], sent + held);
    let sessions = &status["sessions"];
    assert_eq!((&sessions["refused_total"], &sessions["active"]), (&refused_before, &json!(0)));
}

#[test]
fn changes_with_the_kernel_side_lose_nothing_on_a_long_way() {
    on_a_long_way("changes on a long way", 3, 2);
}

#[test]
#[ignore = "takes a while; the same as the one before, for longer"]
fn twenty_upgrades_and_a_hundred_reloads_with_the_kernel_side_lose_nothing_on_a_long_way() {
    on_a_long_way("many changes on a long way", 20, 5);
}

/// Whatever fails, clients end.
struct Ends<'d>(&'d AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
