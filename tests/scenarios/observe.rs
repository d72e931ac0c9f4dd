//! What the gateway says of itself, and that saying it never stops mail.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use smtp_gateway::sink::{Options, SinkIdentity};
use tests::peers::client::Client;
use tests::peers::gateway::program;
use tests::peers::local::{LocalGateway, LocalSink, address, configuration, connect, run};
use tests::peers::{available, folder};

/// A program that is killed when the test is over.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // If it cannot be killed it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_log_that_nobody_reads_stops_neither_mail_nor_signals() {
    let sink = LocalSink::start(Options { identity: SinkIdentity::Xclient, ..Options::default() });
    let front = (address(), 2525).into();
    let folder = tempfile::tempdir().unwrap();
    let log = "[log]\nlevel = \"trace\"\n";
    std::fs::write(folder.path().join("gateway.toml"), configuration(front, "", sink.address, "xclient", log)).unwrap();
    let mut command = Command::new(program());
    command.args(["run", "-c", "gateway.toml"]).current_dir(folder.path()).stdin(Stdio::null());
    // Both ends are held open, and nothing is ever read.
    let mut gateway = Killed(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let deadline = Instant::now() + Duration::from_secs(30);
    let from = address();
    while connect(from, front).is_err() {
        assert!(Instant::now() < deadline, "the gateway does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    // A pipe takes 64 KiB, and a session's lines are some hundred bytes.
    for _ in 0..1000 {
        let mut client = Client::over(connect(from, front).unwrap());
        client.expect(2);
        client.must("EHLO client.test");
        assert_eq!(client.command("XCLIENT ADDR=192.0.2.1").code / 100, 5);
        client.quit();
    }
    let mut client = Client::over(connect(from, front).unwrap());
    client.expect(2);
    let reply = client.mail("sender@client.test", "user@example.com", b"Subject: heard\r\n\r\nyes\r\n");
    assert_eq!(reply.code, 250, "{reply:?}");
    sink.message();
    let pid = gateway.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    while gateway.0.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "the gateway is deaf to SIGTERM");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn started(more: &str) -> (LocalGateway, LocalSink) {
    let sink = LocalSink::start(Options { identity: SinkIdentity::Xclient, ..Options::default() });
    let front = (address(), 2525).into();
    (LocalGateway::start(front, &configuration(front, "", sink.address, "xclient", more)), sink)
}

fn ask(gateway: &LocalGateway, arguments: &[&str]) -> std::process::Output {
    run(gateway.folder(), &[arguments, &["--socket", "control.sock"]].concat())
}

fn said(gateway: &LocalGateway, arguments: &[&str]) -> String {
    let output = ask(gateway, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_session_is_listed_followed_and_ended() {
    let (gateway, _sink) = started("");
    let from = address();
    let mut client = gateway.client(from);
    client.must("EHLO client.test");
    let list: serde_json::Value = serde_json::from_str(&said(&gateway, &["sessions", "--json"])).unwrap();
    let session = &list["sessions"][0];
    assert_eq!(session["client"], from.to_string(), "{list}");
    assert_eq!((&session["helo"], &session["state"]), (&"client.test".into(), &"idle".into()));
    assert_eq!((&session["last_reply"], &list["more"]), (&250.into(), &0.into()));

    let mut command = Command::new(program());
    command.args(["trace", &from.to_string(), "--socket", "control.sock"]).current_dir(gateway.folder());
    let mut trace = Killed(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap());
    let (sender, lines) = std::sync::mpsc::channel();
    let stdout = BufReader::new(trace.0.stdout.take().unwrap());
    std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    // It is followed from when the first line shows.
    let deadline = Instant::now() + Duration::from_secs(30);
    while lines.try_recv().is_err() {
        assert!(Instant::now() < deadline, "nothing is traced");
        client.must("NOOP");
        std::thread::sleep(Duration::from_millis(50));
    }
    client.command("AUTH PLAIN c2VjcmV0");
    let reply = client.mail("sender@client.test", "user@example.com", b"Subject: secret words\r\n\r\nsecret\r\n");
    assert_eq!(reply.code, 250, "{reply:?}");
    let id = session["id"].to_string();
    assert_eq!(said(&gateway, &["sessions", "kill", &id]), format!("session {id} of {from} is ended\n"));
    assert_eq!(client.reply().code, 421);
    let mut dialog = Vec::new();
    while !dialog.iter().any(|line: &String| line.contains("-- ended by an administrator")) {
        dialog.push(lines.recv_timeout(Duration::from_secs(30)).expect("the end of the dialog"));
    }
    for part in ["C: AUTH PLAIN (not shown)", "C: MAIL FROM:<sender@client.test>", "S: 354", "C: DATA", "S: 421"] {
        assert!(dialog.iter().any(|line| line.contains(part)), "{part} is not in {dialog:?}");
    }
    assert!(!dialog.iter().any(|line| line.contains("secret") || line.contains("c2VjcmV0")), "{dialog:?}");
    assert_eq!(ask(&gateway, &["sessions", "kill", &id]).status.code(), Some(2), "it is gone");
}

#[test]
fn every_session_of_every_worker_is_listed() {
    let (gateway, _sink) = started("[limits]\nsessions_per_client = 1000\n");
    let from = address();
    let clients: Vec<_> = (0..300).map(|_| gateway.client(from)).collect();
    let list: serde_json::Value = serde_json::from_str(&said(&gateway, &["sessions", "--json", "-n", "1000"])).unwrap();
    assert_eq!(list["sessions"].as_array().unwrap().len(), clients.len());
    let some: serde_json::Value = serde_json::from_str(&said(&gateway, &["sessions", "--json", "-n", "10"])).unwrap();
    assert_eq!(some["sessions"].as_array().unwrap()[..], list["sessions"].as_array().unwrap()[..10]);
    assert_eq!(some["more"], 290);
}

#[test]
fn events_tell_what_happened_and_check_is_for_monitoring() {
    let (gateway, sink) = started("[log]\nlevel = \"info\"\n");
    let output = ask(&gateway, &["status", "--check"]);
    let line = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.code() == Some(0) && line.starts_with("SMTP GATEWAY OK - "), "{line}");
    let from = address();
    let mut client = gateway.client(from);
    client.must("EHLO client.test");
    client.must("MAIL FROM:<sender@client.test>");
    assert_eq!(client.command("RCPT TO:<victim@elsewhere.example>").code, 550);
    said(&gateway, &["ban", "192.0.2.7", "--reason", "a ticket"]);
    said(&gateway, &["unban", "192.0.2.7"]);
    let events = said(&gateway, &["events"]);
    let (refusal, ban) = (["refusal", &from.to_string()], ["ban ", "192.0.2.7  by an administrator: a ticket"]);
    for parts in [["gateway", "started"], refusal, ban, ["unban", "192.0.2.7"]] {
        assert!(events.lines().any(|line| parts.iter().all(|part| line.contains(part))), "{parts:?}: {events}");
    }
    for line in said(&gateway, &["events", "--json"]).lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).unwrap()["number"].is_u64(), "{line}");
    }
    assert_eq!(said(&gateway, &["log", "debug", "--for", "10m"]), "the log's level is debug, for 10 min\n");
    client.quit();
    gateway.client(from).quit();
    gateway.log().wait_for(&["DEBUG", "end=\"quit\""]);
    assert_eq!(ask(&gateway, &["log", "loud"]).status.code(), Some(2));
    drop((gateway, sink));
    let nobody = run("/".as_ref(), &["status", "--check", "--socket", "/nonexistent/control.sock"]);
    assert_eq!(nobody.status.code(), Some(2), "{nobody:?}");
}

