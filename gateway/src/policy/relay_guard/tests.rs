use std::net::SocketAddr;

use super::*;
use crate::identity::PeerAddr;
use crate::proof::cases::{Expect, Names, cases};
use crate::smtp::command::{Command, parse_command};

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
    let names = Names {
        foreign_domain: "foreign.example".into(),
        foreign_user: "victim".into(),
        local_domain: Some("local.test".into()),
        local_user: "user".into(),
        host: "mx.local.test".into(),
        ip: "192.0.2.10".into(),
        foreign_ip: "203.0.113.5".into(),
    };
    for case in cases() {
        let (from, to) = case.fill(&names).unwrap();
        let mail = passes("203.0.113.9", &format!("MAIL FROM:{from}"));
        let rcpt = passes("203.0.113.9", &format!("RCPT TO:{to}"));
        let accepted = mail.and(rcpt).is_some();
        match case.expect {
            Expect::Refuse => assert!(!accepted, "{} is relayed", case.id),
            Expect::Accept | Expect::Local | Expect::ControlAccept | Expect::ControlRefuse => {
                assert!(accepted, "{} is refused", case.id)
            }
            Expect::LocalIfExists => {}
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

#[test]
fn a_backend_that_is_open_gets_plain_recipients_only() {
    let judge = |ip: &str, line: &str| match parse_command(line.as_bytes()) {
        Ok(Command::Rcpt { path, .. }) => guard().judge_plain(client(ip), &path),
        other => panic!("{other:?}"),
    };
    for (line, expected) in [
        ("RCPT TO:<john.o'neil+list=a@local.test>", RelayVerdict::Pass),
        ("RCPT TO:<postmaster>", RelayVerdict::Pass),
        ("RCPT TO:<\"a b\"@local.test>", RelayVerdict::RoutedLocalPart),
        ("RCPT TO:<a/b@local.test>", RelayVerdict::RoutedLocalPart),
        ("RCPT TO:<ü@local.test>", RelayVerdict::RoutedLocalPart),
        ("RCPT TO:<a@foreign.example>", RelayVerdict::RelayDenied),
    ] {
        assert_eq!(judge("203.0.113.9", line), expected, "{line}");
    }
    assert_eq!(judge("192.0.2.7", "RCPT TO:<\"a b\"@foreign.example>"), RelayVerdict::Pass);
}
