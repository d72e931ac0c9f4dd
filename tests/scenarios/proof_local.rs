//! `selftest` as a person meets it, on loopback: exit codes by contract, sentences, and backends that answer badly.

use std::collections::HashSet;
use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::process::Output;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use smtp_gateway::sink::{Options, SinkIdentity, network};
use tempfile::TempDir;
use tests::peers::client::Client;
use tests::peers::local::{LocalGateway, LocalSink, address, configuration, run};
use tests::peers::scripted::{self, Answer, Dialog};

/// Quick, and without the need of a resolver.
const PROOF: &str = "[proof]\nenabled = false\npause = \"0s\"\n";

fn selftest(configuration: &str, options: &[&str]) -> Output {
    let folder = folder(configuration);
    run(folder.path(), &[&["selftest", "-c", "gateway.toml"], options].concat())
}

fn folder(configuration: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("gateway.toml"), configuration).unwrap();
    folder
}

/// The exit code, the state, and all findings.
fn verdict(configuration: &str) -> (i32, String, String) {
    let output = selftest(configuration, &["--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let backend = &report["backends"][0];
    let findings = backend["legs"].as_array().unwrap().iter().map(|leg| leg["findings"].to_string()).collect();
    (output.status.code().unwrap(), backend["state"].as_str().unwrap().to_owned(), findings)
}

fn before(sink: &LocalSink, identity: &str, more: &str) -> String {
    configuration((address(), 2525).into(), "", sink.address, identity, &format!("{PROOF}{more}"))
}

fn sink(options: Options) -> LocalSink {
    LocalSink::start(Options { identity: SinkIdentity::Xclient, ..options })
}

#[test]
fn exit_codes_are_the_verdict() {
    let honest = sink(Options::default());
    let (code, state, findings) = verdict(&before(&honest, "xclient", ""));
    assert_eq!((code, &*state), (0, "safe-unproven"));
    // Loopback may use XCLIENT there, and the stranger was named by XCLIENT.
    assert!(!findings.contains("high") && !findings.contains("critical"), "{findings}");
    let confused = sink(Options { trust: vec![network("127.0.0.0/8").unwrap()], ..Options::default() });
    let (code, state, findings) = verdict(&before(&confused, "xclient", ""));
    assert_eq!((code, &*state), (1, "latent"));
    assert!(findings.contains("it accepts mail to foreign domains from 127.0.0.1"), "{findings}");
    assert!(!findings.contains("critical"), "strangers do not relay: {findings}");
    let (code, state, findings) = verdict(&before(&confused, "none", ""));
    assert_eq!((code, &*state), (1, "open"));
    assert!(findings.contains("every stranger has the gateway's rights"), "{findings}");
    let nobody: SocketAddr = (address(), 2526).into();
    let (code, state, findings) = verdict(&configuration((address(), 2525).into(), "", nobody, "xclient", PROOF));
    assert_eq!((code, &*state), (2, "inconclusive"));
    assert!(findings.contains(&format!("cannot connect to {nobody}: Connection refused")), "{findings}");

    let output = selftest(&before(&honest, "xclient", ""), &["--backend", "other"]);
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(said, "there is no backend `other` in the configuration; it names `backend`\n");
    let output = selftest("[server]\n", &[]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("gateway.toml:1:1: error:"), "{output:?}");
}

#[test]
fn the_page_begins_with_the_verdict_and_ends_with_what_was_said() {
    let confused = sink(Options { trust: vec![network("127.0.0.0/8").unwrap()], ..Options::default() });
    let output = selftest(&before(&confused, "xclient", ""), &[]);
    let page = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(page.starts_with("LATENT  backend, IPv4 clients\n"), "{page}");
    let flowing = page.split_whitespace().collect::<Vec<_>>().join(" ");
    for words in [
        "high it accepts mail to foreign domains from 127.0.0.1 (12 cases, A01 to F01)",
        "mend: start it without `--trust` for 127.0.0.1",
        "The mail server sees 127.0.0.1, the gateway. It should believe 203.0.113.77, whom it is told of.",
        "Evidence level 1",
    ] {
        assert!(flowing.contains(words), "{words} is not in\n{page}");
    }
    let case = "  A01 relayed (abuse.net 1, nmap 2)\n    C: MAIL FROM:<spamtest@nmap.scanme.org>\n    S: 250 2.1.0 Ok\n    C: RCPT";
    assert!(page.contains(case), "{page}");
    let said = |line: &&str| line.starts_with("    C: ") || line.starts_with("    S: ");
    assert!(page.lines().filter(|line| !said(line)).all(|line| line.chars().count() <= 120), "{page}");
    assert!(output.stderr.is_empty(), "no bar without a terminal: {output:?}");
}

#[test]
fn whoever_answers_badly_is_never_safe() {
    for (fault, why) in [
        ("rcpt=450", "it puts off even its own user"),
        ("rcpt=550", "it refuses even its own user"),
        ("mail=451", "it puts off even its own user"),
        ("banner=554", "it greets with 554"),
        ("banner=421", "for it is busy: it greets with 421"),
        ("ehlo=502", "it answers EHLO with 502"),
        ("xclient=550", "it refuses XCLIENT with 550"),
        ("rcpt=close", "it closes the connection"),
        ("rcpt=reset", "the connection is lost"),
        ("rcpt=junk", "what is no SMTP reply"),
        ("rcpt=421", "for it is busy: it ends the session: 421"),
        ("rcpt=hang", "the proof's deadline is over"),
        ("connect=hang", "the proof's deadline is over"),
    ] {
        let faulty = sink(Options { faults: vec![fault.parse().unwrap()], ..Options::default() });
        let (code, state, findings) = verdict(&before(&faulty, "xclient", "deadline = \"2s\"\n"));
        assert_eq!((code, &*state), (2, "inconclusive"), "{fault}: {findings}");
        assert!(findings.contains(why), "{fault}: {findings}");
    }
}

#[test]
fn identity_that_anybody_may_claim_is_found() {
    let forged = format!("spoof_from = [\"{}\"]\n", address());
    let careless = sink(Options::default());
    let (code, state, findings) = verdict(&before(&careless, "xclient", &forged));
    assert_eq!((code, &*state), (1, "latent"));
    assert!(findings.contains("whoever can reach it can be anybody"), "{findings}");
    let careful = sink(Options { xclient_from: vec![network("127.0.0.1").unwrap()], ..Options::default() });
    assert_eq!(verdict(&before(&careful, "xclient", &forged)).1, "safe-unproven");
}

#[test]
fn the_real_door_is_tried_from_where_it_is_told() {
    let honest = sink(Options::default());
    let front: SocketAddr = (address(), 2525).into();
    let from = format!("{PROOF}front_door_from = [\"{}\"]\n", address());
    let config = configuration(front, "", honest.address, "xclient", &from);
    let (code, _, findings) = verdict(&config);
    assert_eq!(code, 2, "nobody listens: {findings}");
    assert!(findings.contains(&format!("cannot connect to {front} from")), "{findings}");
    let _gateway = LocalGateway::start(front, &config);
    let output = selftest(&config, &["--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let probes = report["backends"][0]["legs"][0]["probes"].as_array().unwrap();
    let outside = probes.iter().find(|probe| probe["probe"] == "outside").unwrap();
    assert_eq!((&outside["answer"], output.status.code()), (&Value::from("refuses"), Some(0)), "{outside:#}");
}

/// The door of a load balancer's listener is entered as a load balancer does: with a PROXY header.
#[test]
fn the_door_behind_a_load_balancer() {
    let honest = sink(Options::default());
    let listener = "proxy_protocol_from = [\"10.0.0.5/32\"]";
    let config = configuration((address(), 2525).into(), listener, honest.address, "xclient", PROOF);
    let output = selftest(&config, &["--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let legs = report["backends"][0]["legs"].as_array().unwrap();
    assert_eq!(legs.len(), 2, "such a listener serves both families");
    for leg in legs {
        let door = leg["probes"].as_array().unwrap().iter().find(|probe| probe["probe"] == "front-door").unwrap();
        assert_eq!((&door["answer"], &door["refused"]), (&Value::from("refuses"), &door["of"]), "{door:#}");
    }
}

/// KumoMTA refuses the prefix that Postfix insists on. The proof finds out, and sessions follow.
#[test]
fn how_ipv6_addresses_are_written_is_learned() {
    let bare = scripted::start(|talk, command| {
        let reply = match command.split_once(' ').unwrap_or((command, "")) {
            ("EHLO", _) => "250-backend\r\n250 XCLIENT ADDR\r\n",
            ("XCLIENT", address) if address.contains("IPV6:") => "501 5.5.4 Bad address\r\n",
            ("XCLIENT", _) => "220 backend\r\n",
            ("RCPT", to) if !to.contains("@example.com>") && !to.contains("postmaster>") => {
                "550 5.7.1 relaying denied\r\n"
            }
            _ => return Answer::Usual,
        };
        talk.say(reply);
        Answer::Given
    });
    let front: SocketAddr = "[::]:2525".parse().unwrap();
    let output = selftest(&configuration(front, "", bare, "xclient", PROOF), &["--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let leg = &report["backends"][0]["legs"][1];
    assert_eq!((&leg["family"], &leg["state"]), (&Value::from("IPv6"), &Value::from("safe-unproven")), "{leg:#}");
    let findings = leg["findings"].to_string();
    assert!(findings.contains("it offers that stranger XCLIENT"), "{findings}");
    let door = leg["probes"].as_array().unwrap().iter().find(|probe| probe["probe"] == "front-door").unwrap();
    assert_eq!((&door["answer"], &door["refused"]), (&Value::from("refuses"), &door["of"]), "{door:#}");
}

/// A server that knows its recipients: `postmaster@example.com` alone.
fn recipient(command: &str) -> Option<&'static str> {
    let to = command.strip_prefix("RCPT TO:")?;
    Some(match to {
        "<postmaster@example.com>" => "250 2.1.5 Ok\r\n",
        _ if to.contains("@example.com>") => "550 5.1.1 User unknown\r\n",
        _ => "550 5.7.1 Unable to relay\r\n",
    })
}

/// As Exchange by default, ten times as fast: a wait before each refusal, and the end of the session with the second.
#[test]
fn a_server_that_lets_strangers_wait_gets_its_verdict_in_time() {
    const WAIT: Duration = Duration::from_millis(500);
    let beside = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    let seen = beside.clone();
    let server = scripted::start(move |dialog: &mut Dialog, command: &str| {
        let Some(reply) = recipient(command) else { return Answer::Usual };
        if reply.starts_with('5') {
            let (now, most) = &*seen;
            most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            thread::sleep(WAIT);
            now.fetch_sub(1, Ordering::Relaxed);
            dialog.notes.push("error".to_owned());
        }
        dialog.say(reply);
        if dialog.notes.len() < 2 { Answer::Given } else { Answer::Close }
    });
    let config = configuration((address(), 2525).into(), "", server, "none", &format!("{PROOF}deadline = \"20s\"\n"));
    let begun = Instant::now();
    let (code, state, findings) = verdict(&config);
    // A fifth of the deadline is for the verdict. One refusal after another, this would take 40 s.
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert_eq!((code, &*state), (0, "safe-unproven"), "{findings}");
    assert!(findings.contains("are not tried yet: it waits up to"), "{findings}");
    assert!(findings.contains("and ends sessions after 2 errors"), "{findings}");
    assert!((2..=4).contains(&beside.1.load(Ordering::Relaxed)), "{beside:?} sessions side by side");
}

/// It knows a sender again that it has put off, and answers him then.
#[test]
fn a_greylisting_server_is_asked_again_when_it_said() {
    let known = Mutex::new(HashSet::new());
    let server = scripted::start(move |dialog: &mut Dialog, command: &str| {
        let Some(reply) = recipient(command) else { return Answer::Usual };
        let is_new = known.lock().unwrap().insert(command.to_owned());
        dialog.say(if is_new { "450 4.2.0 Greylisted, come back in 1 seconds\r\n" } else { reply });
        Answer::Given
    });
    let (code, state, findings) = verdict(&configuration((address(), 2525).into(), "", server, "none", PROOF));
    assert_eq!((code, &*state), (0, "safe-unproven"), "{findings}");
}

/// Strangers are told with a name where that decides.
#[test]
fn a_server_that_turns_nameless_clients_away_is_told_a_name() {
    let named = scripted::start(|dialog: &mut Dialog, command: &str| {
        if command.starts_with("EHLO") {
            dialog.say("250-backend\r\n250 XCLIENT ADDR NAME\r\n");
            return Answer::Given;
        }
        if command.starts_with("XCLIENT") {
            dialog.notes = command.split(' ').map(str::to_owned).collect();
            dialog.say("220 backend\r\n");
            return Answer::Given;
        }
        let Some(reply) = recipient(command) else { return Answer::Usual };
        let is_named = dialog.notes.iter().any(|note| note == "NAME=gateway.test");
        dialog.say(if is_named { reply } else { "450 4.7.25 Client host rejected: cannot find your hostname\r\n" });
        Answer::Given
    });
    let (code, state, findings) = verdict(&configuration((address(), 2525).into(), "", named, "xclient", PROOF));
    assert_eq!((code, &*state), (0, "safe-unproven"), "{findings}");
}

/// Whoever lets an address relay behind which a forwarder may hide strangers is told so, and is not safe.
#[test]
fn an_address_of_this_host_that_may_relay_is_found() {
    let trust = vec![network("127.0.0.0/8").unwrap()];
    let believing = sink(Options { trust, ..Options::default() });
    let allowed = |networks: &str| {
        let config = before(&believing, "xclient", "");
        config.replace("[relay]\n", &format!("[relay]\nallowed_networks = [{networks}]\n"))
    };
    let (code, _, findings) = verdict(&allowed("\"127.0.0.0/8\""));
    assert_eq!(code, 1);
    let found = "who comes from 127.0.0.1, an address of this host? That may relay by `relay.allowed_networks`";
    assert!(findings.contains(found), "{findings}");
    let (_, _, findings) = verdict(&allowed("\"127.0.0.77/32\""));
    assert!(!findings.contains("who comes from"), "a machine named by itself is no forwarder: {findings}");
}

/// A client on the gateway's host may be one that may use XCLIENT itself, and a sink takes it from loopback.
#[test]
fn mail_of_this_host_raises_no_alarm() {
    let everybody = vec![network("0.0.0.0/0").unwrap()];
    let sink = sink(Options { xclient_from: everybody, ..Options::default() });
    let alarm = "the backend offers XCLIENT to a client that XCLIENT has named";
    let mail = |stream: TcpStream, gateway: &LocalGateway| {
        let mut client = Client::over(stream);
        client.expect(2);
        assert_eq!(client.mail("a@client.test", "b@example.com", b"Subject: x\r\n\r\nbody\r\n").code, 250);
        client.quit();
        gateway.log().wait_for(&["INFO", "session", "end=\"quit\""]);
        gateway.log().text().matches(alarm).count()
    };
    let front = (address(), 2525).into();
    let gateway = LocalGateway::start(front, &configuration(front, "", sink.address, "xclient", ""));
    assert_eq!(mail(gateway.connect_from(address()), &gateway), 0, "from this host");

    let (balancer, front) = (address(), (address(), 2525).into());
    let listener = format!("proxy_protocol_from = [\"{balancer}/32\"]");
    let gateway = LocalGateway::start(front, &configuration(front, &listener, sink.address, "xclient", ""));
    let mut stream = gateway.connect_from(balancer);
    stream.write_all(b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 25\r\n").unwrap();
    assert_eq!(mail(stream, &gateway), 1, "from elsewhere");
}

#[test]
fn the_confused_demo_tells_its_story_and_exits_1() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &["demo", "--confused"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let story = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut rest = &*story;
    for part in [
        "OPEN  sink, IPv4 clients",
        "RCPT TO:<victim@elsewhere.example>",
        "550 5.7.1 Relaying denied",
        "OPEN RELAY, ",
        "The mend:",
        "PROVEN  sink, IPv4 clients",
        "client 127.0.0.7 (via 127.0.0.1, by XCLIENT)",
        "proven, ",
    ] {
        let (_, after) = rest.split_once(part).unwrap_or_else(|| panic!("{part} does not come next in\n{story}"));
        rest = after;
    }
}
