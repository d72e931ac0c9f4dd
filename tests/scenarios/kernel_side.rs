//! Bans and counts at the card: two hosts over a cable, the real gateway between, the program in native mode.

mod foreign;

use std::fs;
use std::io;
use std::net::TcpStream;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use smtp_gateway::sink::{self, Options, Sink, SinkIdentity};
use tests::kernel::pins::Pins;
use tests::peers::client::{Client, stuffed};
use tests::peers::gateway::Gateway;
use tests::peers::net::{BACKEND, CLIENT, FRONT, Family, Host, Trio};
use tests::peers::{LOCAL_DOMAIN, available};

const MESSAGE: &[u8] = b"Subject: x\r\n\r\nbody\r\n";
/// Within which a ban must hold.
const AT_ONCE: Duration = Duration::from_millis(100);
/// How long a connection is tried that is to be dropped; a first SYN is repeated after a second.
const DROPPED: Duration = Duration::from_millis(400);

/// Fields go in this order when it is dropped: programs before their network.
struct Setting {
    gateway: Option<Gateway>,
    sink: Sink,
    trio: Trio,
    pins: Pins,
}

impl Setting {
    fn new(scenario: &str, mode: &str) -> Option<Self> {
        Self::with(scenario, &format!("mode = \"{mode}\"\n"), &[])
    }

