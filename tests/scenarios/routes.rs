//! Routes are named where servers are: in `status`, in metrics, in the log and among sessions; and what came by them is counted
//! on over a reload and an upgrade.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use smtp_gateway::sink::{Options, SinkIdentity};
use tests::peers::local::{LocalGateway, LocalSink, address, configuration, run};
use tests::peers::stage::said;

fn sink() -> LocalSink {
    LocalSink::start(Options { identity: SinkIdentity::Xclient, ..Options::default() })
}

/// A gateway whose mail for `second.test` goes to the second of these by the route `customers`, what `10.0.0.0/8` sends there
/// too by a route without a name, and the rest to the first.
fn routed(first: SocketAddr, second: SocketAddr, more: &str) -> LocalGateway {
    let front: SocketAddr = (address(), 2525).into();
    let metrics = SocketAddr::new(front.ip(), 9925);
    let more = format!(
        "[metrics]\naddress = \"{metrics}\"\n[timeouts]\nconnect = \"2s\"\n[[backend]]\nname = \"second\"\n\
         servers = [{{ name = \"one\", address = \"{second}\" }}, {{ name = \"two\", address = \"127.0.0.1:1\" }}]\n\
         identity = \"xclient\"\n\
         [[route]]\nname = \"customers\"\nrecipients = [\"second.test\"]\nbackend = \"second\"\n\
         [[route]]\nclients = [\"10.0.0.0/8\"]\nbackend = \"second\"\n{more}"
    );
    let config = configuration(front, "", first, "xclient", &more);
    LocalGateway::start(front, &config.replace("[\"example.com\"]", "[\"example.com\", \"second.test\"]"))
}

/// What the metrics listener says of these labels of a number.
fn number(gateway: &LocalGateway, name_and_labels: &str) -> Option<f64> {
    let metrics = SocketAddr::new(gateway.address.ip(), 9925);
    let mut stream = TcpStream::connect(metrics).expect("the metrics listener");
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {metrics}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let line = answer.lines().find_map(|line| line.strip_prefix(&format!("smtp_gateway_{name_and_labels} ")));
    line.map(|value| value.trim().parse().expect("a number"))
}

/// Two messages, one for each backend, from senders with one each.
fn send_both(gateway: &LocalGateway) {
    let mut client = gateway.client(address());
    client.must("EHLO client.test");
    for recipient in ["b@second.test", "a@example.com"] {
        client.must("MAIL FROM:<a@client.test>");
        client.must(&format!("RCPT TO:<{recipient}>"));
        client.must("DATA");
        client.send(b"Subject: x\r\n\r\none\r\n.\r\n");
        assert_eq!(client.reply().code, 250);
    }
    client.quit();
}

#[test]
fn a_message_has_its_route_and_its_server_wherever_it_is_shown() {
    let (first, second) = (sink(), sink());
    let gateway = routed(first.address, second.address, "");
    let mut client = gateway.client(address());
    client.must("EHLO client.test");
    client.must("MAIL FROM:<a@client.test>");
    client.must("RCPT TO:<b@second.test>");
    assert_eq!(client.command("RCPT TO:<a@example.com>").code, 452);
    let listed = said(&run(gateway.folder(), &["sessions", "--socket", "control.sock"]));
    assert!(listed.contains("second/one by customers"), "{listed}");
    client.must("DATA");
    client.send(b"Subject: x\r\n\r\none\r\n.\r\n");
    assert_eq!(client.reply().code, 250);
    client.quit();
    let line = gateway.log().wait_for(&["outcome=\"accepted\""]);
    assert!(line.contains("route=\"customers\" backend=\"second/one\""), "{line}");
    let line = gateway.log().wait_for(&["end=\"quit\""]);
    assert!(line.contains("route=\"customers\" backend=\"second/one\""), "{line}");

    let status = gateway.status();
    let names: Vec<_> = status["routes"].as_array().unwrap().iter().map(|route| &route["name"]).collect();
    assert_eq!(names, ["customers", "route-2", "none"]);
    let customers = &status["routes"][0];
    assert_eq!(
        (&customers["matches"], &customers["backends"]),
        (&"second.test".into(), &serde_json::json!(["second"]))
    );
    assert_eq!((&customers["servers"], &customers["healthy"]), (&2.into(), &1.into()), "{customers}");
    assert_eq!(customers["messages"]["accepted_total"], 1);
    assert_eq!((&status["routes"][1]["matches"], &customers["hold"]), (&"from 10.0.0.0/8".into(), &().into()));
    assert_eq!(status["routes"][2]["backends"], serde_json::json!(["backend"]));
    let page = said(&run(gateway.folder(), &["status", "--socket", "control.sock"]));
    assert!(page.contains("\nROUTE ") && page.contains("customers  second.test"), "{page}");

    let counted = [
        ("route_messages_total{route=\"customers\",outcome=\"accepted\"}", 1.0),
        ("route_messages_total{route=\"none\",outcome=\"accepted\"}", 0.0),
        ("route_recipients_not_taken_total{route=\"none\",cause=\"parted\"}", 1.0),
        ("route_sessions_total{route=\"customers\"}", 1.0),
    ];
    for (name, value) in counted {
        assert_eq!(number(&gateway, name), Some(value), "{name}");
    }
}

