use std::fs;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::parse::walk;
use super::tls::WhereSaid;
use super::*;
use crate::smtp::domains::DomainSet;

mod properties;

const MINIMAL: &str = r#"
[server]
hostname = "mx.example.com"
[[listener]]
address = "0.0.0.0:25"
[[backend]]
address = "192.0.2.25"
[relay]
local_domains = ["example.com"]
"#;

const DOCUMENTED: &str = include_str!("../../../config/gateway.toml");
/// No value is the default.
const EVERY_KEY: &str = include_str!("tests/every-key.toml");
const FAULTS: &str = include_str!("tests/faults.txt");

fn shown(result: Result<Config, Vec<Fault>>) -> String {
    match result {
        Ok(_) => "none".to_owned(),
        Err(faults) => LoadError::Faulty(faults).to_string(),
    }
}

fn domains(entries: &[&str]) -> DomainSet {
    let mut set = DomainSet::new();
    for entry in entries {
        set.insert(entry).unwrap();
    }
    set
}

/// What a file has that names only what it must.
fn defaults() -> Config {
    Config {
        server: Server {
            hostname: "mx.example.com".to_owned(),
            user: None,
            state: None,
            workers: sections::workers_default(),
            early_talk: EarlyTalk::Reject,
            greet_delay: Duration::ZERO,
            bare_newline: BareNewline::Normalize,
        },
        listeners: vec![Listener {
            address: "0.0.0.0:25".parse().unwrap(),
            backend: 0,
            proxy_protocol_from: Vec::new(),
            own_connections_from: Vec::new(),
            tls: ListenerTls::Off,
            service: Service::Mx,
            relay_without_auth: false,
        }],
        backends: vec![Backend {
            name: "backend".to_owned(),
            address: HostPort::Address("192.0.2.25:25".parse().unwrap()),
            identity: IdentityMode::Xclient,
            xclient_login: false,
            tls: BackendTls::Off,
            tls_verify: None,
            tls_name: None,
            tls_ca: None,
            tls_pins: Vec::new(),
            tls_certificate: None,
            tls_place: WhereSaid::default(),
            tls_ca_place: WhereSaid::default(),
            kind: None,
            clear_text_auth: false,
            max_sessions: 0,
            pool: 0,
            weight: 1,
            priority: 1,
        }],
        pools: vec![Pool { name: "backend".to_owned(), servers: 0..1, srv: None }],
        routes: Vec::new(),
        relay: Relay { local_domains: domains(&["example.com"]), allowed_networks: Vec::new(), on_open: OnOpen::Guard },
        proof: Proof::default(),
        submission: Submission::default(),
        tls: Tls::default(),
        limits: Limits::default(),
        timeouts: Timeouts::default(),
        bans: Bans::default(),
        dns: Dns::default(),
        xdp: Xdp::default(),
        control: Control::default(),
        metrics: Metrics::default(),
        log: Log::default(),
    }
}

/// A snippet with the tables that it lacks.
fn completed(name: &str, snippet: &str) -> String {
    let mut text = format!("{}\n", snippet.trim_end());
    if name.starts_with("whole file: ") {
        return text;
    }
    for table in MINIMAL.trim_start().split_inclusive("\n[") {
        let table = format!("[{}", table.trim_start_matches('[').trim_end_matches('['));
        let (header, _) = table.split_once(']').unwrap();
        let name = header.trim_start_matches('[');
        if !text.contains(&format!("{name}]")) && !text.starts_with(&format!("{name} = ")) {
            let brackets = if matches!(name, "listener" | "backend") { "[" } else { "" };
            text = format!("{text}{brackets}{table}");
        }
    }
    text
}

#[test]
fn every_fault_reads_as_written() {
    let cases: Vec<_> = FAULTS.split("\n=== ").skip(1).collect();
    assert!(cases.len() > 120, "{}", cases.len());
    for case in cases {
        let (name, rest) = case.split_once('\n').unwrap();
        let (snippet, expected) = rest.split_once("--- complaint\n").unwrap();
        let found = shown(parse(&completed(name, snippet), "gateway.toml"));
        assert_eq!(found.trim_end(), expected.trim_end(), "{name}");
    }
}

