use std::fmt::Write as _;
use std::time::Instant;

use super::*;
use crate::config::parse;

const CONFIG: &str = r#"
[server]
hostname = "mx.example.com"
[[listener]]
address = "192.0.2.1:25"
[[listener]]
address = "192.0.2.2:25"
backend = "second"
[relay]
local_domains = ["example.com"]
[[backend]]
name = "first"
address = "192.0.2.25"
[[backend]]
name = "second"
address = "192.0.2.26"
[[backend]]
name = "third"
address = "192.0.2.27"
"#;

fn routes(text: &str, listener: usize) -> (Config, Routes) {
    let config = parse(&format!("{CONFIG}{text}"), "gateway.toml").unwrap();
    let routes = Routes::new(&config, listener);
    (config, routes)
}

/// The name of the backend for `recipient`, from a client, with a sender's domain or none.
fn decided(text: &str, listener: usize, (client, sender, recipient): (&str, &str, &str)) -> String {
    let (config, routes) = routes(text, listener);
    let argument = format!("<{recipient}>");
    let (recipient, _) = ForwardPath::parse(&argument).unwrap();
    let sender = Some(sender).filter(|sender| !sender.is_empty());
    let decision = routes.decide(&Envelope { client: client.parse().unwrap(), sender, recipient: &recipient });
    config.pools[routes.pools()[decision.place]].name.clone()
}

#[test]
fn the_first_route_that_fits_decides() {
    const ROUTES: &str = r#"
        [[route]]
        recipients = ["boss@example.net", "bücher.example"]
        backend = "third"
        [[route]]
        recipients = ["example.net", ".example.net", "[192.0.2.9]"]
        backend = "second"
        [[route]]
        clients = ["10.0.0.0/8"]
        senders = ["partner.test"]
        backend = "third"
        [[route]]
        recipients = ["other.test"]
        listeners = ["192.0.2.2:25"]
        backend = "third"
    "#;
    for (listener, client, sender, recipient, backend) in [
        (0, "198.51.100.1", "", "user@example.com", "first"),
        (1, "198.51.100.1", "", "user@example.com", "second"),
        (0, "198.51.100.1", "", "user@example.net", "second"),
        (0, "198.51.100.1", "", "user@EXAMPLE.net", "second"),
        (0, "198.51.100.1", "", "user@a.b.example.net", "second"),
        (0, "198.51.100.1", "", "user@an-example.net", "first"),
        (0, "198.51.100.1", "", "Boss@example.net", "third"),
        (0, "198.51.100.1", "", "boss@a.example.net", "second"),
        (0, "198.51.100.1", "", "user@xn--bcher-kva.example", "third"),
        (0, "198.51.100.1", "", "user@[192.0.2.9]", "second"),
        (0, "198.51.100.1", "", "postmaster", "first"),
        // Every condition must hold.
        (0, "10.1.1.1", "partner.test", "user@example.com", "third"),
        (0, "10.1.1.1", "", "user@example.com", "first"),
        (0, "198.51.100.1", "partner.test", "user@example.com", "first"),
        // The order counts, and not how exact a route is.
        (0, "10.1.1.1", "partner.test", "user@example.net", "second"),
        (0, "198.51.100.1", "", "user@other.test", "first"),
        (1, "198.51.100.1", "", "user@other.test", "third"),
    ] {
        assert_eq!(
            decided(ROUTES, listener, (client, sender, recipient)),
            backend,
            "{listener} {client} {sender} {recipient}"
        );
    }
}

#[test]
fn without_routes_a_listener_leads_to_its_own_backend() {
    assert_eq!(routes("", 1).1.pools(), [1]);
}

const USERS: &str = r#"
    [[listener]]
    address = "192.0.2.3:587"
    service = "submission"
    [submission]
    clear_text_networks = ["10.0.0.0/8"]
    [[route]]
    recipients = ["example.com"]
    backend = "third"
    [[route]]
    users = ["Boss@example.net", "alice"]
    backend = "third"
    [[route]]
    users = ["example.net", ".example.net"]
    clients = ["10.0.0.0/8"]
    backend = "second"
"#;

#[test]
fn where_users_send_they_decide_and_not_their_recipients() {
    let (config, users) = routes(USERS, 2);
    for (client, user, backend) in [
        ("10.1.1.1", None, "first"),
        ("10.1.1.1", Some("boss@EXAMPLE.net"), "third"),
        ("10.1.1.1", Some("Alice"), "third"),
        ("10.1.1.1", Some("alice@example.org"), "first"),
        ("10.1.1.1", Some("bob@example.net"), "second"),
        ("10.1.1.1", Some("bob@a.example.net"), "second"),
        ("192.0.2.9", Some("bob@example.net"), "first"),
    ] {
        let decision = users.decide_user(client.parse().unwrap(), user);
        assert_eq!(config.pools[users.pools()[decision.place]].name, backend, "{client} {user:?}");
    }
    assert_eq!(users.pools(), [0, 2, 1], "what recipients decide is for other listeners");
    assert_eq!(routes(USERS, 0).1.pools(), [0, 2]);
}

/// Not a test but a measurement: `cargo test --release -p smtp-gateway --lib -- --ignored --nocapture measure_routes`.
#[test]
#[ignore = "a measure: it wants a release build and a quiet machine"]
fn measure_routes() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("customers.txt");
    let lines = (0..10_000).fold(String::new(), |mut text, number| {
        let _ = writeln!(text, "customer-{number}.example.net second");
        text
    });
    std::fs::write(&file, lines).unwrap();
    let begun = Instant::now();
    let (config, routes) = routes(&format!("[[route]]\nfile = \"{}\"\n", file.display()), 0);
    let read = begun.elapsed();
    let (recipient, _) = ForwardPath::parse("<user@customer-7777.example.net>").unwrap();
    let envelope = Envelope { client: "198.51.100.1".parse().unwrap(), sender: None, recipient: &recipient };
    let begun = Instant::now();
    const ROUNDS: u32 = 1_000_000;
    for _ in 0..ROUNDS {
        std::hint::black_box(routes.decide(std::hint::black_box(&envelope)));
    }
    let look_up = begun.elapsed() / ROUNDS;
    let count = config.routes[0].recipients.len();
    assert_eq!(routes.pools()[routes.decide(&envelope).place], 1, "by the file");
    println!("{count} routes: read and made ready in {read:?}, a look-up takes {look_up:?}");
}

#[test]
fn ten_thousand_routes_cost_what_ten_cost() {
    let text = |count: usize| {
        (0..count).fold(String::new(), |mut text, number| {
            let _ = write!(text, "[[route]]\nrecipients = [\"d{number}.test\"]\nbackend = \"second\"\n");
            text
        })
    };
    let (recipient, _) = ForwardPath::parse("<user@d7.test>").unwrap();
    let envelope = Envelope { client: "198.51.100.1".parse().unwrap(), sender: None, recipient: &recipient };
    let time = |routes: &Routes| {
        let least = (0..20).map(|_| {
            let started = Instant::now();
            for _ in 0..1000 {
                assert_eq!(std::hint::black_box(routes.decide(std::hint::black_box(&envelope))).route, Some(7));
            }
            started.elapsed()
        });
        least.min().unwrap()
    };
    let (few, many) = (routes(&text(10), 0).1, routes(&text(10_000), 0).1);
    let (few, many) = (time(&few), time(&many));
    assert!(many < few * 5, "{few:?} for a thousand among ten, {many:?} among ten thousand");
}
