//! Abuse ends in a ban, and bans in time: by what sessions find, by hand, and behind load balancers.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::Value;
use smtp_gateway::sink::{Options, SinkIdentity};
use tests::peers::client::{Client, Reply, stuffed};
use tests::peers::local::{LocalGateway, LocalSink, address, configuration, run};

const MESSAGE: &[u8] = b"Subject: x\r\n\r\nbody\r\n";
/// What a client hears that is banned.
const BANNED: &str = "421 4.7.1 Your address is banned for a while";

/// A gateway behind a load balancer, through which clients of any address come.
struct Balanced {
    balancer: Ipv4Addr,
    gateway: LocalGateway,
    sink: LocalSink,
}

impl Balanced {
    fn start(more: &str) -> Self {
        Self::start_relaying("", more)
    }

    /// The same with more keys of `[relay]`.
    fn start_relaying(relay: &str, more: &str) -> Self {
        let (balancer, front) = (address(), (address(), 2525).into());
        let sink = LocalSink::start(Options { identity: SinkIdentity::Xclient, ..Options::default() });
        let listed = format!("proxy_protocol_from = [\"{balancer}/32\"]");
        let configuration = configuration(front, &listed, sink.address, "xclient", more);
        let configuration = configuration.replace("[relay]\n", &format!("[relay]\n{relay}"));
        Self { balancer, gateway: LocalGateway::start(front, &configuration), sink }
    }

    /// A connection in the name of this client, on which nothing was read yet, and `early` was said.
    fn connect(&self, client: &str, early: &str) -> Client {
        let mut stream = self.gateway.connect_from(self.balancer);
        let family = if client.contains(':') { "TCP6" } else { "TCP4" };
        let own = if client.contains(':') { "2001:db8::1" } else { "192.0.2.1" };
        stream.write_all(format!("PROXY {family} {client} {own} 4711 25\r\n{early}").as_bytes()).unwrap();
        Client::over(stream)
    }

    fn greeting(&self, client: &str) -> Reply {
        self.connect(client, "").reply()
    }

    fn client(&self, client: &str) -> Client {
        let mut client = self.connect(client, "");
        client.expect(2);
        client
    }

    fn assert_banned(&self, client: &str) {
        assert_eq!(self.greeting(client).lines, [BANNED], "{client}");
    }

    fn run(&self, arguments: &[&str]) -> Output {
        run(self.gateway.folder(), &[arguments, &["-c", "gateway.toml"]].concat())
    }