#[test]
fn the_minimal_configuration_is_complete() {
    assert_eq!(parse(MINIMAL, "gateway.toml"), Ok(defaults()));
}

#[test]
fn every_identity_is_taken_as_it_is_written() {
    for mode in IdentityMode::ALL {
        let text = MINIMAL.replace("[[backend]]", &format!("[[backend]]\nidentity = \"{}\"", mode.as_str()));
        assert_eq!(parse(&text, "gateway.toml").unwrap().backends[0].identity, mode);
    }
}

#[test]
fn every_key_has_its_effect() {
    let (config, keys) = walk(EVERY_KEY, "gateway.toml");
    let config = config.unwrap();
    let (tree, _) = DeTable::parse_recoverable(EVERY_KEY);
    for (title, key) in keys.known() {
        assert!(is_in(tree.get_ref(), title, key), "tests/every-key.toml gives {title} {key} no value");
    }
    for (number, line) in EVERY_KEY.lines().enumerate() {
        if !line.contains(" = ") {
            continue;
        }
        let without: Vec<_> =
            EVERY_KEY.lines().enumerate().filter(|(other, _)| *other != number).map(|(_, line)| line).collect();
        let changed = parse(&without.join("\n"), "gateway.toml") != Ok(config.clone());
        assert!(changed, "without line {}: {line}", number + 1);
    }
}

#[test]
fn values_mean_what_they_say() {
    let config = parse(EVERY_KEY, "gateway.toml").unwrap();
    let seconds = Duration::from_secs;
    assert_eq!((config.server.workers, config.server.greet_delay), (3, Duration::from_millis(1500)));
    assert_eq!((config.server.early_talk, config.server.bare_newline), (EarlyTalk::Log, BareNewline::Reject));
    let listeners: Vec<_> = config.listeners.iter().map(|listener| (listener.address, listener.backend)).collect();
    assert_eq!(listeners, [("192.0.2.1:25".parse().unwrap(), 1), ("[2001:db8::1]:2525".parse().unwrap(), 2)]);
    assert_eq!(config.listeners[1].own_connections_from, ["10.0.0.5/32".parse().unwrap()]);
    assert_eq!(config.listeners[1].proxy_protocol_from, ["10.0.0.5/32", "fd00::/64"].map(|net| net.parse().unwrap()));
    let backends: Vec<_> = config.backends.iter().map(|backend| (&*backend.name, backend.address.clone())).collect();
    let expected = [
        ("exchange", HostPort::Name("mail.example.net".to_owned(), 2525)),
        ("backend-2", HostPort::Address("[2001:db8::25]:25".parse().unwrap())),
        ("blind", HostPort::Name("mail_server".to_owned(), 25)),
        ("pool/1", HostPort::Address("192.0.2.31:25".parse().unwrap())),
        ("pool/second", HostPort::Address("192.0.2.32:26".parse().unwrap())),
        ("pool/3", HostPort::Name("mx3.example.net".to_owned(), 25)),
        ("by-srv", HostPort::Name("_smtp._tcp.example.net".to_owned(), 25)),
    ];
    assert_eq!(backends, expected);
    let share = |backend: &Backend| (backend.pool, backend.weight, backend.priority, backend.max_sessions);
    assert_eq!(
        config.backends[3..6].iter().map(share).collect::<Vec<_>>(),
        [(3, 1, 1, 50), (3, 2, 1, 20), (3, 1, 2, 50)]
    );
    assert_eq!(config.pools[3], Pool { name: "pool".to_owned(), servers: 3..6, srv: None });
    let by_srv = Pool { name: "by-srv".to_owned(), servers: 6..7, srv: Some("_smtp._tcp.example.net".to_owned()) };
    assert_eq!(config.pools[4], by_srv);
    let key = |text: &str, backend, line| RouteKey { text: text.to_owned(), backend, line };
    let route = Route {
        name: "partner".to_owned(),
        recipients: ["example.net", ".example.net", "boss@example.org"].map(|text| key(text, 3, 0)).into(),
        users: Vec::new(),
        local: false,
        file: None,
        clients: vec!["192.0.2.0/24".parse().unwrap()],
        senders: domains(&["partner.example"]),
        listeners: vec![1],
        backend: 3,
        line: Line(0),
    };
    assert_eq!(config.routes[0], route);
    assert_eq!(config.routes[1].users, ["boss@example.net", "example.org", "alice"].map(|text| key(text, 3, 0)));
    let customers = [key("customer.test", 1, 2), key(".customer.test", 1, 3), key("other.test", 0, 4)];
    assert_eq!((&*config.routes[2].name, &*config.routes[2].recipients), ("route-3", &customers[..]));
    assert_eq!(config.backends[0].kind, Some(ServerKind::Exchange));
    let local = ["example.net", ".example.net", "[192.0.2.1]", "customer.test", ".customer.test", "other.test"];
    assert_eq!(config.relay.local_domains, domains(&local));
    assert_eq!(config.proof.foreign_domain, "example.org");
    let limits = config.limits;
    assert_eq!((limits.message_size, limits.header_size, limits.text_line), (20 << 20, 4096, Some(1000)));
    assert_eq!((limits.messages_per_session, limits.minimum_rate, limits.buffered), (3, 6, 2 << 20));
    let timeouts = config.timeouts;
    assert_eq!((timeouts.body, timeouts.reply, timeouts.drain), (seconds(7200), seconds(240), Duration::ZERO));
    let servers = ["192.0.2.53:53", "192.0.2.54:5353", "[2001:db8::53]:53", "[2001:db8::54]:53", "[2001:db8::55]:5353"];
    assert_eq!(config.dns.servers, servers.map(|server| server.parse().unwrap()));
    assert_eq!(
        (config.xdp.mode, &*config.xdp.interfaces),
        (XdpMode::Generic, &["eth0", "wan.7"].map(str::to_owned)[..])
    );
    assert_eq!(config.control, Control { socket: "control.sock".into(), allowed_uids: vec![0, 1000] });
}