    fn with(scenario: &str, xdp: &str, confinement: &[&str]) -> Option<Self> {
        if !available(scenario, &[]) {
            return None;
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
        let mut setting = Self { gateway: None, sink, trio, pins };
        setting.start(xdp, confinement);
        Some(setting)
    }

    fn start(&mut self, xdp: &str, confinement: &[&str]) {
        let pins = self.pins.folder();
        let more = format!("[xdp]\ninterfaces = [\"client\"]\npins = \"{}\"\n{xdp}", pins.display());
        let backend = self.sink.address();
        self.gateway = Some(Gateway::start_confined(&self.trio, backend, "proxy-v2", &more, confinement));
    }

    fn gateway(&self) -> &Gateway {
        self.gateway.as_ref().unwrap()
    }

    /// SIGKILL.
    fn kill(&mut self) {
        drop(self.gateway.take());
    }

    fn status(&self) -> Value {
        self.gateway().json(&["status"])
    }

    fn client(&self, family: Family) -> Client {
        Client::to_gateway(&self.trio.client, family)
    }

    fn try_connect(&self, family: Family, patience: Duration) -> io::Result<TcpStream> {
        let to = family.smtp(FRONT);
        self.trio.client.within(|| TcpStream::connect_timeout(&to, patience))
    }

    fn assert_dropped(&self, family: Family) {
        let since = Instant::now();
        // On a busy machine a ban may reach the card a moment later.
        let error = loop {
            match self.try_connect(family, DROPPED) {
                Err(error) => break error,
                Ok(_) => assert!(since.elapsed() < Duration::from_secs(5), "a banned client cannot connect"),
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "dropped, and not refused");
    }

    fn verb(&self, arguments: &[&str]) {
        let output = self.gateway().run(arguments);
        assert!(output.status.success(), "{output:?}");
    }
}

/// TCP segments that a host has sent, repetitions included.
fn segments_sent(host: &Host) -> u64 {
    let numbers = host.within(|| fs::read_to_string("/proc/thread-self/net/snmp")).unwrap();
    let mut lines = numbers.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = (lines.next().unwrap().split(' '), lines.next().unwrap().split(' '));
    let value = |name: &str| names.clone().zip(values.clone()).find(|(n, _)| *n == name).unwrap().1.parse::<u64>();
    // Repetitions and resets of unknown connections are counted for themselves.
    value("OutSegs").unwrap() + value("RetransSegs").unwrap()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

fn source_of<'a>(status: &'a Value, address: &str) -> &'a Value {
    status["top_sources"].as_array().unwrap().iter().find(|source| source["address"] == address).unwrap()
}

/// Every packet that the client's host sent is counted, and each SYN became a connection.
#[test]
fn counts_are_exact() {
    let Some(setting) = Setting::new("exact counts", "native") else { return };
    let before = segments_sent(&setting.trio.client);
    let mut open = setting.client(Family::V4);
    for _ in 0..20 {
        let mut client = setting.client(Family::V4);
        assert_eq!(client.mail("a@client.test", "b@local.test", MESSAGE).code, 250);
        client.quit();
    }
    for _ in 0..5 {
        setting.client(Family::V6).quit();
    }
    open.must("NOOP");
    // The last acknowledgements may still be on their way.
    let deadline = Instant::now() + Duration::from_secs(5);
    let status = loop {
        let (status, sent) = (setting.status(), segments_sent(&setting.trio.client) - before);
        if number(&status["xdp"]["packets_total"]) == sent && sent == segments_sent(&setting.trio.client) - before {
            break status;
        }
        assert!(Instant::now() < deadline, "{sent} segments sent, {}", status["xdp"]);
        sleep(Duration::from_millis(10));
    };
    let xdp = &status["xdp"];
    assert_eq!((&xdp["mode"], &xdp["interfaces"][0]["mode"]), (&"native".into(), &"native".into()));
    assert_eq!((number(&xdp["syn_total"]), number(&xdp["accepted_total"])), (26, 26));
    assert_eq!((number(&xdp["lost_before_accept_total"]), number(&xdp["tracked_sources"])), (0, 2));
    assert!(xdp["dropped_total"].as_object().unwrap().values().all(|count| count == 0), "{xdp}");
    let v4 = source_of(&status, Family::V4.of(CLIENT));
    let v6 = source_of(&status, "2001:db8:c::/64");
    assert_eq!((number(&v4["syn"]), number(&v4["active"])), (21, 1));
    assert_eq!((number(&v6["syn"]), number(&v6["active"])), (5, 0));
    assert_eq!(number(&v4["packets"]) + number(&v6["packets"]), number(&xdp["packets_total"]));
    let top = setting.gateway().json(&["top"]);
    assert_eq!((&top["mode"], top["sources"].as_array().unwrap().len()), (&"native".into(), 2));
}

/// The next connection is dropped within 100 ms; a message in transfer arrives.
#[test]
fn a_ban_holds_at_once_and_cuts_nothing() {
    for family in Family::BOTH {
        let Some(setting) = Setting::new("a ban at the card", "native") else { return };
        let address = family.of(CLIENT);
        let mut client = setting.client(family);
        client.envelope("a@client.test", "b@local.test", "");
        setting.verb(&["ban", address, "--for", "1m"]);
        sleep(AT_ONCE);
        setting.assert_dropped(family);
        client.send(&stuffed(MESSAGE));
        assert_eq!(client.reply().code, 250);
        client.quit();

        let bans = setting.gateway().json(&["bans"]);
        let ban = &bans["bans"][0];
        assert_eq!((number(&ban["packets_dropped"]), number(&ban["connections_refused"])), (1, 0));
        let status = setting.status();
        assert_eq!(number(&status["xdp"]["dropped_total"]["ban"]), 1);
        assert_eq!(number(&status["xdp"]["syn_total"]), number(&status["xdp"]["accepted_total"]) + 1);
        assert_eq!(number(&status["xdp"]["lost_before_accept_total"]), 0);
        setting.gateway().log().wait_for(&["the kernel side drops", "outcome=\"ban\"", "reason=\"manual\"", "port=25"]);
        setting.verb(&["unban", address]);
        sleep(AT_ONCE);
        setting.client(family).quit();
    }
}

/// What sessions see reaches the card.
#[test]
fn relay_attempts_end_at_the_card() {
    let Some(setting) = Setting::new("relay attempts at the card", "native") else { return };
    let mut clients: Vec<_> = (0..5).map(|_| setting.client(Family::V6)).collect();
    for client in &mut clients {
        client.attempt_relay(4);
    }
    let client = &mut clients[0];
    sleep(AT_ONCE);
    setting.assert_dropped(Family::V6);
    client.must("RSET");
    setting.client(Family::V4).quit();
    let bans = setting.gateway().json(&["bans"]);
    assert_eq!((&bans["bans"][0]["address"], &bans["bans"][0]["by"]), (&"2001:db8:c::/64".into(), &"offences".into()));
}

/// A gateway that is killed leaves the ban and the counters at the card, and the next one has them.
#[test]
fn a_killed_gateway_loses_neither_ban_nor_count() {
    let Some(mut setting) = Setting::new("kill -9 and restart", "native") else { return };
    setting.client(Family::V6).quit();
    for target in [Family::V4.of(CLIENT), "203.0.113.0/24"] {
        setting.verb(&["ban", target, "--for", "10m", "--reason", "ticket 4711"]);
    }
    sleep(AT_ONCE);
    setting.assert_dropped(Family::V4);
    let before = setting.status();
    let bans = setting.gateway().json(&["bans"]);
    setting.kill();
    // The other family is not banned: nobody listens, and the host says so.
    let error = setting.try_connect(Family::V6, DROPPED).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    setting.assert_dropped(Family::V4);

    setting.start("mode = \"native\"\n", &[]);
    setting.gateway().log().wait_for(&["bans of another run are still in force", "bans=2"]);
    setting.gateway().log().wait_for(&["the kernel side is attached", "taken_over=true"]);
    setting.assert_dropped(Family::V4);
    setting.client(Family::V6).quit();
    let (after, again) = (setting.status(), setting.gateway().json(&["bans"]));
    let (before, after) = (&before["xdp"], &after["xdp"]);
    assert_eq!(number(&after["dropped_total"]["ban"]), number(&before["dropped_total"]["ban"]) + 2);
    assert_eq!(number(&after["syn_total"]), number(&before["syn_total"]) + 4);
    assert!(number(&after["packets_total"]) > number(&before["packets_total"]));
    assert_eq!((number(&after["accepted_total"]), number(&after["lost_before_accept_total"])), (1, 0));
    let shown = |bans: &Value| {
        let ban = |ban: &Value| (ban["address"].to_string(), number(&ban["since"]), number(&ban["until"]));
        let mut bans: Vec<_> = bans["bans"].as_array().unwrap().iter().map(ban).collect();
        bans.sort();
        bans
    };
    assert_eq!(shown(&again), shown(&bans));
    setting.verb(&["unban", Family::V4.of(CLIENT)]);
    sleep(AT_ONCE);
    setting.client(Family::V4).quit();
}

/// The kernel minds the end of a ban itself: a gateway that hangs bans nobody for ever.
#[test]
fn a_ban_ends_though_the_gateway_hangs() {
    let Some(setting) = Setting::new("expiry at the card", "native") else { return };
    setting.verb(&["ban", Family::V4.of(CLIENT), "--for", "2s"]);
    let since = Instant::now();
    let signal = |signal: &str| {
        let status = Command::new("kill").args([signal, &setting.gateway().pid().to_string()]).status().unwrap();
        assert!(status.success());
    };
    sleep(AT_ONCE);
    signal("-STOP");
    setting.assert_dropped(Family::V4);
    sleep(Duration::from_millis(2100).saturating_sub(since.elapsed()));
    // The system accepts in the gateway's place.
    let connected = setting.try_connect(Family::V4, Duration::from_secs(5));
    signal("-CONT");
    connected.unwrap();
    setting.gateway().log().wait_for(&["ban expired"]);
    assert_eq!(setting.status()["xdp"]["bans"], 0);
}

#[test]
fn generic_mode_is_shown_as_what_it_is() {
    let Some(setting) = Setting::new("generic mode", "generic") else { return };
    setting.verb(&["ban", Family::V4.of(CLIENT)]);
    sleep(AT_ONCE);
    setting.assert_dropped(Family::V4);
    setting.client(Family::V6).quit();
    let status = setting.status();
    assert_eq!((&status["xdp"]["mode"], &status["xdp"]["problem"]), (&"generic".into(), &Value::Null));
    assert_eq!(number(&status["xdp"]["dropped_total"]["ban"]), 1);
    let page = String::from_utf8(setting.gateway().run(&["status"]).stdout).unwrap();
    assert!(page.contains("kernel     client generic\n"), "{page}");
}

/// Only counted: nobody is dropped at the card, and the gateway itself says no.
#[test]
fn monitor_only_drops_nothing() {
    let Some(setting) = Setting::with("monitor only", "monitor_only = true\n", &[]) else { return };
    setting.verb(&["ban", Family::V4.of(CLIENT)]);
    sleep(AT_ONCE);
    let stream = setting.try_connect(Family::V4, DROPPED).unwrap();
    assert_eq!(Client::over(stream).reply().code, 421);
    let xdp = &setting.status()["xdp"];
    assert_eq!((number(&xdp["would_drop_total"]["ban"]), number(&xdp["dropped_total"]["ban"])), (1, 0));
    assert_eq!((&xdp["monitor_only"], number(&xdp["lost_before_accept_total"])), (&true.into(), 0));
}

/// What of the kernel side a reload may change, it changes at the card.
#[test]
fn a_reload_changes_what_the_card_does() {
    let Some(setting) = Setting::new("a reload and the kernel side", "native") else { return };
    setting.verb(&["ban", Family::V4.of(CLIENT)]);
    setting.assert_dropped(Family::V4);
    setting.gateway().rewrite(|config| config.replace("[xdp]\n", "[xdp]\nmonitor_only = true\n"));
    setting.verb(&["reload"]);
    let stream = setting.try_connect(Family::V4, DROPPED).unwrap();
    assert_eq!(Client::over(stream).reply().code, 421);
    assert_eq!(setting.status()["xdp"]["monitor_only"], true);
    setting.gateway().rewrite(|config| config.replace("monitor_only = true\n", ""));
    setting.verb(&["reload"]);
    setting.assert_dropped(Family::V4);
}

/// A gateway that may not, or shall not, says so in one sentence and works all the same; bans too.
#[test]
fn without_the_kernel_side_all_works_the_same() {
    let unprivileged = ["--bounding-set=-sys_admin,-bpf,-perfmon,-net_admin", "--inh-caps=-all"];
    for (scenario, xdp, confinement, why) in [
        ("no privilege", "", unprivileged.as_slice(), Some("no permission to ")),
        ("the kernel side off", "mode = \"off\"\n", &[], None),
    ] {
        let Some(setting) = Setting::with(scenario, xdp, confinement) else { return };
        let status = setting.status();
        let problem = status["xdp"]["problem"].as_str();
        assert_eq!((&status["xdp"]["mode"], problem.is_some()), (&"off".into(), why.is_some()), "{scenario}: {status}");
        assert!(problem.unwrap_or_default().contains(why.unwrap_or_default()), "{status}");
        let mut client = setting.client(Family::V4);
        assert_eq!(client.mail("a@client.test", "b@local.test", MESSAGE).code, 250);
        setting.verb(&["ban", Family::V4.of(CLIENT)]);
        let stream = setting.try_connect(Family::V4, DROPPED).unwrap();
        assert_eq!(Client::over(stream).reply().code, 421, "{scenario}");
        client.must("NOOP");
        let bans = setting.gateway().json(&["bans"]);
        assert_eq!(number(&bans["bans"][0]["connections_refused"]), 1);
    }
}

/// What can be had is had: a card that is not there costs no other card, and a folder that cannot hold pins only the pins.
#[test]
fn what_cannot_be_had_is_said() {
    let Some(mut setting) = Setting::new("faulty kernel side", "off") else { return };
    setting.kill();
    setting.start("", &[]);
    setting.kill();
    let nowhere = tempfile::tempdir().unwrap();
    let pins = nowhere.path().join("pins");
    let backend = setting.sink.address();
    for (xdp, mode, why) in [
        (
            format!("interfaces = [\"client\", \"nowhere0\"]\npins = \"{}\"", setting.pins.folder().display()),
            "native",
            "there is no network interface `nowhere0`; `ip link` lists those there are",
        ),
        ("interfaces = [\"nowhere0\"]".to_owned(), "off", "there is no network interface `nowhere0`"),
        (format!("interfaces = [\"backend\"]\npins = \"{}\"", pins.display()), "native", "is not on a BPF file system"),
    ] {
        let gateway = Gateway::start_with(&setting.trio, backend, "proxy-v2", &format!("[xdp]\n{xdp}\n"));
        let status = gateway.json(&["status"]);
        assert_eq!(status["xdp"]["mode"], mode, "{xdp}: {status}");
        let problem = status["xdp"]["problem"].as_str().unwrap();
        assert!(problem.contains(why), "{xdp}: {problem}");
        gateway.log().wait_for(&["WARN", why]);
        Client::to_gateway(&setting.trio.client, Family::V4).quit();
    }
    assert!(fs::read_dir(nowhere.path()).unwrap().next().is_none(), "nothing is left in the wrong place");
}

/// A gateway that has long given its privileges up puts the program back when somebody takes it off.
#[test]
fn a_program_that_was_taken_off_comes_back() {
    let Some(setting) = Setting::new("taken off", "native") else { return };
    setting.verb(&["ban", Family::V4.of(CLIENT)]);
    for entry in fs::read_dir(setting.pins.folder()).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("card-") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    setting.gateway().log().wait_for(&["WARN", "the kernel side was taken off by somebody else"]);
    setting.gateway().log().wait_for(&["the kernel side is attached", "taken_over=false"]);
    assert_eq!(setting.status()["xdp"]["mode"], "native");
    setting.assert_dropped(Family::V4);
    setting.client(Family::V6).quit();
}

/// Who may not load a program goes on with the one that is there.
#[test]
fn an_unprivileged_restart_adopts_what_is_there() {
    let Some(mut setting) = Setting::new("an unprivileged restart", "native") else { return };
    setting.verb(&["ban", Family::V4.of(CLIENT), "--for", "10m"]);
    sleep(AT_ONCE);
    setting.kill();
    setting.start("", &["--bounding-set=-sys_admin,-bpf,-perfmon,-net_admin", "--inh-caps=-all"]);
    setting.gateway().log().wait_for(&["no privilege to load", "that of an earlier run stays"]);
    let status = setting.status();
    assert_eq!((&status["xdp"]["mode"], &status["xdp"]["problem"]), (&"native".into(), &Value::Null));
    setting.assert_dropped(Family::V4);
    setting.client(Family::V6).quit();
    setting.verb(&["unban", Family::V4.of(CLIENT)]);
    sleep(AT_ONCE);
    setting.client(Family::V4).quit();
}

/// Turned off, the program of an earlier run leaves the card.
#[test]
fn turned_off_it_leaves_the_card() {
    let Some(mut setting) = Setting::new("turned off", "native") else { return };
    setting.verb(&["ban", Family::V4.of(CLIENT)]);
    sleep(AT_ONCE);
    setting.kill();
    setting.assert_dropped(Family::V4);
    setting.start("mode = \"off\"\n", &[]);
    setting.client(Family::V4).quit();
    assert!(!setting.pins.folder().exists());
}

/// From a card that is outside nobody comes with an address that is trusted here.
#[test]
fn trusted_addresses_do_not_come_from_outside() {
    let scenario = "spoofed addresses";
    let outside = "outside = [\"client\"]\n[bans]\nallow = [\"2001:db8:c::/64\"]\n";
    let Some(setting) = Setting::with(scenario, outside, &[]) else { return };
    // The client's address is one of documentation, which nobody has on the Internet; the other family's is allowed.
    setting.assert_dropped(Family::V4);
    setting.client(Family::V6).quit();
    let status = setting.status();
    assert_eq!(number(&status["xdp"]["dropped_total"]["bogon"]), 1);
    assert_eq!(number(&status["xdp"]["bans"]), 0);
}
