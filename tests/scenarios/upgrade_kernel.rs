//! An upgrade of a gateway with its kernel side at work: bans hold at the card throughout, and one process writes.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::json;
use smtp_gateway::sink::{self, Options, SinkIdentity};
use tests::kernel::pins::Pins;
use tests::peers::client::Client;
use tests::peers::gateway::Gateway;
use tests::peers::net::{BACKEND, CLIENT, FRONT, Family, Trio};
use tests::peers::stage::said;
use tests::peers::{LOCAL_DOMAIN, available};

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