#[test]
fn a_first_ban_that_is_not_given_is_no_longer_than_the_longest() {
    let bans = parse(&format!("{MINIMAL}[bans]\nmaximum = \"1m\"\n"), "gateway.toml").unwrap().bans;
    assert_eq!(bans.first, Duration::from_secs(60));
}

/// Takes the comment sign from lines such as `# key = value`.
fn uncommented(text: &str, prefixes: &[&str]) -> String {
    let is_key = |key: &str| key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let is_pair = |rest: &&str| rest.split_once(" = ").is_some_and(|(key, _)| is_key(key));
    let line = |line: &str| {
        let pair = prefixes.iter().filter_map(|prefix| line.strip_prefix(prefix)).find(is_pair);
        format!("{}\n", pair.unwrap_or(line))
    };
    text.lines().map(line).collect()
}

#[test]
fn the_documented_defaults_are_the_defaults() {
    assert_eq!(parse(DOCUMENTED, "gateway.toml"), Ok(defaults()));
    let all = uncommented(DOCUMENTED, &["# "]);
    assert_ne!(all, DOCUMENTED);
    assert_eq!(parse(&all, "gateway.toml"), Ok(defaults()));
}

/// Whether a key stands in any of the tables with this title.
fn is_in(tree: &DeTable<'_>, title: &str, key: &str) -> bool {
    let has = |table: &DeValue<'_>| table.as_table().is_some_and(|table| table.contains_key(key));
    match title.trim_matches(['[', ']']) {
        "" => tree.contains_key(key),
        name => tree.get(name).is_some_and(|value| match value.get_ref() {
            DeValue::Array(tables) => tables.iter().any(|table| has(table.get_ref())),
            table => has(table),
        }),
    }
}

