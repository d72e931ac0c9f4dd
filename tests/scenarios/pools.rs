//! Several servers stand for one another: whatever befalls one of them, the client hears of another, and no message is lost
//! or doubled.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use smtp_gateway::sink::{Options, SinkIdentity};
use tests::peers::client::Client;
use tests::peers::gateway::Gateway;
use tests::peers::local::{LocalGateway, LocalSink, address, configuration, run};
use tests::peers::net::{BACK, FRONT, Family, Trio};
use tests::peers::stage::said;
use tests::peers::{LOCAL_DOMAIN, available};

const MESSAGE: &[u8] = b"Subject: x\r\n\r\none\r\n";

fn sink(fault: Option<&str>) -> LocalSink {
    let faults = fault.map(|fault| fault.parse().unwrap()).into_iter().collect();
    LocalSink::start(Options { identity: SinkIdentity::Xclient, faults, ..Options::default() })
}

/// A gateway before these servers. Health checks are rare: what sessions find must be enough.
fn gateway(servers: &[SocketAddr], keys: &str) -> LocalGateway {
    let front: SocketAddr = (address(), 2525).into();
    let list: Vec<_> = servers.iter().map(|server| format!("\"{server}\"")).collect();
    let more = "[timeouts]\nconnect = \"2s\"\nhealth_interval = \"1h\"\n";
    let config = configuration(front, "", servers[0], "xclient", more);
    let one = format!("address = \"{}\"\nidentity", servers[0]);
    let several = format!("servers = [{}]\n{keys}\nidentity", list.join(", "));
    assert!(config.contains(&one));
    LocalGateway::start(front, &config.replace(&one, &several))
}

#[test]
fn a_server_that_is_dead_busy_or_frozen_loses_no_message() {
    let (busy, frozen, good) = (sink(Some("banner=421")), sink(Some("banner=hang")), sink(None));
    let dead: SocketAddr = (address(), 2526).into();
    let gateway = gateway(&[dead, busy.address, frozen.address, good.address], "");
    for _ in 0..8 {
        let started = Instant::now();
        let mut client = gateway.client(address());
        assert_eq!(client.mail("a@client.test", "b@example.com", MESSAGE).code, 250);
        client.quit();
        assert!(started.elapsed() < Duration::from_secs(3), "within timeouts.connect and a second");
        good.message_from();
    }
    let status = gateway.status();
    assert_eq!(status["messages"]["accepted_total"], 8);
    let names: Vec<_> = status["backends"].as_array().unwrap().iter().map(|backend| &backend["name"]).collect();
    assert_eq!(names, ["backend/1", "backend/2", "backend/3", "backend/4"]);
}

/// How long the first command waits that wakes the mail server, and what comes of it.
fn first_answer(gateway: &LocalGateway) -> (u16, Duration) {
    let mut client = gateway.client(address());
    client.must("EHLO client.test");
    let started = Instant::now();
    let code = client.command("MAIL FROM:<a@client.test>").code;
    client.quit();
    (code, started.elapsed())
}

#[test]
fn a_server_that_answers_nobody_is_not_waited_for_where_there_is_no_other_either() {
    let (frozen, other) = (sink(Some("banner=hang")), sink(Some("banner=hang")));
    for servers in [&[frozen.address][..], &[frozen.address, other.address]] {
        let gateway = gateway(servers, "");
        for _ in 0..2 {
            let (code, waited) = first_answer(&gateway);
            assert_eq!(code, 451);
            assert!(waited < Duration::from_secs(3), "within timeouts.connect and a second: {waited:?}");
        }
        let known = &gateway.status()["backends"][0];
        assert!(known["healthy"] == false && known["problem"].to_string().contains("no answer from"), "{known}");
    }
}

#[test]
fn a_server_that_holds_its_greeting_back_from_everybody_is_waited_for() {
    let slow = sink(Some("banner=delay:3500"));
    let gateway = gateway(&[slow.address], "");
    let patience = Instant::now() + Duration::from_secs(10);
    while gateway.status()["backends"][0]["healthy"] != true {
        assert!(Instant::now() < patience, "its health check has seen it");
    }
    for _ in 0..2 {
        let (code, waited) = first_answer(&gateway);
        assert_eq!(code, 250);
        assert!(waited >= Duration::from_secs(3), "longer than timeouts.connect: {waited:?}");
    }
}

#[test]
fn when_all_are_down_the_client_is_told_at_once() {
    let dead: [SocketAddr; 3] = std::array::from_fn(|_| (address(), 2526).into());
    let gateway = gateway(&dead, "");
    let started = Instant::now();
    let mut client = gateway.client(address());
    client.must("EHLO client.test");
    assert_eq!(client.command("MAIL FROM:<a@client.test>").code, 451);
    assert!(started.elapsed() < Duration::from_secs(2));
    client.quit();
}

