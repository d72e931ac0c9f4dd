//! A change of the configuration while the gateway runs: all of it or nothing, and no client notices.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use smtp_gateway::sink::{Options, SinkIdentity};
use tests::peers::local::{LocalGateway, LocalSink, address, configuration, connect, run};
use tests::peers::net::FRONT;
use tests::peers::setting::Setting;
use tests::peers::stage::{Stage, said};
use tests::peers::threads::Thread;

const MESSAGE: &[u8] = b"Subject: x\r\n\r\none\r\n";

fn xclient_sink() -> LocalSink {
    LocalSink::start(Options { identity: SinkIdentity::Xclient, ..Options::default() })
}

fn write(gateway: &LocalGateway, config: &str) {
    fs::write(gateway.folder().join("gateway.toml"), config).unwrap();
}

/// `--socket`, for a file that is faulty is not read for its socket either.
fn reload(gateway: &LocalGateway) -> Output {
    run(gateway.folder(), &["reload", "--socket", "control.sock"])
}

fn reloaded(gateway: &LocalGateway) -> String {
    let output = reload(gateway);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    said(&output)
}

#[test]
fn sessions_end_by_the_configuration_they_began_with() {
    let (old, new) = (xclient_sink(), xclient_sink());
    let front: SocketAddr = (address(), 2525).into();
    let second: SocketAddr = (address(), 2525).into();
    let config = configuration(front, "", old.address, "xclient", "");
    let gateway = LocalGateway::start(front, &config);
    let before = gateway.status();
    let mut begun = gateway.client(address());
    begun.must("EHLO client.test");

    let other = configuration(front, "", new.address, "xclient", "");
    let other = other.replace("[[backend]]", &format!("[[listener]]\naddress = \"{second}\"\n[[backend]]"));
    write(
        &gateway,
        &other.replace("local_domains = [\"example.com\"]", "local_domains = [\"example.com\", \"new.test\"]"),
    );
    reloaded(&gateway);

    // The old session: the old backend, the old domains.
    begun.must("MAIL FROM:<a@client.test>");
    assert_eq!(begun.command("RCPT TO:<b@new.test>").code, 550);
    begun.must("RSET");
    begun.envelope("a@client.test", "b@example.com", "");
    begun.send(b"Subject: old\r\n\r\none\r\n.\r\n");
    assert_eq!(begun.reply().code, 250);
    old.message_from();
    begun.quit();
    // New ones: the new backend, by either listener.
    for listener in [front, second] {
        let mut client = tests::peers::client::Client::over(connect(address(), listener).unwrap());
        client.expect(2);
        assert_eq!(client.mail("a@client.test", "b@example.com", MESSAGE).code, 250);
        new.message_from();
    }
    let after = gateway.status();
    assert_ne!(before["config"]["digest"], after["config"]["digest"]);
    assert!(after["config"]["file"].as_str().unwrap().ends_with("gateway.toml"), "{after}");
    assert_eq!(after["listeners"].as_array().unwrap().len(), 2);
    assert_eq!(after["messages"]["accepted_total"], 3, "counters go on");

    // A listener that is no longer named is gone; who is in through it stays.
    let mut inside = tests::peers::client::Client::over(connect(address(), second).unwrap());
    inside.expect(2);
    write(&gateway, &configuration(front, "", new.address, "xclient", ""));
    reloaded(&gateway);
    while connect(address(), second).is_ok() {}
    assert_eq!(inside.mail("a@client.test", "b@example.com", MESSAGE).code, 250);
    assert_eq!(gateway.client(address()).mail("a@client.test", "b@example.com", MESSAGE).code, 250);
    let events = said(&run(gateway.folder(), &["events", "--socket", "control.sock"]));
    assert_eq!(events.lines().filter(|line| line.contains("in force, digest")).count(), 2, "{events}");
}

#[test]
fn what_is_faulty_or_cannot_be_had_changes_nothing() {
    let sink = xclient_sink();
    let front: SocketAddr = (address(), 2525).into();
    let config = configuration(front, "", sink.address, "xclient", "");
    let gateway = LocalGateway::start(front, &config);
    let before = gateway.status()["config"].clone();
    let taken = std::net::TcpListener::bind((address(), 0)).unwrap();
    let taken = taken.local_addr().unwrap();
    for (faulty, code, words) in [
        (config.replace("hostname", "hostnam"), 78, "did you mean `hostname`?"),
        (config.replace(&front.to_string(), "192.0.2.77:25"), 78, "this host has no such address"),
        (
            config.replace("[[backend]]", &format!("[[listener]]\naddress = \"{taken}\"\n[[backend]]")),
            1,
            "the port is in use",
        ),
        (String::new(), 78, "there is no `[server]`"),
    ] {
        // What else has changed must not be half in force.
        write(&gateway, &faulty.replace("example.com", "other.test"));
        let output = reload(&gateway);
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        assert!(said(&output).contains(words) && said(&output).contains("nothing was changed"), "{}", said(&output));
        assert_eq!(gateway.status()["config"], before);
        assert_eq!(gateway.client(address()).mail("a@client.test", "b@example.com", MESSAGE).code, 250);
    }
    fs::remove_file(gateway.folder().join("gateway.toml")).unwrap();
    assert_eq!(reload(&gateway).status.code(), Some(78));
    assert_eq!(gateway.status()["config"], before);
    let events = said(&run(gateway.folder(), &["events", "--socket", "control.sock"]));
    assert_eq!(events.lines().filter(|line| line.contains("not reloaded")).count(), 5, "{events}");
}