#[test]
fn every_key_is_documented() {
    // A backend has one address, or several servers, or those that DNS names.
    let mut all = uncommented(DOCUMENTED, &["# ", "# example: "]);
    for key in ["servers", "srv"] {
        all = all.replacen(&format!("\n{key} = "), &format!("\n[[backend]]\n{key} = "), 1);
    }
    let all =
        all.replace("# example: [[route]]", "[[route]]").replace("customers.txt", "src/config/tests/customers.txt");
    let (config, keys) = walk(&all, "gateway.toml");
    assert!(config.is_ok(), "{}", shown(config));
    let (tree, _) = DeTable::parse_recoverable(&all);
    let mut count = 0;
    for (title, key) in keys.known() {
        assert!(is_in(tree.get_ref(), title, key), "config/gateway.toml does not say what {title} {key} is");
        count += 1;
    }
    assert!(count > 55, "{count}");
}

#[test]
fn the_demo_needs_no_privileges() {
    let demo = parse(include_str!("../../../config/demo.toml"), "demo.toml").unwrap();
    assert_eq!(demo.listeners[0].address, "127.0.0.1:2525".parse().unwrap());
    assert_eq!(demo.backends[0].address, HostPort::Address("127.0.0.1:2526".parse().unwrap()));
    assert_eq!(demo.backends[0].identity, IdentityMode::Xclient);
    assert!(!demo.dns.enabled);
    assert!(demo.control.socket.is_relative());
}

#[test]
fn routes_may_stand_in_a_file_beside_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gateway.toml");
    let two = "[[backend]]\nname = \"second\"\naddress = \"192.0.2.26:25\"\n";
    fs::write(&path, format!("{MINIMAL}{two}[[route]]\nfile = \"customers.txt\"\n")).unwrap();
    let file = directory.path().join("customers.txt");

    fs::write(&file, "\u{feff}# theirs\r\nA.test second\r\n\n  boss@b.test\tbackend # him\n.c.test second").unwrap();
    let routes = load(&path).unwrap().routes;
    let found: Vec<_> = routes[0].recipients.iter().map(|key| (&*key.text, key.backend, key.line)).collect();
    assert_eq!(found, [("a.test", 1, 2), ("boss@b.test", 0, 4), (".c.test", 1, 5)]);
    assert_eq!(routes[0].place(Some(4)), format!("line 4 of {}", file.display()));

    fs::write(&file, "a.test second\nb.test\n@c.test second\nd.test secnd\ne.test second b\nA.test second\n").unwrap();
    let faults = load(&path).unwrap_err().to_string();
    let shown = file.display();
    for expected in [
        format!("{shown}:2:1: error: `b.test` has no backend"),
        format!("{shown}:3:1: error: `@c.test`, which is no recipient"),
        format!("{shown}:4:8: error: there is no backend `secnd`"),
        format!("{shown}:5:15: error: `b` is too much in this line"),
        format!("{shown}:6:1: error: `a.test` stands twice in this route"),
    ] {
        assert!(faults.contains(&expected), "{faults}\n\nlacks {expected}");
    }

    fs::write(&file, "# nobody\n").unwrap();
    let faults = load(&path).unwrap_err().to_string();
    assert!(faults.contains("names no recipient"), "{faults}");
    fs::remove_file(&file).unwrap();
    let faults = load(&path).unwrap_err().to_string();
    assert!(faults.contains("gateway.toml:14:8: error: `route.file` names the file"), "{faults}");
}