/// One request over a connection of its own.
fn get(to: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // A connection that is cut has said what it had to say.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn the_metrics_listener_answers_and_holds_out() {
    let metrics = SocketAddr::from((address(), 9525));
    let (gateway, sink) = started(&format!("[metrics]\naddress = \"{metrics}\"\n"));
    let head = |method: &str, path: &str, host: &str| {
        format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
    };
    for (method, path, host, status, part) in [
        ("GET", "/metrics", "127.0.0.1", "200", "smtp_gateway_sessions_accepted_total "),
        ("GET", "/healthz", "localhost", "200", "ok"),
        ("GET", "/readyz", "gateway.test:9525", "200", "ready"),
        ("GET", "/", "[::1]:9525", "200", "content-security-policy: default-src 'none'"),
        ("GET", "/status.json", "127.0.0.1", "200", "\"uptime_seconds\""),
        ("GET", "/", "rebind.example.net", "421", "metrics.hosts"),
        ("GET", "/nothing", "127.0.0.1", "404", "there are"),
        ("POST", "/metrics", "127.0.0.1", "405", "allow: GET"),
        ("DELETE", "/", "127.0.0.1", "405", "GET only"),
    ] {
        let answer = get(metrics, &head(method, path, host));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(part), "{path}: {answer}");
    }
    assert!(get(metrics, "GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 421 "), "no host");
    let endless = format!("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: {}", "x".repeat(100_000));
    assert!(get(metrics, &endless).starts_with("HTTP/1.1 431 ") || get(metrics, &endless).is_empty());

    // Many who connect and say nothing: mail goes on, and what is open is bounded.
    let silent: Vec<_> = (0..300).filter_map(|_| connect(address(), metrics).ok()).collect();
    let mut client = gateway.client(address());
    let reply = client.mail("sender@client.test", "user@example.com", b"Subject: x\r\n\r\nx\r\n");
    assert_eq!(reply.code, 250, "{reply:?}");
    sink.message();
    let open = std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap().count();
    assert!(open < 200, "{open} files are open for {} silent connections", silent.len());
    drop(silent);
    assert!(get(metrics, &head("GET", "/healthz", "127.0.0.1")).contains("ok"));
}