#[test]
fn without_routes_nobody_hears_of_them() {
    let only = sink();
    let front: SocketAddr = (address(), 2525).into();
    let metrics = format!("[metrics]\naddress = \"{}\"\n", SocketAddr::new(front.ip(), 9925));
    let gateway = LocalGateway::start(front, &configuration(front, "", only.address, "xclient", &metrics));
    assert_eq!(
        gateway.client(address()).mail("a@client.test", "b@example.com", b"Subject: x\r\n\r\none\r\n").code,
        250
    );
    let line = gateway.log().wait_for(&["outcome=\"accepted\""]);
    assert!(!line.contains("route"), "{line}");
    assert_eq!(gateway.status()["routes"], serde_json::json!([]));
    assert!(!said(&run(gateway.folder(), &["status", "--socket", "control.sock"])).contains("ROUTE"));
    assert_eq!(number(&gateway, "route_messages_total{route=\"none\",outcome=\"accepted\"}"), None);
    assert_eq!(number(&gateway, "messages_total{outcome=\"accepted\"}"), Some(1.0));
}

#[test]
fn a_route_counts_on_over_a_reload_and_an_upgrade() {
    const CUSTOMERS: &str = "route_messages_total{route=\"customers\",outcome=\"accepted\"}";
    let (first, second) = (sink(), sink());
    let gateway = routed(first.address, second.address, "");
    send_both(&gateway);
    let file = gateway.folder().join("gateway.toml");
    let config = std::fs::read_to_string(&file).unwrap();
    // Another place in the list, and another route is gone.
    let more = "[[route]]\nname = \"before\"\nrecipients = [\"first.second.test\"]\nbackend = \"second\"\n[[route]]\nname = \"customers\"";
    let (head, _) = config.split_once("[[route]]\nclients").unwrap();
    std::fs::write(&file, head.replace("[[route]]\nname = \"customers\"", more)).unwrap();
    let reloaded = run(gateway.folder(), &["reload", "--socket", "control.sock"]);
    assert!(reloaded.status.success(), "{}", said(&reloaded));
    send_both(&gateway);
    assert_eq!(number(&gateway, CUSTOMERS), Some(2.0));
    let status = gateway.status();
    let names: Vec<_> = status["routes"].as_array().unwrap().iter().map(|route| &route["name"]).collect();
    assert_eq!(names, ["before", "customers", "none"]);
    let upgraded = gateway.upgrade();
    assert!(upgraded.status.success(), "{}", said(&upgraded));
    assert_eq!(number(&gateway, CUSTOMERS), Some(2.0));
    send_both(&gateway);
    assert_eq!(number(&gateway, CUSTOMERS), Some(3.0));
    assert_eq!(number(&gateway, "route_messages_total{route=\"none\",outcome=\"accepted\"}"), Some(3.0));
}

/// Each backend has users of its own, and refuses all others: whoever asked it about another's would learn nothing.
#[test]
fn each_route_is_proven_with_a_recipient_of_its_own_and_only_the_open_one_is_held() {
    let first =
        LocalSink::start_for(&["example.com"], Options { identity: SinkIdentity::Xclient, ..Options::default() });
    let confused = Options { trust: vec!["127.0.0.0/8".parse().unwrap()], ..Options::default() };
    let second = LocalSink::start_for(&["second.test"], confused);
    let front: SocketAddr = (address(), 2525).into();
    let more = format!(
        "[timeouts]\nconnect = \"2s\"\n[proof]\npause = \"0s\"\nforeign_domain = \"elsewhere.test\"\n\
         [[backend]]\nname = \"second\"\naddress = \"{}\"\nidentity = \"none\"\n\
         [[route]]\nname = \"customers\"\nrecipients = [\"second.test\"]\nlocal = true\nbackend = \"second\"\n",
        second.address
    );
    let config = configuration(front, "", first.address, "xclient", &more);
    let gateway = LocalGateway::start(front, &config.replace("[relay]\n", "[relay]\non_open = \"defer\"\n"));
    gateway.log().wait_for(&["ERROR", "OPEN RELAY", "backend=\"second\"", "451 until it is mended"]);
    let begun = Instant::now();
    let state = |backend: usize| gateway.status()["backends"][backend]["proof"]["state"].clone();
    while state(0) == "never-run" {
        assert!(begun.elapsed() < Duration::from_secs(60), "the other is proven too");
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!((state(0), state(1)), ("safe-unproven".into(), "open".into()));

    let mut client = gateway.client(address());
    client.must("EHLO client.test");
    for (recipient, code) in [("b@second.test", 451), ("a@example.com", 250), ("b@second.test", 452)] {
        client.command("MAIL FROM:<a@client.test>");
        assert_eq!(client.command(&format!("RCPT TO:<{recipient}>")).code, code, "{recipient}");
    }
    client.must("DATA");
    client.send(b"Subject: x\r\n\r\none\r\n.\r\n");
    assert_eq!(client.reply().code, 250);
    client.quit();
    assert_eq!(first.message().recipients, ["a@example.com"]);
    let routes = gateway.status()["routes"].clone();
    let held: Vec<_> = routes.as_array().unwrap().iter().map(|route| (&route["name"], &route["hold"])).collect();
    assert_eq!(held, [(&"customers".into(), &"defer".into()), (&"none".into(), &serde_json::Value::Null)]);

    let told = said(&run(gateway.folder(), &["selftest", "-c", "gateway.toml"]));
    let doors: Vec<_> = told.lines().filter(|line| line.contains("front door by ")).collect();
    assert_eq!(doors.len(), 2, "{told}");
    assert!(doors[0].contains("by none") && doors[1].contains("by customers"), "{told}");
}
