//! The client's host name, from DNS to the backend: only what its own zone confirms is told, whatever the reverse zone
//! says, and no name server holds a client up for long.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use smtp_gateway::sink::{ClientName, Options, SinkIdentity};
use tests::peers::available;
use tests::peers::client::Client;
use tests::peers::dns::{Answer, Dns, Dnsmasq};
use tests::peers::local::{LocalGateway, LocalSink, address, configuration};

/// A gateway whose clients are whoever its load balancer says they are.
struct Scene {
    balancer: Ipv4Addr,
    gateway: LocalGateway,
    sink: LocalSink,
}

impl Scene {
    fn new(more: &str) -> Self {
        let sink = LocalSink::start(Options { identity: SinkIdentity::Xclient, ..Options::default() });
        let (balancer, front) = (address(), (address(), 2525).into());
        let listed = format!("proxy_protocol_from = [\"{balancer}/32\"]");
        let gateway = LocalGateway::start(front, &configuration(front, &listed, sink.address, "xclient", more));
        Self { balancer, gateway, sink }
    }

    /// Sends a message as this client; the name that the backend is told.
    fn name_of(&self, client: &str) -> ClientName {
        let mut stream = self.gateway.connect_from(self.balancer);
        let (family, to) = if client.contains(':') { ("TCP6", "2001:db8::1") } else { ("TCP4", "192.0.2.1") };
        stream.write_all(format!("PROXY {family} {client} {to} 4711 25\r\n").as_bytes()).unwrap();
        let mut smtp = Client::over(stream);
        smtp.expect(2);
        let reply = smtp.mail("a@client.test", "b@example.com", b"Subject: x\r\n\r\n");
        assert_eq!(reply.code, 250, "{client}: {reply:?}");
        smtp.quit();
        let message = self.sink.message();
        assert_eq!(message.client.believed, client.parse().ok());
        message.client.name.clone()
    }
}

fn known(name: &str) -> ClientName {
    ClientName::Known(name.to_owned())
}