/// promtool, where `cargo xtask test` has put it.
fn promtool() -> Command {
    Command::new(folder("prometheus").join("usr/bin/promtool"))
}

#[test]
fn what_monitoring_reads_is_clean_and_alerts_go_off() {
    if !available("observe", &["prometheus"]) {
        return;
    }
    let metrics = SocketAddr::from((address(), 9525));
    let (gateway, sink) = started(&format!("[metrics]\naddress = \"{metrics}\"\n"));
    let mut client = gateway.client(address());
    client.mail("sender@client.test", "user@example.com", b"Subject: x\r\n\r\nx\r\n");
    sink.message();
    let answer = get(metrics, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let (_, page) = answer.split_once("\r\n\r\n").unwrap();
    for part in [
        "messages_total{outcome=\"accepted\"} 1\n",
        "connect_seconds_count 1\n",
        "banner_seconds_count 1\n",
        "identity_seconds_count 1\n",
    ] {
        assert!(page.contains(part), "{part} is not in\n{page}");
    }
    let mut check = promtool();
    let mut check = check.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    check.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let said = check.wait_with_output().unwrap();
    assert!(said.status.success() && said.stdout.is_empty(), "{said:?}");

    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/monitoring");
    for arguments in [["check", "rules", "smtp-gateway.rules.yml"], ["test", "rules", "smtp-gateway.test.yml"]] {
        let said = promtool().args(arguments).current_dir(rules).output().unwrap();
        assert!(said.status.success(), "{arguments:?}: {said:?}");
    }
}

#[test]
fn lines_stand_within_spans_where_somebody_asks_for_them() {
    for (level, spans) in [("info", false), ("info,drive=debug", true)] {
        let (gateway, sink) = started(&format!("[log]\nlevel = \"{level}\"\n"));
        let from = address();
        let mut client = gateway.client(from);
        client.must("EHLO client.test");
        let message = b"Message-ID: <spans@client.test>\r\nSubject: spans\r\n\r\nyes\r\n";
        assert_eq!(client.mail("sender@client.test", "user@example.com", message).code, 250);
        client.quit();
        sink.message();
        let line = gateway.log().wait_for(&["message_id=", "outcome=\"accepted\""]);
        let context =
            ["session{id=", &format!("client={from}"), "listener=", "message{message_id=\"spans@client.test\"}"];
        assert_eq!(context.iter().all(|part| line.contains(part)), spans, "{level}: {line}");
        assert_eq!(line.contains('{'), spans, "{level}: {line}");
    }
}