#[test]
fn what_a_reload_cannot_change_is_said_and_stays() {
    let sink = xclient_sink();
    let front: SocketAddr = (address(), 2525).into();
    let config = configuration(front, "", sink.address, "xclient", "");
    let gateway = LocalGateway::start(front, &config);
    write(
        &gateway,
        &config.replace("workers = 2", "workers = 3").replace("[control]", "[limits]\nsessions = 77\n[control]"),
    );
    let told = reloaded(&gateway);
    assert!(
        told.contains("`server.workers` is still as it was") && told.contains("run `smtp-gateway upgrade`"),
        "{told}"
    );
    let status = gateway.status();
    assert_eq!(status["sessions"]["limit"], 77);
    assert!(status["warnings"].to_string().contains("`server.workers`"), "{status}");
    write(&gateway, &config);
    reloaded(&gateway);
    assert_eq!(gateway.status()["warnings"], serde_json::json!([]));
}

/// Numbers come to another place, and go from the one before; names by which they may be asked change in place.
#[test]
fn numbers_move_to_another_address() {
    let sink = xclient_sink();
    let front: SocketAddr = (address(), 2525).into();
    let config = configuration(front, "", sink.address, "xclient", "");
    let [first, second]: [SocketAddr; 2] = [(address(), 9525).into(), (address(), 9525).into()];
    let metrics = |address: SocketAddr, more: &str| format!("{config}[metrics]\naddress = \"{address}\"\n{more}");
    let gateway = LocalGateway::start(front, &config);
    let asked = |at: SocketAddr, host: &str| -> std::io::Result<String> {
        let mut stream = connect(address(), at)?;
        write!(stream, "GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.lines().next().unwrap_or_default().to_owned())
    };
    let change = |config: &str| {
        write(&gateway, config);
        let told = reloaded(&gateway);
        assert!(!told.contains('!'), "{told}");
    };
    change(&metrics(first, ""));
    assert!(asked(first, "localhost").unwrap().contains(" 200 "));
    assert!(asked(first, "watch.test").unwrap().contains(" 421 "));
    change(&metrics(first, "hosts = [\"watch.test\"]\n"));
    assert!(asked(first, "watch.test").unwrap().contains(" 200 "));
    change(&metrics(second, ""));
    assert!(asked(second, "localhost").unwrap().contains(" 200 "));
    while connect(address(), first).is_ok() {}
    // What cannot be had changes nothing.
    let taken = std::net::TcpListener::bind((address(), 0)).unwrap();
    write(&gateway, &metrics(taken.local_addr().unwrap(), ""));
    let output = reload(&gateway);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("cannot listen for metrics"), "{}", said(&output));
    assert!(asked(second, "localhost").unwrap().contains(" 200 "));
    change(&config);
    while connect(address(), second).is_ok() {}
}

#[test]
fn sighup_reloads() {
    let sink = xclient_sink();
    let front: SocketAddr = (address(), 2525).into();
    let config = configuration(front, "", sink.address, "xclient", "");
    let gateway = LocalGateway::start(front, &config);
    let hangup = || {
        let status = Command::new("kill").args(["-HUP", &gateway.pid().to_string()]).status().unwrap();
        assert!(status.success());
    };
    write(&gateway, "nonsense");
    hangup();
    gateway.log().wait_for(&["not reloaded: the old configuration is in force"]);
    write(&gateway, &config.replace("example.com", "other.test"));
    hangup();
    gateway.log().wait_for(&[" reloaded digest="]);
    let mut client = gateway.client(address());
    client.must("EHLO client.test");
    client.must("MAIL FROM:<a@client.test>");
    assert_eq!(client.command("RCPT TO:<b@example.com>").code, 550);
}