#[test]
fn domains_may_stand_in_a_file_beside_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gateway.toml");
    fs::write(&path, MINIMAL.replace("[\"example.com\"]", "\"domains.txt\"")).unwrap();
    let domain_file = directory.path().join("domains.txt");

    fs::write(&domain_file, "\u{feff}# ours\r\nexample.com\r\n\n  .example.net # all of them\n[192.0.2.1]").unwrap();
    let config = load(&path).unwrap();
    assert_eq!(config.relay.local_domains, domains(&["example.com", ".example.net", "[192.0.2.1]"]));

    fs::write(&domain_file, "example.com\n\n \tuser@example.net # no\nexample.org\n*.example.org\n").unwrap();
    let faults = load(&path).unwrap_err().to_string();
    let shown = domain_file.display();
    let expected = [
        format!("{shown}:3:3: error: `user@example.net` is no domain"),
        "     \tuser@example.net # no".to_owned(),
        "     \t^^^^^^^^^^^^^^^^".to_owned(),
        "help: write `example.net`\n".to_owned(),
        format!("{shown}:5:1: error: `*.example.org` is no domain"),
        "    *.example.org".to_owned(),
        "    ^^^^^^^^^^^^^".to_owned(),
        "help: write `.example.org`".to_owned(),
    ];
    assert_eq!(faults, expected.join("\n"));

    fs::write(&domain_file, "# none yet\n").unwrap();
    let faults = load(&path).unwrap_err().to_string();
    assert!(faults.contains("gateway.toml:9:17: error: neither `relay.local_domains` nor"), "{faults}");

    fs::remove_file(&domain_file).unwrap();
    fs::create_dir(&domain_file).unwrap();
    let faults = load(&path).unwrap_err().to_string();
    assert!(faults.contains("domains.txt`, which is no regular file\n"), "{faults}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gateway.toml");
    let shown = path.display();
    let help = "give the path of a readable configuration file with `-c`";
    let error = load(&path).unwrap_err().to_string();
    assert_eq!(error, format!("the configuration {shown} does not exist; {help}"));
    let error = load(directory.path()).unwrap_err().to_string();
    assert_eq!(error, format!("the configuration {} is a directory; {help}", directory.path().display()));
    fs::write(&path, vec![b'\n'; (1 << 20) + 1]).unwrap();
    let error = load(&path).unwrap_err().to_string();
    assert_eq!(error, format!("the configuration {shown} is larger than 1 MiB; {help}"));
    fs::write(&path, b"[server]\n# caf\xe9 in Latin-1\nhostname = \"mx.example.com\"\n").unwrap();
    let error = load(&path).unwrap_err().to_string();
    let expected = format!("{shown}:2:6: error: this is no UTF-8\n    # caf\u{fffd} in Latin-1\n         ^\n");
    assert!(error.starts_with(&expected), "{error}");
}

#[test]
fn places_are_counted_behind_a_byte_order_mark_and_before_crlf() {
    let text = format!("\u{feff}[limits]\r\nerrors = 0\r\n{MINIMAL}");
    let faults = parse(&text, "gateway.toml").unwrap_err();
    assert_eq!((faults[0].line, faults[0].column), (2, 10));
    assert!(!faults[0].to_string().contains('\r'));
    let faults = parse("\u{feff}x = 1", "gateway.toml").unwrap_err();
    assert!(faults.iter().any(|fault| fault.to_string().contains("1:1: error: `x`")), "{faults:?}");
    assert!(faults.iter().any(|fault| fault.to_string().contains("\n    x = 1\n    ^\n")), "{faults:?}");
}

#[test]
fn control_characters_are_not_shown() {
    for text in ["[server]\nhostname = \"\\u001b[2J\"\n", "[server]\nhostname = \"\u{1b}[2J\"\n", "\u{7}\u{9b}31m\n"] {
        let shown = shown(parse(text, "gateway.toml"));
        assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
    }
}

#[test]
fn more_faults_than_anybody_reads_are_counted() {
    let networks = "\"10.0.0.1/8\",".repeat(2500);
    let text = MINIMAL.replace("local_domains", &format!("allowed_networks = [{networks}]\nlocal_domains"));
    let faults = parse(&text, "gateway.toml").unwrap_err();
    assert_eq!(faults.len(), 1001);
    assert_eq!(faults[1000].message, "there are 1500 more faults");
}