fn dns<const N: usize>(zone: [(&'static str, Answer); N]) -> (Dns, Scene) {
    let dns = Dns::start(zone);
    let scene = Scene::new(&dns.section(""));
    (dns, scene)
}

#[test]
fn a_confirmed_name_is_told() {
    let (_dns, scene) = dns([
        ("203.0.113.9", Answer::name("Mail.Client.example")),
        ("mail.client.example", Answer::address("203.0.113.9")),
        ("2001:db8::9", Answer::name("six.client.example")),
        ("six.client.example", Answer::Addresses(vec!["2001:db8::8".parse().unwrap(), "2001:db8::9".parse().unwrap()])),
        ("203.0.113.10", Answer::name("xn--bcher-kva.example")),
        ("xn--bcher-kva.example", Answer::address("203.0.113.10")),
    ]);
    assert_eq!(scene.name_of("203.0.113.9"), known("Mail.Client.example"));
    assert_eq!(scene.name_of("2001:db8::9"), known("six.client.example"));
    assert_eq!(scene.name_of("203.0.113.10"), known("xn--bcher-kva.example"));
}

/// The reverse zone is the client's own to write; the name's zone is not.
#[test]
fn a_name_that_is_not_confirmed_is_none() {
    let (_dns, scene) = dns([
        ("203.0.113.9", Answer::name("mail.bank.example")),
        ("mail.bank.example", Answer::Addresses(vec!["192.0.2.80".parse().unwrap(), "2001:db8::80".parse().unwrap()])),
        ("203.0.113.10", Answer::name("nobody.example")),
        ("2001:db8::10", Answer::name("mail.bank.example")),
        ("203.0.113.11", Answer::name("localhost")),
    ]);
    for client in ["203.0.113.9", "203.0.113.10", "2001:db8::10", "203.0.113.11", "203.0.113.99", "2001:db8::99"] {
        assert_eq!(scene.name_of(client), ClientName::Unavailable, "{client}");
    }
}

/// Among several names, the first that is confirmed is the one.
#[test]
fn one_good_name_among_bad_ones_is_told() {
    let names = ["no.example", "bad name.example", "good.example"].map(|name| name.as_bytes().to_vec());
    let (_dns, scene) =
        dns([("203.0.113.9", Answer::Names(names.to_vec())), ("good.example", Answer::address("203.0.113.9"))]);
    assert_eq!(scene.name_of("203.0.113.9"), known("good.example"));
}

/// CVE-2026-28753: whoever writes the reverse zone writes no command.
#[test]
fn a_name_that_is_no_host_name_is_none() {
    let long = format!("{}.example", ["a".repeat(61), "b".repeat(61), "c".repeat(61), "d".repeat(59)].join("."));
    let too_long = format!("{long}.e2");
    let cases: [(&'static str, &[u8]); 9] = [
        ("203.0.113.20", b"two words.example"),
        ("203.0.113.21", b"a\r\nMAIL FROM:<x@y>\r\n.example"),
        ("203.0.113.22", b"a ADDR=127.0.0.1.example"),
        ("203.0.113.23", b"a+0D+0A.example"),
        ("203.0.113.24", b"-a.example"),
        ("203.0.113.25", "büro.example".as_bytes()),
        ("203.0.113.26", b"a\0b.example"),
        ("203.0.113.27", b"203.0.113.27."),
        ("203.0.113.28", b"[UNAVAILABLE].example"),
    ];
    let mut zone: Vec<(&'static str, Answer)> = Vec::new();
    for (client, name) in cases {
        zone.push((client, Answer::name(name)));
        zone.push((Box::leak(String::from_utf8_lossy(name).into_owned().into_boxed_str()), Answer::address(client)));
    }
    for (client, name) in [("203.0.113.30", &long), ("203.0.113.31", &too_long)] {
        zone.push((client, Answer::name(name)));
        zone.push((Box::leak(name.clone().into_boxed_str()), Answer::address(client)));
    }
    let dns = Dns::start(zone);
    let scene = Scene::new(&dns.section(""));
    for (client, name) in cases {
        assert_eq!(scene.name_of(client), ClientName::Unavailable, "{}", name.escape_ascii());
    }
    assert_eq!(scene.name_of("203.0.113.30"), known(&long), "{} bytes", long.len());
    assert!(matches!(scene.name_of("203.0.113.31"), ClientName::Unavailable | ClientName::TemporarilyUnavailable));
}

#[test]
fn a_look_up_that_fails_is_said_to_have_failed() {
    let (_dns, scene) = dns([
        ("203.0.113.9", Answer::Code(2)),
        ("203.0.113.10", Answer::Code(5)),
        ("203.0.113.11", Answer::name("broken.example")),
        ("broken.example", Answer::Code(2)),
    ]);
    for client in ["203.0.113.9", "203.0.113.10", "203.0.113.11"] {
        assert_eq!(scene.name_of(client), ClientName::TemporarilyUnavailable, "{client}");
    }
}

#[test]
fn a_lost_or_cut_answer_is_asked_for_again() {
    let late = |answer| Answer::Late(Box::new(answer));
    let long = |answer| Answer::Long(Box::new(answer));
    let (_dns, scene) = dns([
        ("203.0.113.9", late(Answer::name("late.example"))),
        ("late.example", Answer::address("203.0.113.9")),
        ("203.0.113.10", long(Answer::name("long.example"))),
        ("long.example", long(Answer::address("203.0.113.10"))),
    ]);
    assert_eq!(scene.name_of("203.0.113.9"), known("late.example"));
    assert_eq!(scene.name_of("203.0.113.10"), known("long.example"));
}

/// DNS may delay a client, and never hold it: neither beyond `dns.timeout`, nor, where that is longer, beyond the time
/// that the backend's session may take to open.
#[test]
fn a_silent_name_server_delays_a_client_for_its_timeout() {
    let dns = Dns::start([("203.0.113.9", Answer::Silence)]);
    for (more, least, most) in
        [("timeout = \"600ms\"\n", 600, 2000), ("timeout = \"20s\"\n[timeouts]\nhandshake = \"700ms\"\n", 700, 3000)]
    {
        let scene = Scene::new(&dns.section(more));
        let since = Instant::now();
        assert_eq!(scene.name_of("203.0.113.9"), ClientName::TemporarilyUnavailable);
        let taken = since.elapsed();
        assert!((Duration::from_millis(least)..Duration::from_millis(most)).contains(&taken), "{more}: {taken:?}");
    }
}

/// Nobody listens there.
#[test]
fn an_absent_name_server_is_a_failed_look_up() {
    let scene = Scene::new(&format!("[dns]\nservers = [\"{}:53\"]\ntimeout = \"1s\"\n", address()));
    assert_eq!(scene.name_of("203.0.113.9"), ClientName::TemporarilyUnavailable);
}

#[test]
fn a_client_that_comes_again_is_not_asked_about_again() {
    let (dns, scene) =
        dns([("203.0.113.9", Answer::name("again.example")), ("again.example", Answer::address("203.0.113.9"))]);
    for _ in 0..3 {
        assert_eq!(scene.name_of("203.0.113.9"), known("again.example"));
        assert_eq!(scene.name_of("203.0.113.10"), ClientName::Unavailable);
    }
    for about in ["203.0.113.9", "again.example", "203.0.113.10"] {
        assert_eq!(dns.asked(about), 1, "{about}");
    }
}

#[test]
fn without_dns_there_are_no_names() {
    assert_eq!(Scene::new("").name_of("203.0.113.9"), ClientName::Unavailable);
}

/// A name server that many people run, asked as their gateway would ask it.
#[test]
fn a_real_dnsmasq_answers() {
    if !available("names from a real dnsmasq", &["dnsmasq"]) {
        return;
    }
    let dnsmasq =
        Dnsmasq::start(&["mail.client.example,203.0.113.9,2001:db8::9"], &["10.113.0.203.in-addr.arpa,bank.example"]);
    let scene = Scene::new(&format!("[dns]\nservers = [\"{}\"]\n", dnsmasq.address));
    for _ in 0..2 {
        assert_eq!(scene.name_of("203.0.113.9"), known("mail.client.example"));
        assert_eq!(scene.name_of("2001:db8::9"), known("mail.client.example"));
        assert_eq!(scene.name_of("203.0.113.10"), ClientName::Unavailable);
        assert_eq!(scene.name_of("203.0.113.11"), ClientName::Unavailable);
    }
    dnsmasq.log().wait_for_count(&["query[PTR] 9.113.0.203.in-addr.arpa "], 1);
    let again = dnsmasq.log().text().matches("query[PTR] 9.113.0.203").count();
    assert_eq!(again, 1, "the second session is answered from the cache");
}
