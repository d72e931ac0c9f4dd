use std::net::SocketAddr;

use super::*;
use crate::identity::PeerAddr;
use crate::smtp::command::{Command, parse_command};

#[derive(serde::Deserialize)]
struct RelayTests {
    case: Vec<Case>,
}

#[derive(serde::Deserialize)]
struct Case {
    id: String,
    from: String,
    to: String,
    expect: String,
}

fn guard() -> RelayGuard {
    let mut local_domains = DomainSet::new();
    local_domains.insert("local.test").unwrap();
    RelayGuard { local_domains, allowed_networks: vec!["192.0.2.0/24".parse().unwrap()] }
}

fn client(ip: &str) -> ClientAddr {
    ClientAddr::direct(PeerAddr::from_socket(SocketAddr::new(ip.parse().unwrap(), 4711)))
}

/// What a client hears of `line` from gateway alone: `None` if it is refused.
fn passes(client_ip: &str, line: &str) -> Option<()> {
    match parse_command(line.as_bytes()).ok()? {
        Command::Mail { path, params } => {
            let utf8 = params.iter().any(|param| param.keyword == "SMTPUTF8");
            let known = params.iter().all(|param| param.keyword == "SMTPUTF8");
            (known && (utf8 || !path.needs_utf8())).then_some(())
        }
        Command::Rcpt { path, .. } => (guard().judge(client(client_ip), &path) == RelayVerdict::Pass).then_some(()),
        _ => None,
    }
}

#[test]
fn every_trick_is_answered_as_expected() {
    let RelayTests { case: cases } = toml::from_str(include_str!("../../../../tests/relay-tests.toml")).unwrap();
    assert_eq!(cases.len(), 79);
    for case in cases {
        let fill = |text: &str| {
            [("{fd}", "foreign.example"), ("{ld}", "local.test"), ("{host}", "mx.local.test"), ("{ip}", "192.0.2.10")]
                .iter()
                .chain(&[("{fip}", "203.0.113.5"), ("{u}", "victim")])
                .fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
        };
        let mail = passes("203.0.113.9", &format!("MAIL FROM:{}", fill(&case.from)));
        let rcpt = passes("203.0.113.9", &format!("RCPT TO:{}", fill(&case.to)));
        let accepted = mail.and(rcpt).is_some();
        match &*case.expect {
            "refuse" => assert!(!accepted, "{} is relayed", case.id),
            "accept" | "local" | "control-accept" | "control-refuse" => assert!(accepted, "{} is refused", case.id),
            "local-if-exists" => {}
            other => panic!("unknown expectation {other}"),
        }
    }
}

#[test]
fn allowed_networks_may_send_anywhere_that_is_a_domain() {
    assert!(passes("192.0.2.7", "RCPT TO:<a@foreign.example>").is_some());
    assert!(passes("192.0.2.7", "RCPT TO:<a%b@foreign.example>").is_some());
    assert!(passes("192.0.2.7", "RCPT TO:<a@foreign。example>").is_none());
    assert!(passes("203.0.113.9", "RCPT TO:<a@foreign.example>").is_none());
}