#[test]
fn who_is_drained_gets_no_more_sessions_and_keeps_those_it_has() {
    let (one, two) = (sink(None), sink(None));
    let gateway = gateway(&[one.address, two.address], "");
    let drain = |arguments: &[&str]| {
        let arguments: Vec<_> =
            ["backend"].iter().chain(arguments).chain(&["--socket", "control.sock"]).copied().collect();
        run(gateway.folder(), &arguments)
    };
    // One session with each of them.
    let mut begun: Vec<_> = (0..2).map(|_| gateway.client(address())).collect();
    for client in &mut begun {
        client.must("EHLO client.test");
        client.must("MAIL FROM:<a@client.test>");
    }
    let output = drain(&["drain", "backend", "--server", "1"]);
    assert!(output.status.success() && said(&output).contains("backend/1 is drained"), "{}", said(&output));
    assert_eq!(gateway.status()["backends"][0]["drained"], true);
    for _ in 0..6 {
        assert_eq!(gateway.client(address()).mail("a@client.test", "b@example.com", MESSAGE).code, 250);
        two.message_from();
    }
    for mut client in begun {
        client.must("RCPT TO:<b@example.com>");
        client.quit();
    }
    assert!(drain(&["drain", "backend/2"]).status.success());
    let mut client = gateway.client(address());
    client.must("EHLO client.test");
    assert_eq!(client.command("MAIL FROM:<a@client.test>").code, 451);
    assert!(drain(&["undrain", "backend"]).status.success());
    assert_eq!(gateway.client(address()).mail("a@client.test", "b@example.com", MESSAGE).code, 250);

    let unknown = drain(&["drain", "exchange"]);
    assert!(!unknown.status.success() && said(&unknown).contains("`backend/1`, `backend/2`"), "{}", said(&unknown));
}

#[test]
fn who_comes_when_all_places_are_taken_waits_for_one() {
    let only = sink(None);
    let gateway = gateway(&[only.address], "max_sessions = 1");
    let mut first = gateway.client(address());
    first.must("EHLO client.test");
    first.must("MAIL FROM:<a@client.test>");
    let mut second = gateway.client(address());
    second.must("EHLO client.test");
    second.send(b"MAIL FROM:<b@client.test>\r\n");
    first.quit();
    assert_eq!(second.reply().code, 250);
    let mut third = gateway.client(address());
    third.must("EHLO client.test");
    let started = Instant::now();
    assert_eq!(third.command("MAIL FROM:<c@client.test>").code, 451, "nobody leaves");
    assert!(started.elapsed() >= Duration::from_secs(1), "it was waited for");
}

/// A gateway whose mail for `second.test` goes to the second of these, and the rest to the first.
fn routed(first: SocketAddr, second: SocketAddr) -> LocalGateway {
    let front: SocketAddr = (address(), 2525).into();
    let more = format!(
        "[timeouts]\nconnect = \"2s\"\n[[backend]]\nname = \"second\"\naddress = \"{second}\"\n[[route]]\n\
         recipients = [\"second.test\"]\nbackend = \"second\"\n"
    );
    let config = configuration(front, "", first, "xclient", &more);
    LocalGateway::start(front, &config.replace("[\"example.com\"]", "[\"example.com\", \"second.test\"]"))
}

#[test]
fn mixed_recipients_arrive_once_each() {
    let (first, second) = (sink(None), sink(None));
    let gateway = routed(first.address, second.address);
    let mut client = gateway.client(address());
    client.must("EHLO client.test");
    // What a sender does with 452: the others in a message of their own, in the same session.
    let mut left = vec!["a@example.com", "b@second.test", "c@example.com", "d@second.test"];
    for round in 0..2 {
        client.must("MAIL FROM:<a@client.test>");
        left.retain(|recipient| match client.command(&format!("RCPT TO:<{recipient}>")).code {
            250 => false,
            code => {
                assert_eq!(code, 452, "{recipient}");
                true
            }
        });
        client.must("DATA");
        client.send(format!("Subject: {round}\r\n\r\none\r\n.\r\n").as_bytes());
        assert_eq!(client.reply().code, 250);
    }
    assert!(left.is_empty(), "{left:?}");
    client.quit();
    assert_eq!(first.message().recipients, ["a@example.com", "c@example.com"]);
    assert_eq!(second.message().recipients, ["b@second.test", "d@second.test"]);
    assert_eq!(gateway.status()["messages"]["accepted_total"], 2);

    let told = run(gateway.folder(), &["route", "-c", "gateway.toml", "x@SECOND.test"]);
    assert!(said(&told).contains("backend second, by the route `route` in line"), "{}", said(&told));
    let told = run(gateway.folder(), &["route", "-c", "gateway.toml", "x@example.com"]);
    assert!(said(&told).contains("backend backend, its own"), "{}", said(&told));
}

/// What the configuration cannot know: an address of this machine, where a listener is on all of them.
#[test]
fn a_server_that_is_the_gateway_itself_is_never_asked() {
    if !available("a backend that is the gateway itself", &[]) {
        return;
    }
    let trio = Trio::new();
    for (listener, server) in [("0.0.0.0:25", FRONT[0]), ("[::]:25", BACK[0])] {
        let gateway = Gateway::by(
            &trio,
            &format!(
                "[server]\nhostname = \"gateway.test\"\n[[listener]]\naddress = \"{listener}\"\n\
                 [[backend]]\naddress = \"{server}\"\n[relay]\nlocal_domains = [\"{LOCAL_DOMAIN}\"]\n[proof]\nenabled = false\n"
            ),
        );
        let mut client = Client::to_gateway(&trio.client, Family::V4);
        client.must("EHLO client.test");
        assert_eq!(client.command("MAIL FROM:<a@client.test>").code, 451, "{server}");
        client.quit();
        let status = gateway.json(&["status"]);
        let told = format!("{server}:25 is the gateway's own listener {listener}: mail would loop");
        assert!(status["backends"][0]["problem"].as_str().unwrap().contains(&told), "{status}");
        assert_eq!(status["sessions"]["accepted_total"], 1, "nobody else came: {status}");
    }
}
