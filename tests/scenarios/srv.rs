//! A backend whose servers DNS names, with a real name server: they come, go and come back, and mail finds them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use smtp_gateway::sink::{Options, SinkIdentity};
use tests::peers::available;
use tests::peers::dns::Dnsmasq;
use tests::peers::local::{LocalGateway, LocalSink, address, configuration};

const NAME: &str = "_smtp._tcp.mail.test";

fn record(sink: &LocalSink, priority: u16) -> String {
    // A name that every system knows; sinks listen on every address of 127.0.0.0/8 that they are given.
    format!("--srv-host={NAME},localhost,{},{priority},1", sink.address.port())
}

/// On 127.0.0.1, each at a port of its own.
fn sink() -> LocalSink {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    LocalSink::start(Options { listen, identity: SinkIdentity::Xclient, ..Options::default() })
}

/// The names of its servers, and what `status` warns of.
fn servers(gateway: &LocalGateway) -> (Vec<String>, String) {
    let status = gateway.status();
    let names = status["backends"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap().to_owned());
    (names.collect(), status["warnings"].to_string())
}

fn waits_for(gateway: &LocalGateway, what: impl Fn(&(Vec<String>, String)) -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let seen = servers(gateway);
        if what(&seen) {
            return;
        }
        assert!(Instant::now() < until, "{seen:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn sends(gateway: &LocalGateway) -> u16 {
    let mut client = gateway.client(address());
    client.must("EHLO client.test");
    client.command("MAIL FROM:<a@client.test>").code
}

#[test]
fn servers_come_from_dns_and_change_with_it() {
    if !available("servers by SRV records", &["dnsmasq"]) {
        return;
    }
    let (one, other) = (sink(), sink());
    let place = SocketAddr::from((address(), 5353));
    // As short a time to live as DNS has: it is asked again every five seconds.
    let serves = |records: &[String]| {
        let mut options = vec!["--local-ttl=1".to_owned()];
        options.extend_from_slice(records);
        Dnsmasq::start_at(place, &options)
    };
    let dns = serves(&[record(&one, 10)]);
    let front = SocketAddr::from((address(), 2525));
    let resolver = format!("[dns]\nservers = [\"{place}\"]\ntimeout = \"1s\"\n");
    let text = configuration(front, "", "192.0.2.25:25".parse().unwrap(), "xclient", &resolver);
    let gateway =
        LocalGateway::start(front, &text.replace("address = \"192.0.2.25:25\"", &format!("srv = \"{NAME}\"")));
    assert_eq!(servers(&gateway).0, ["backend/localhost"]);
    let mut first = gateway.client(address());
    assert_eq!(first.mail("a@client.test", "b@example.com", b"Subject: one\r\n\r\n").code, 250);
    one.message();

    // Another takes its place: who is in a session goes on with the first.
    first.must("MAIL FROM:<a@client.test>");
    drop(dns);
    let dns = serves(&[record(&other, 10)]);
    let port = format!(":{}", other.address.port());
    waits_for(&gateway, |_| gateway.status()["backends"][0]["address"].as_str().unwrap().ends_with(&port));
    let news = gateway.log().wait_for(&["DNS names other servers"]);
    assert!(news.contains(&format!("backend `backend`: localhost{port}")), "{news}");
    assert!(!gateway.log().text().contains("reloaded"), "nobody has reloaded it");
    first.must("RCPT TO:<b@example.com>");
    first.must("DATA");
    first.send(b"Subject: two\r\n\r\n.\r\n");
    assert_eq!(first.reply().code, 250);
    one.message();
    let mut second = gateway.client(address());
    assert_eq!(second.mail("a@client.test", "b@example.com", b"Subject: three\r\n\r\n").code, 250);
    other.message();

    // Nobody answers: all stays as it was, and is told.
    drop(dns);
    waits_for(&gateway, |(names, told)| names.len() == 1 && told.contains("and it goes on with those that are known"));
    assert_eq!(sends(&gateway), 250);

    // Both, one of them a spare.
    let dns = serves(&[record(&one, 10), record(&other, 20)]);
    waits_for(&gateway, |(names, told)| names.len() == 2 && !told.contains(NAME));
    assert_eq!(sends(&gateway), 250);

    // The service is denied: mail is put off.
    drop(dns);
    let _dns = serves(&[format!("--srv-host={NAME}")]);
    waits_for(&gateway, |(names, told)| *names == ["backend"] && told.contains("no such service"));
    assert_eq!(sends(&gateway), 451);
}