    /// Runs a verb that must succeed.
    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A scanner: sessions of this client that try to relay, several times each.
fn scan(setting: &Balanced, client: &str, sessions: usize) {
    for _ in 0..sessions {
        setting.client(client).attempt_relay(4);
    }
}

/// The client is banned, not the load balancer, and the session that brought it about goes on.
#[test]
fn relay_attempts_end_in_a_ban() {
    let setting = Balanced::start("");
    scan(&setting, "203.0.113.9", 4);
    let mut client = setting.client("203.0.113.9");
    client.attempt_relay(4);
    setting.assert_banned("203.0.113.9");
    setting.client("203.0.113.10").quit();

    client.must("MAIL FROM:<a@client.test>");
    client.must("RCPT TO:<b@example.com>");
    client.must("DATA");
    client.send(&stuffed(MESSAGE));
    assert_eq!(client.reply().code, 250);
    assert_eq!(setting.sink.message_from(), Some("203.0.113.9".parse().unwrap()));

    let ban = &setting.json(&["bans"])["bans"][0];
    assert_eq!(ban["address"], "203.0.113.9");
    assert_eq!((&ban["reason"], &ban["by"]), (&"20 × relay attempt".into(), &"offences".into()));
    assert_eq!(ban["until"].as_u64().unwrap() - ban["since"].as_u64().unwrap(), 600);
    assert_eq!(ban["connections_refused"], 1);
    let status = setting.gateway.status();
    assert_eq!((&status["xdp"]["bans"], &status["sessions"]["refused_total"]), (&1.into(), &1.into()));
    setting.gateway.log().wait_for(&["banned", "source=203.0.113.9", "reason=\"20 × relay attempt\"", "seconds=600"]);
}

#[test]
fn an_ipv6_client_is_banned_with_its_64() {
    let setting = Balanced::start("");
    scan(&setting, "2001:db8::9", 5);
    setting.assert_banned("2001:db8::ffff");
    setting.client("2001:db8:0:1::9").quit();
    assert_eq!(setting.json(&["bans"])["bans"][0]["address"], "2001:db8::/64");
}

/// What a client does once more.
type Offence<'a> = &'a dyn Fn(&str);

/// Everything that speaks against a client, until it is banned for it, and what `bans` says of it.
#[test]
fn every_offence_leads_to_a_ban() {
    let setting = Balanced::start("[limits]\nerrors = 2\nidle_commands = 2\n");
    let cases: [(&str, usize, &str, Offence<'_>); 6] = [
        ("203.0.113.1", 4, "mail before its turn", &|client| {
            assert_eq!(setting.connect(client, "EHLO early\r\nMAIL FROM:<a@client.test>\r\n").reply().code, 554);
        }),
        ("203.0.113.2", 4, "claim to be somebody else", &|client| {
            assert_eq!(setting.client(client).command("XCLIENT ADDR=192.0.2.1").code, 550);
        }),
        ("203.0.113.3", 5, "session of errors", &|client| {
            let mut smtp = setting.client(client);
            let codes = [(); 3].map(|()| smtp.command("NONSENSE").code);
            assert_eq!((codes, smtp.reply().code), ([500; 3], 421));
        }),
        ("203.0.113.4", 10, "session without mail", &|client| {
            let mut smtp = setting.client(client);
            assert_eq!([(); 3].map(|()| smtp.command("NOOP").code), [250, 250, 421]);
        }),
        ("203.0.113.5", 4, "attempt to smuggle a message", &|client| {
            let mut smtp = setting.client(client);
            smtp.envelope("a@client.test", "b@example.com", "");
            smtp.send(b"x\n.\nMAIL FROM:<c@client.test>\r\n.\r\n");
            assert_eq!(smtp.reply().code, 550);
        }),
        ("203.0.113.6", 2, "flood", &|client| {
            let mut smtp = setting.client(client);
            smtp.send(&[b'x'; 300 * 1024]);
            assert_eq!(smtp.reply().code, 421);
        }),
    ];
    for (client, times, offence, offend) in cases {
        for _ in 0..times {
            offend(client);
        }
        setting.assert_banned(client);
        let reason = &setting.json(&["bans"])["bans"][0]["reason"];
        assert_eq!(*reason, format!("{times} × {offence}"), "{client}");
    }
}

/// What a correct mail server does because of its users, ten times more than a ban would take: nothing of it is one, neither
/// from a server that brings mail nor, for one message, from one that does not.
#[test]
fn a_mail_server_is_not_banned_for_its_users() {
    let setting = Balanced::start("");
    let deliver = || {
        let mut client = setting.client("203.0.113.9");
        assert_eq!(client.mail("a@client.test", "b@example.com", MESSAGE).code, 250);
        client
    };
    deliver().quit();
    for _ in 0..10 {
        let mut client = setting.client("203.0.113.9");
        client.attempt_relay(10);
        client.must("MAIL FROM:<a@client.test>");
        assert_eq!(client.command("RCPT TO:<user%tag@example.com>").code, 550);
    }
    deliver().quit();

    let mut one_message = setting.client("203.0.113.10");
    one_message.must("EHLO client.test");
    one_message.must("MAIL FROM:<a@client.test>");
    for number in 0..15 {
        assert_eq!(one_message.command(&format!("RCPT TO:<user{number}@mail.example.com>")).code, 550);
    }
    setting.client("203.0.113.10").quit();
    assert_eq!(setting.json(&["bans"])["bans"], Value::Array(Vec::new()));

    // The administrator is asked whether the domain is one that was forgotten.
    let status = setting.gateway.status();
    let refused: Vec<_> =
        status["refused_domains"].as_array().unwrap().iter().map(|d| (&d["domain"], &d["refused_total"])).collect();
    assert_eq!(refused[1], (&"mail.example.com".into(), &15.into()));
    assert!(said(&setting.run(&["status"]).stdout).contains("mail.example.com, 15×"));
}

/// A monitor that says all it has to say when it connects is refused, and never banned for it.
#[test]
fn a_monitor_that_does_not_wait_is_not_banned() {
    let setting = Balanced::start("");
    for _ in 0..12 {
        assert_eq!(setting.connect("203.0.113.9", "EHLO monitor\r\nQUIT\r\n").reply().code, 554);
    }
    setting.client("203.0.113.9").quit();
}

/// Mail that comes in abundance speaks against nobody.
#[test]
fn who_has_much_mail_is_not_banned() {
    let setting = Balanced::start("[limits]\nmessages_per_session = 1\n");
    for _ in 0..12 {
        let mut client = setting.client("203.0.113.9");
        assert_eq!(client.mail("a@client.test", "b@example.com", MESSAGE).code, 250);
        assert_eq!(client.command("MAIL FROM:<a@client.test>").code, 421);
    }
}

#[test]
fn without_bans_nobody_is_banned() {
    let setting = Balanced::start("[bans]\nenabled = false\n");
    scan(&setting, "203.0.113.9", 8);
    setting.client("203.0.113.9").quit();
    assert_eq!(said(&setting.run(&["bans"]).stdout), "nobody is banned\n");
}

#[test]
fn a_ban_by_hand_and_back() {
    let setting = Balanced::start("[bans]\nallow = [\"198.51.100.0/24\"]\n");
    let mut within = setting.client("203.0.113.9");
    let output = setting.run(&["ban", "203.0.113.9", "--for", "2h", "--reason", "ticket 4711"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(said(&output.stdout), "203.0.113.9 is banned for 2 h\n");
    setting.assert_banned("203.0.113.9");
    // Who is in stays in.
    assert_eq!(within.mail("a@client.test", "b@example.com", MESSAGE).code, 250);

    let ban = setting.json(&["ban", "2001:db8:7::/48", "--for", "5m"]);
    assert_eq!((&ban["address"], &ban["by"]), (&"2001:db8:7::/48".into(), &"administrator".into()));
    setting.assert_banned("2001:db8:7:8::9");
    let page = said(&setting.run(&["bans"]).stdout);
    let lines: Vec<_> = page.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(lines[0], "BANNED BY SINCE LEFT REFUSED DROPPED WHY");
    assert!(page.contains("203.0.113.9") && page.contains("administrator") && page.contains("ticket 4711"), "{page}");

    let output = setting.run(&["unban", "203.0.113.9"]);
    assert_eq!(said(&output.stdout), "203.0.113.9 is let in again; it was banned for: ticket 4711\n");
    setting.client("203.0.113.9").quit();
}

/// The contract: 2 when it is refused, with one sentence that says why.
#[test]
fn what_is_refused_exits_2() {
    let setting = Balanced::start("[bans]\nallow = [\"198.51.100.0/24\"]\n");
    let balancer = setting.balancer.to_string();
    for (arguments, why) in [
        (["ban", "198.51.100.7"].as_slice(), "198.51.100.7 is never banned: `bans.allow` names 198.51.100.0/24"),
        (&["ban", "127.0.0.1"], "127.0.0.1 is never banned: it is this machine itself"),
        (&["ban", &balancer], "it is this machine itself"),
        (&["ban", "0.0.0.0/0"], "0.0.0.0/0 is too wide to ban"),
        (&["ban", "192.0.2.1/24"], "write 192.0.2.0/24 for the whole network, or 192.0.2.1"),
        (&["ban", "mail.example.com"], "write an address such as 192.0.2.1"),
        (&["ban", "192.0.2.1", "--for", "1d"], "write a whole number and `s`, `m` or `h`"),
        (&["ban", "192.0.2.1", "--reason", " "], "a ban has a reason"),
        (&["unban", "192.0.2.1"], "192.0.2.1 is not banned"),
    ] {
        let output = setting.run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(said(&output.stderr).contains(why), "{arguments:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
    }
    assert_eq!(setting.json(&["bans"])["bans"], Value::Array(Vec::new()));
    for verb in [["ban", "192.0.2.1"].as_slice(), &["unban", "192.0.2.1"], &["bans"], &["top"]] {
        let output = run(setting.gateway.folder(), &[verb, &["--socket", "nobody.sock"]].concat());
        assert_eq!(output.status.code(), Some(3), "{verb:?}: {output:?}");
    }
}

#[test]
fn a_ban_ends_by_itself() {
    let setting = Balanced::start("");
    let since = Instant::now();
    assert!(setting.run(&["ban", "203.0.113.9", "--for", "1s"]).status.success());
    setting.assert_banned("203.0.113.9");
    setting.gateway.log().wait_for(&["ban expired", "source=203.0.113.9", "refused=1"]);
    assert!(since.elapsed() >= Duration::from_secs(1));
    setting.client("203.0.113.9").quit();
    assert_eq!(setting.gateway.status()["xdp"]["bans"], 0);
}

/// Whoever speaks from loopback can do no wrong; neither can whom `bans.allow` or `relay.allowed_networks` names. Everybody
/// else is banned for the same.
#[test]
fn the_protected_are_never_banned() {
    let sink = LocalSink::start(Options { identity: SinkIdentity::Xclient, ..Options::default() });
    let front = (address(), 2525).into();
    let gateway = LocalGateway::start(front, &configuration(front, "", sink.address, "xclient", ""));
    let from = address();
    for _ in 0..6 {
        gateway.client(from).attempt_relay(4);
    }
    gateway.client(from).quit();

    let relay = "allowed_networks = [\"203.0.113.0/24\"]\n";
    let setting = Balanced::start_relaying(relay, "[bans]\nallow = [\"198.51.100.0/24\"]\n");
    for (client, is_banned) in [("198.51.100.9", false), ("203.0.113.9", false), ("192.0.2.9", true)] {
        for _ in 0..6 {
            let mut smtp = setting.connect(client, "");
            if smtp.reply().code != 220 {
                break;
            }
            assert_eq!(smtp.command("XCLIENT ADDR=192.0.2.1").code, 550);
        }
        assert_eq!(setting.greeting(client).lines == [BANNED], is_banned, "{client}");
    }
}

#[test]
fn top_shows_who_is_here() {
    let setting = Balanced::start("");
    let _sessions = [setting.client("203.0.113.9"), setting.client("203.0.113.9"), setting.client("2001:db8::1")];
    let top = setting.json(&["top", "-n", "5"]);
    assert_eq!(top["mode"], "off");
    let sources: Vec<_> = top["sources"].as_array().unwrap().iter().map(|s| (&s["address"], &s["active"])).collect();
    assert_eq!(sources, [(&"203.0.113.9".into(), &2.into()), (&"2001:db8::/64".into(), &1.into())]);
    assert_eq!(setting.json(&["top", "-n", "1"])["sources"].as_array().unwrap().len(), 1);
    assert_eq!(setting.gateway.status()["top_sources"][0]["address"], "203.0.113.9");
    let page = said(&setting.run(&["top"]).stdout);
    assert!(page.starts_with("the kernel side is off: packets are not counted\n\nSOURCE"), "{page}");
}

/// Without a kernel side too: bans outlive the gateway, what cannot be read is set aside, and where nothing can be kept it is
/// said.
#[test]
fn bans_outlive_a_restart() {
    use smtp_gateway::sink::{Options, SinkIdentity};
    use tests::peers::local::{LocalGateway, LocalSink, address, configuration, run};

    let sink = LocalSink::start(Options { identity: SinkIdentity::Xclient, ..Options::default() });
    let front = (address(), 2525).into();
    let state = tempfile::tempdir().unwrap();
    let config = configuration(front, "", sink.address, "xclient", "");
    let kept = config.replace("state = \"state\"", &format!("state = \"{}\"", state.path().join("of/bans").display()));
    let ban = |gateway: &LocalGateway| {
        let output = run(
            gateway.folder(),
            &["ban", "203.0.113.0/24", "--for", "12h", "--reason", "x", "--socket", "control.sock"],
        );
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let bans = |gateway: &LocalGateway| {
        let output = run(gateway.folder(), &["bans", "--socket", "control.sock"]);
        String::from_utf8(output.stdout).unwrap()
    };
    let mut gateway = LocalGateway::start(front, &kept);
    assert_eq!(ban(&gateway), "203.0.113.0/24 is banned for 12 h\n");
    gateway.terminate();
    assert_eq!(gateway.wait().code(), Some(0));
    // Nor does kill -9 lift what was written.
    let gateway = LocalGateway::start(front, &kept);
    assert!(bans(&gateway).contains("203.0.113.0/24"), "{}", bans(&gateway));
    drop(gateway);
    let gateway = LocalGateway::start(front, &kept);
    assert!(bans(&gateway).contains("203.0.113.0/24"), "{}", bans(&gateway));
    drop(gateway);
    std::fs::write(state.path().join("of/bans/bans.json"), "half a pag").unwrap();
    let gateway = LocalGateway::start(front, &kept);
    assert_eq!(bans(&gateway), "nobody is banned\n");
    let warnings = gateway.status()["warnings"].to_string();
    assert!(warnings.contains("set aside") && state.path().join("of/bans/bans.json.damaged").exists(), "{warnings}");
    drop(gateway);
    // A directory that nobody made is none.
    if !std::path::Path::new("/var/lib/smtp-gateway").exists() {
        let mut gateway = LocalGateway::start(front, &config.replace("state = \"state\"\n", ""));
        assert!(ban(&gateway).contains("it ends with the gateway"));
        gateway.terminate();
        gateway.wait();
        gateway.log().wait_for(&["bans are in force that will not be kept", "bans=1"]);
    }
}