/// Sessions hold what they began with. The last of an old configuration's does not free it: a list of many domains would keep
/// its worker from serving others meanwhile.
#[test]
fn who_leaves_last_frees_nothing() {
    const DOMAINS: u32 = 100_000;
    let sink = xclient_sink();
    let front: SocketAddr = (address(), 2525).into();
    let config = configuration(front, "", sink.address, "xclient", "").replace("workers = 2", "workers = 1");
    let gateway = LocalGateway::start(front, &config);
    let domains: String = (0..DOMAINS).map(|number| format!("domain-{number}.example.net\n")).collect();
    fs::write(gateway.folder().join("domains.txt"), domains + "example.com\n").unwrap();
    let many = config.replace("[\"example.com\"]", "\"domains.txt\"");
    let worker = Thread::of(gateway.pid(), "worker-0");
    let leaving = |text: &str| {
        write(&gateway, text);
        reloaded(&gateway);
        let mut begun = gateway.client(address());
        begun.must("EHLO client.test");
        write(&gateway, &config);
        reloaded(&gateway);
        let before = worker.scheduled().ran;
        begun.quit();
        // Whoever comes next is served behind what the worker does with that.
        gateway.client(address()).must("EHLO client.test");
        worker.scheduled().ran - before
    };
    let few = (0..3).map(|_| leaving(&config)).max().unwrap_or_default();
    let many = (0..3).map(|_| leaving(&many)).min().unwrap_or_default();
    println!("a session of few domains that ends takes {few:?} at most, one of {DOMAINS} {many:?} at least");
    assert!(many < few * 3 + Duration::from_millis(2), "{many:?}, and {few:?} for few domains");
}

/// A hundred reloads while clients send: no connection is reset or refused, and each message arrives once. What the gateway
/// holds does not grow.
#[test]
fn a_hundred_reloads_under_load_lose_nothing() {
    let sink = xclient_sink();
    let front: SocketAddr = (address(), 2525).into();
    let second: SocketAddr = (address(), 2525).into();
    let plain = configuration(front, "", sink.address, "xclient", "");
    let other = plain
        .replace("[[backend]]", &format!("[[listener]]\naddress = \"{second}\"\n[[backend]]"))
        .replace("[\"example.com\"]", "[\"example.com\", \"other.test\"]");
    let gateway = LocalGateway::start(front, &plain);
    let resident = || {
        let status = fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let done = AtomicBool::new(false);
    let sent: usize = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let (from, mut sent) = (address(), 0);
                    while !done.load(Ordering::Relaxed) {
                        // A session each for some, several messages a session for others.
                        let mut client = gateway.client(from);
                        for _ in 0..=sent % 3 {
                            assert_eq!(client.mail("a@client.test", "b@example.com", MESSAGE).code, 250);
                            sent += 1;
                        }
                        client.quit();
                    }
                    sent
                })
            })
            .collect();
        let mut after_ten = 0;
        for number in 0..100 {
            write(&gateway, if number % 2 == 0 { &other } else { &plain });
            reloaded(&gateway);
            if number == 10 {
                after_ten = resident();
            }
        }
        let after_all = resident();
        assert!(after_all < after_ten + 4096, "from {after_ten} KiB to {after_all} KiB");
        done.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    for _ in 0..sent {
        sink.message();
    }
    let status = gateway.status();
    assert_eq!(status["messages"]["accepted_total"], sent);
    assert_eq!(status["sessions"]["refused_total"], 0);
    assert!(sent > 100, "{sent} messages in a hundred reloads");
}

/// The same with a real mail server, and a real program that sends.
#[test]
fn reloads_before_a_postfix_lose_nothing() {
    let Some(setting) = Setting::new("reload before Postfix", &[]) else { return };
    let server = format!("inet:{}:25", FRONT[0]);
    let options = ["-m", "300", "-s", "5", "-M", "client.test", "-f", "a@client.test", "-t", "box@local.test"];
    let program = [&["smtp-source"], &options[..], &[&server]].concat();
    std::thread::scope(|scope| {
        let source = scope.spawn(|| Stage::new("postfix").run(&setting.trio.client, &program));
        let mut reloads = 0;
        while !source.is_finished() || reloads < 5 {
            setting.gateway.rewrite(|config| {
                let (from, to) = if reloads % 2 == 0 { ("60s", "61s") } else { ("61s", "60s") };
                let config = config.replace(&format!("reply = \"{from}\""), &format!("reply = \"{to}\""));
                if config.contains("reply = ") { config } else { config + "[timeouts]\nreply = \"61s\"\n" }
            });
            let output = setting.gateway.run(&["reload"]);
            assert_eq!(output.status.code(), Some(0), "{}", said(&output));
            reloads += 1;
        }
        let output = source.join().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    });
    setting.backend.wait_for_deliveries(300);
    assert_eq!(setting.backend.mailbox().len(), 300, "none lost, none twice");
}
