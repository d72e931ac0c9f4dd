use super::*;

const CONFIG: &str = r#"
[server]
hostname = "mx.example.com"
[[listener]]
address = "0.0.0.0:25"
[[listener]]
address = "0.0.0.0:2525"
proxy_protocol_from = ["10.0.0.0/30"]
[[backend]]
address = "198.51.100.25"
[[backend]]
address = "mail.example.com"
[relay]
local_domains = ["example.com"]
allowed_networks = ["192.168.1.0/24"]
[bans]
allow = ["192.0.2.128/25", "2001:db8:a::/48"]
"#;

const HOUR: Duration = Duration::from_secs(3600);

fn verdicts(more: &str) -> Verdicts {
    let networks = HostNetworks { own: vec![ip("10.1.0.2")], routers: vec![ip("10.1.0.1")] };
    Verdicts::new(&crate::config::parse(&format!("{CONFIG}{more}"), "gateway.toml").unwrap(), &networks)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn network(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn peer(text: &str) -> PeerAddr {
    PeerAddr::from_socket((ip(text), 4711).into())
}

/// As bad as can be, ten times.
fn misbehave(verdicts: &Verdicts, client: &str, through: &str, now: u64) {
    let client = ClientAddr::from_proxy_header((ip(client), 4711).into());
    for _ in 0..10 {
        verdicts.charge(client, peer(through), Offence::Flood, Millis(now));
    }
}

#[test]
fn offences_become_a_ban_that_ends() {
    let verdicts = verdicts("");
    assert!(!verdicts.refuses(ip("203.0.113.9"), Millis(0)));
    misbehave(&verdicts, "203.0.113.9", "203.0.113.9", 0);
    assert!(verdicts.refuses(ip("203.0.113.9"), Millis(1)));
    assert!(verdicts.refuses(ip("::ffff:203.0.113.9"), Millis(1)));
    assert!(!verdicts.refuses(ip("203.0.113.10"), Millis(1)));
    let expected = BanView {
        network: network("203.0.113.9/32"),
        cause: Cause::Offences(Offence::Flood),
        reason: "2 × flood".to_owned(),
        since: Millis(0),
        until: Millis(600_000),
        in_kernel: true,
        refused: 2,
    };
    assert_eq!(verdicts.bans(Millis(1)), [expected]);
    assert!(!verdicts.refuses(ip("203.0.113.9"), Millis(600_000)));
    assert_eq!(verdicts.count(Millis(600_000)), 0);
    verdicts.sweep(Millis(600_000));
    assert_eq!(verdicts.entries.load(Ordering::Relaxed), 0);
}

#[test]
fn an_ipv6_source_is_banned_with_its_64() {
    let verdicts = verdicts("");
    misbehave(&verdicts, "2001:db8::1", "2001:db8::1", 0);
    assert!(verdicts.refuses(ip("2001:db8::ffff:1"), Millis(1)));
    assert!(!verdicts.refuses(ip("2001:db8:0:1::1"), Millis(1)));
}

/// The loopback, the allow list, the backend and the load balancer; hosts that may send out, but for an administrator.
#[test]
fn who_may_never_be_banned_is_not() {
    let verdicts = verdicts("");
    verdicts.protect_backends([ip("198.51.100.26"), ip("2001:db8::26"), ip("198.51.100.26")]);
    for (client, refusal) in [
        ("127.0.0.1", "127.0.0.1 is never banned: it is this machine itself"),
        ("127.9.9.9", "127.9.9.9 is never banned: it is this machine itself"),
        ("::1", "::1/128 is never banned: it is this machine itself"),
        ("192.0.2.129", "192.0.2.129 is never banned: `bans.allow` names 192.0.2.128/25"),
        ("2001:db8:a::9", "2001:db8:a::9/128 is never banned: `bans.allow` names 2001:db8:a::/48"),
        ("198.51.100.25", "198.51.100.25 is never banned: 198.51.100.25 is a backend"),
        ("198.51.100.26", "198.51.100.26 is never banned: 198.51.100.26 is a backend"),
        ("2001:db8::26", "2001:db8::26/128 is never banned: 2001:db8::26 is a backend"),
        ("10.0.0.3", "10.0.0.3 is never banned: `proxy_protocol_from` lists 10.0.0.0/30"),
    ] {
        misbehave(&verdicts, client, client, 0);
        assert!(!verdicts.refuses(ip(client), Millis(1)), "{client}");
        let error = verdicts.ban(ip(client).into(), HOUR, "by hand", Millis(1)).unwrap_err();
        assert_eq!(error.to_string(), refusal);
    }
    misbehave(&verdicts, "192.168.1.7", "192.168.1.7", 0);
    assert!(!verdicts.refuses(ip("192.168.1.7"), Millis(1)));
    assert!(verdicts.bans(Millis(1)).is_empty());
    verdicts.ban(network("192.168.1.7/32"), HOUR, "by hand", Millis(1)).unwrap();
    assert!(verdicts.refuses(ip("192.168.1.7"), Millis(1)));
}

/// A container's proxy, a router that masquerades: everybody comes from there.
#[test]
fn who_may_hide_others_is_banned_by_hand_only() {
    let verdicts = verdicts("");
    for forwarder in ["10.1.0.1", "10.1.0.2", "::ffff:10.1.0.1"] {
        misbehave(&verdicts, forwarder, forwarder, 0);
        assert!(!verdicts.refuses(ip(forwarder), Millis(1)), "{forwarder}");
    }
    misbehave(&verdicts, "10.1.0.3", "10.1.0.3", 0);
    assert!(verdicts.refuses(ip("10.1.0.3"), Millis(1)));
    verdicts.ban(ip("10.1.0.1").into(), HOUR, "by hand", Millis(1)).unwrap();
    assert!(verdicts.refuses(ip("10.1.0.1"), Millis(1)));
}

#[test]
fn a_wider_ban_leaves_the_protected_alone() {
    let verdicts = verdicts("");
    verdicts.ban(network("192.0.2.0/24"), HOUR, "by hand", Millis(0)).unwrap();
    assert!(verdicts.refuses(ip("192.0.2.127"), Millis(0)));
    assert!(!verdicts.refuses(ip("192.0.2.128"), Millis(0)));
    misbehave(&verdicts, "2001:db8:a::9", "2001:db8:a::9", 0);
    verdicts.ban(network("2001:db8::/32"), HOUR, "by hand", Millis(0)).unwrap();
    assert!(!verdicts.refuses(ip("2001:db8:a::9"), Millis(0)));
    assert!(verdicts.refuses(ip("2001:db8:b::9"), Millis(0)));
}

/// The client's address is banned, for whatever way it comes; the balancer's never, and the kernel is not told.
#[test]
fn behind_a_load_balancer_the_client_is_banned() {
    let verdicts = verdicts("");
    misbehave(&verdicts, "203.0.113.9", "10.0.0.1", 0);
    assert!(verdicts.refuses(ip("203.0.113.9"), Millis(1)));
    assert!(!verdicts.refuses(ip("10.0.0.1"), Millis(1)));
    assert!(!verdicts.read().find(ip("203.0.113.9"), Millis(1)).unwrap().in_kernel);
    misbehave(&verdicts, "203.0.113.10", "203.0.113.10", 0);
    assert!(verdicts.read().find(ip("203.0.113.10"), Millis(1)).unwrap().in_kernel);
}

#[test]
fn unban_forgets_what_led_to_it() {
    let verdicts = verdicts("");
    misbehave(&verdicts, "203.0.113.9", "203.0.113.9", 0);
    assert_eq!(verdicts.unban(network("203.0.113.9/32"), Millis(1)).unwrap().reason, "2 × flood");
    assert!(!verdicts.refuses(ip("203.0.113.9"), Millis(1)));
    misbehave(&verdicts, "203.0.113.9", "203.0.113.9", 2);
    assert_eq!(verdicts.bans(Millis(2))[0].until, Millis(600_002), "a first offence again");
}

#[test]
fn what_cannot_be_done_is_said() {
    let verdicts = verdicts("");
    verdicts.ban(network("203.0.113.0/24"), HOUR, "by hand", Millis(0)).unwrap();
    let unban = |text: &str, now| verdicts.unban(network(text), Millis(now)).unwrap_err().to_string();
    assert_eq!(unban("192.0.2.1/32", 0), "192.0.2.1 is not banned");
    assert_eq!(unban("203.0.113.9/32", 0), "203.0.113.9 is not banned itself, but 203.0.113.0/24 is");
    assert_eq!(unban("203.0.0.0/16", 0), "203.0.0.0/16 is not banned");
    assert_eq!(unban("203.0.113.0/24", 3_600_000), "203.0.113.0/24 is not banned");
    for wide in ["0.0.0.0/0", "128.0.0.0/7", "::/0", "2000::/15"] {
        let error = verdicts.ban(network(wide), HOUR, "by hand", Millis(0)).unwrap_err();
        assert_eq!(error, BanError::TooWide(network(wide)));
    }
}

#[test]
fn without_bans_nobody_is_banned_but_by_hand() {
    let verdicts = verdicts("enabled = false\n");
    misbehave(&verdicts, "203.0.113.9", "203.0.113.9", 0);
    assert!(!verdicts.refuses(ip("203.0.113.9"), Millis(1)));
    verdicts.ban(network("203.0.113.9/32"), HOUR, "by hand", Millis(0)).unwrap();
    assert!(verdicts.refuses(ip("203.0.113.9"), Millis(1)));
}

#[test]
fn changes_are_told_in_order() {
    let verdicts = verdicts("");
    misbehave(&verdicts, "203.0.113.8", "203.0.113.8", 0);
    let changes = verdicts.follow().unwrap();
    assert!(verdicts.follow().is_none());
    misbehave(&verdicts, "203.0.113.9", "10.0.0.1", 0);
    verdicts.unban(network("203.0.113.9/32"), Millis(1)).unwrap();
    verdicts.protect_backends([ip("198.51.100.30"), ip("198.51.100.30")]);
    verdicts.sweep(Millis(600_000));
    let told: Vec<_> = std::iter::from_fn(|| changes.next(Duration::ZERO).ok()).collect();
    assert!(matches!(&told[0], Change::Entered(ban) if !ban.in_kernel && ban.network == network("203.0.113.9/32")));
    let rest = [
        Change::Removed(network("203.0.113.9/32")),
        Change::Protected(ip("198.51.100.30")),
        Change::Removed(network("203.0.113.8/32")),
    ];
    assert_eq!(told[1..], rest);
    assert!(!changes.were_lost());
}

#[test]
fn a_follower_that_does_not_keep_up_is_told_so() {
    let verdicts = verdicts("");
    let changes = verdicts.follow().unwrap();
    for number in 0..5000_u32 {
        let address = IpAddr::from((0xCB00_0000 | number).to_be_bytes());
        verdicts.ban(address.into(), HOUR, "by hand", Millis(0)).unwrap();
    }
    assert!(changes.were_lost() && !changes.were_lost());
    assert_eq!(verdicts.count(Millis(0)), 5000);
}
