//! The program as a person meets it: exit codes, sentences, `ready`, the drain.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use smtp_gateway::sink::{Options, SinkIdentity};
use tests::peers::available;
use tests::peers::local::{LocalGateway, LocalSink, address, configuration, run};

fn xclient_sink() -> LocalSink {
    LocalSink::start(Options { identity: SinkIdentity::Xclient, ..Options::default() })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn check_lists_every_fault_and_exits_78() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("bad.toml"), "[server]\nhostnam = 'a'\n[limits]\nerrors = 'many'\n").unwrap();
    for verb in ["check", "run"] {
        let output = run(folder.path(), &[verb, "-c", "bad.toml"]);
        assert_eq!(output.status.code(), Some(78), "{output:?}");
        let said = text(&output.stderr);
        for fault in ["bad.toml:2:1: error:", "bad.toml:4:10: error:", "listener", "backend", "`hostname`"] {
            assert!(said.contains(fault), "{fault} is not in\n{said}");
        }
        assert!(output.stdout.is_empty(), "nothing starts: {output:?}");
    }
}

#[test]
fn check_is_content_with_the_files_that_are_handed_out() {
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/../config");
    for file in ["gateway.toml", "demo.toml"] {
        let output = run(config.as_ref(), &["check", "-c", file]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
}

#[test]
fn a_missing_file_is_one_sentence_and_exits_78() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &["run", "-c", "absent.toml"]);
    assert_eq!(output.status.code(), Some(78));
    let said = text(&output.stderr);
    assert!(said.contains("absent.toml") && said.lines().count() == 1, "{said}");
}

#[test]
fn status_without_a_gateway_exits_3() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &["status", "--socket", "nobody.sock"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).starts_with("no gateway answers on the control socket nobody.sock"), "{output:?}");
}

#[test]
fn the_demo_shows_the_true_client() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &["demo"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(text(&output.stdout).contains("The mail server knows its client: 127.0.0.7, not the gateway."));
}

#[test]
fn a_port_in_use_is_one_sentence_and_exits_1() {
    let sink = xclient_sink();
    let front = (address(), 2525).into();
    let config = configuration(front, "", sink.address, "xclient", "");
    let first = LocalGateway::start(front, &config);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("gateway.toml"), &config).unwrap();
    let output = run(folder.path(), &["run", "-c", "gateway.toml"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains(&format!("cannot listen on {front}: the port is in use")), "{said}");

    // The same control socket: said before any port is tried.
    let output = run(first.folder(), &["run", "-c", "gateway.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("another gateway answers on the control socket"), "{output:?}");
}

/// Invariant 10: no privilege after start.
#[test]
fn invariant_10_no_privilege_after_start() {
    // Whoever begins without any has none to lose.
    if !available("invariant 10", &[]) {
        return;
    }
    let sink = xclient_sink();
    let front = (address(), 2525).into();
    let gateway = LocalGateway::start(front, &configuration(front, "", sink.address, "xclient", ""));
    let mut threads = 0;
    for task in fs::read_dir(format!("/proc/{}/task", gateway.pid())).unwrap() {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        threads += 1;
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            let line = status.lines().find(|line| line.starts_with(set)).unwrap();
            assert!(line.ends_with("\t0000000000000000"), "{line}");
        }
        assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    }
    assert!(threads >= 3, "two workers and the service");
}

#[test]
fn the_control_socket_is_the_owners_and_goes_with_the_gateway() {
    let sink = xclient_sink();
    let front = (address(), 2525).into();
    let mut gateway = LocalGateway::start(front, &configuration(front, "", sink.address, "xclient", ""));
    let socket = gateway.control_socket();
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let status = gateway.status();
    assert_eq!(status["listeners"][0]["address"], front.to_string());
    assert_eq!(status["backends"][0]["healthy"], true);
    gateway.terminate();
    assert_eq!(gateway.wait().code(), Some(0));
    assert!(!socket.exists());
}

/// A transaction that is under way when SIGTERM comes ends as if nothing had happened; what comes after gets 421.
#[test]
fn a_drain_finishes_what_was_begun() {
    let sink = xclient_sink();
    let front = (address(), 2525).into();
    let mut gateway = LocalGateway::start(front, &configuration(front, "", sink.address, "xclient", ""));
    let from = address();
    let mut idle = gateway.client(from);
    let mut busy = gateway.client(from);
    busy.envelope("a@client.test", "b@example.com", "");
    gateway.terminate();
    assert_eq!(idle.reply().code, 421, "a session without a transaction is told");
    busy.send(b"Subject: last\r\n\r\none\r\n.\r\n");
    assert_eq!(busy.reply().code, 250);
    assert_eq!(sink.message_from(), Some(from.into()));
    assert_eq!(gateway.wait().code(), Some(0));
    assert!(tests::peers::local::connect(from, front).is_err());
}

/// When the time is up, sessions that are still busy are cut off with an honest 421.
#[test]
fn a_drain_has_an_end() {
    let sink = xclient_sink();
    let front = (address(), 2525).into();
    let config = configuration(front, "", sink.address, "xclient", "[timeouts]\ndrain = \"100ms\"\n");
    let mut gateway = LocalGateway::start(front, &config);
    let mut busy = gateway.client(address());
    busy.envelope("a@client.test", "b@example.com", "");
    gateway.terminate();
    assert_eq!(busy.reply().code, 421);
    assert_eq!(gateway.wait().code(), Some(0));
}
