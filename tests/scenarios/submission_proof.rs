//! The relay proof where users log in, at a real Postfix with Dovecot.

use tests::peers::dovecot::{Dovecot, SASL};
use tests::peers::net::{FRONT, Host, Trio};
use tests::peers::postfix::Postfix;
use tests::peers::selftest::{Selftest, Verdict};
use tests::peers::submission::main_cf;
use tests::peers::{Backend as _, available};

/// What `selftest` makes of a Postfix with these users, for a gateway that only users come to. `keys` are more of `[proof]`,
/// and whole sections behind them.
fn prove(scenario: &str, users: impl FnOnce(&Host) -> Dovecot, keys: &str) -> Option<Verdict> {
    if !available(scenario, &["postfix", "dovecot"]) {
        return None;
    }
    let trio = Trio::new();
    let dovecot = users(&trio.backend);
    let postfix = Postfix::set_up(&trio.backend, &main_cf(SASL), "", 25);
    let listener = format!("[[listener]]\naddress = \"{}:587\"\nservice = \"submission\"\n", FRONT[0]);
    let networks =
        if keys.contains("[submission]") { "" } else { "[submission]\nclear_text_networks = [\"10.0.0.0/8\"]\n" };
    let selftest = Selftest::new(&trio, postfix.address(), "xclient").listening(&listener);
    let verdict = selftest.with("unknown_login = \"nobody-has-this-name\"").with(keys).with(networks).run();
    drop((postfix, dovecot));
    Some(verdict)
}

#[test]
fn who_has_not_logged_in_sends_nothing() {
    let users = |host: &_| Dovecot::start(host, "plain login");
    let Some(verdict) = prove("proof of a submission service", users, "") else { return };
    verdict.expect("safe-unproven", 0);
    assert_eq!(verdict.findings("IPv4"), [""; 0]);
    for probe in ["naked", "outsider", "front-door"] {
        assert_eq!(verdict.answer(probe), "refuses", "{probe}");
        assert_eq!(verdict.probe(probe)["failing"], serde_json::json!([]), "{probe}");
    }
}

#[test]
fn a_server_that_lets_in_whom_it_does_not_know_is_an_open_relay() {
    let Some(verdict) = prove("proof of a submission service that knows nobody", Dovecot::trusting, "") else { return };
    verdict.expect("open", 1);
    let findings = verdict.findings("IPv4");
    assert!(findings[0].starts_with("critical: an account that does not exist was logged in as"), "{findings:?}");
    assert!(verdict.mend().contains("nopassword"), "{}", verdict.mend());
}

#[test]
fn passwords_in_clear_are_found() {
    let users = |host: &_| Dovecot::start(host, "plain login");
    let clear = "[submission]\nclear_text_networks = [\"203.0.113.0/24\"]\n";
    let Some(verdict) = prove("proof of a submission service in clear", users, clear) else { return };
    let findings = verdict.findings("IPv4");
    let found = findings
        .iter()
        .any(|finding| finding.starts_with("warning: the gateway's own listener offers AUTH before TLS"));
    assert!(found, "{findings:?}");
}
