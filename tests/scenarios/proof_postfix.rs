//! The relay proof before Postfix in every temper: each verdict of its table is a real server's, and none is a false alarm.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tests::peers::client::Client;
use tests::peers::forwarder::Forwarder;
use tests::peers::gateway::Gateway;
use tests::peers::net::{FRONT, Family, Trio};
use tests::peers::postfix::{Postfix, Temper};
use tests::peers::selftest::{Selftest, Verdict};
use tests::peers::{Backend as _, available};

/// Of a running gateway.
const PROOF: &str = "[proof]\npause = \"0s\"\nforeign_domain = \"elsewhere.test\"\nlocal_user = \"box\"\n";

/// The self-test of a Postfix with this temper, for IPv4 clients; `None` where it cannot run.
fn proven(temper: Temper, identity: &str, keys: &str) -> Option<Verdict> {
    if !available(&format!("the relay proof before a Postfix ({temper:?}, {identity})"), &["postfix"]) {
        return None;
    }
    let trio = Trio::new();
    let postfix = Postfix::start(&trio.backend, temper);
    let verdict = Selftest::new(&trio, postfix.address(), identity).with(keys).run();
    let log = postfix.log().text();
    assert!(!log.contains("status=sent"), "something was delivered: {log}");
    Some(verdict)
}

#[test]
fn trusted_and_blind_is_open() {
    let Some(verdict) = proven(Temper::Confused, "none", "") else { return };
    verdict.expect("open", 1);
    assert_eq!((verdict.answer("naked"), verdict.answer("front-door")), ("accepts", "refuses"));
    assert!(verdict.findings("IPv4").iter().any(|finding| finding.contains("guard holds")), "{verdict:?}");
    assert!(verdict.mend().contains("smtpd_authorized_xclient_hosts = 198.51.100.1"), "{}", verdict.mend());
}

/// The gateway fails closed, so nobody relays; but trust is trust.
#[test]
fn trusted_without_xclient_is_latent() {
    let Some(verdict) = proven(Temper::Confused, "xclient", "") else { return };
    verdict.expect("latent", 1);
    assert!(verdict.mend().contains("mynetworks"), "{}", verdict.mend());
    let findings = verdict.findings("IPv4");
    assert!(findings.iter().any(|finding| finding.contains("does not offer XCLIENT to 198.51.100.1")), "{findings:?}");
}

#[test]
fn trusted_with_xclient_is_latent() {
    let Some(verdict) = proven(Temper::TrustingXclient, "xclient", "") else { return };
    verdict.expect("latent", 1);
    assert_eq!((verdict.answer("naked"), verdict.answer("outsider")), ("accepts", "refuses"));
}

#[test]
fn trusted_with_proxy_is_latent() {
    for identity in ["proxy-v1", "proxy-v2"] {
        let Some(verdict) = proven(Temper::TrustingProxy, identity, "") else { return };
        verdict.expect("latent", 1);
        assert_eq!((verdict.answer("naked"), verdict.answer("outsider")), ("accepts", "refuses"));
    }
}

#[test]
fn identity_that_grants_trust_is_open() {
    let Some(verdict) = proven(Temper::TrustingStrangers, "xclient", "") else { return };
    verdict.expect("open", 1);
    assert_eq!((verdict.answer("naked"), verdict.answer("outsider")), ("refuses", "accepts"));
}

#[test]
fn trust_in_everybody_is_open() {
    let Some(verdict) = proven(Temper::TrustingEverybody, "xclient", "") else { return };
    verdict.expect("open", 1);
    assert_eq!((verdict.answer("naked"), verdict.answer("outsider")), ("accepts", "accepts"));
}

#[test]
fn believed_is_proven() {
    for keys in ["trusted = [\"10.9.9.9\"]", "shunned = [\"10.9.9.66\"]"] {
        let Some(verdict) = proven(Temper::Believing, "xclient", keys) else { return };
        verdict.expect("proven", 0);
        assert_eq!(verdict.findings("IPv4"), Vec::<String>::new());
    }
}

#[test]
fn correct_is_safe_by_every_identity() {
    for (temper, identity) in [
        (Temper::Believing, "xclient"),
        (Temper::Proxy, "proxy-v1"),
        (Temper::Proxy, "proxy-v2"),
        (Temper::Postscreen, "proxy-v2"),
    ] {
        let Some(verdict) = proven(temper, identity, "") else { return };
        verdict.expect("safe-unproven", 0);
        let probe = verdict.probe("front-door");
        assert_eq!(probe["refused"], probe["of"], "{probe:#}");
    }
}

#[test]
fn both_families_have_their_own_verdict() {
    if !available("the relay proof of both families before a Postfix", &["postfix"]) {
        return;
    }
    let trio = Trio::new();
    let postfix = Postfix::start(&trio.backend, Temper::TrustingXclient);
    let verdict = Selftest::new(&trio, postfix.address(), "xclient").families(&Family::BOTH).run();
    assert_eq!((verdict.state("IPv4"), verdict.state("IPv6"), verdict.code), ("latent", "latent", 1));
    drop(postfix);
    let postfix = Postfix::start_at(&trio.backend, Temper::Believing, Family::V6);
    let verdict = Selftest::new(&trio, postfix.address(), "xclient").families(&Family::BOTH).run();
    assert_eq!((verdict.state("IPv4"), verdict.state("IPv6"), verdict.code), ("safe-unproven", "safe-unproven", 0));
}

#[test]
fn what_takes_everybody_is_no_relay() {
    for temper in [Temper::CatchAll, Temper::Bouncing] {
        let Some(verdict) = proven(temper, "xclient", "") else { return };
        verdict.expect("safe-unproven", 0);
        let findings = verdict.findings("IPv4");
        assert!(
            findings.iter().any(|finding| finding.starts_with("note: it accepts users who do not exist")),
            "{findings:?}"
        );
    }
}

#[test]
fn odd_forms_are_backscatter_and_no_relay() {
    let Some(verdict) = proven(Temper::Odd, "xclient", "") else { return };
    verdict.expect("safe-unproven", 0);
    let findings = verdict.findings("IPv4");
    assert!(findings.iter().any(|finding| finding.contains("(backscatter)")), "{findings:?}");
}

#[test]
fn greylisting_that_shows_its_denials_is_no_obstacle() {
    let Some(verdict) = proven(Temper::Greylisting, "xclient", "") else { return };
    verdict.expect("safe-unproven", 0);
}

#[test]
fn greylisting_that_hides_them_is_inconclusive() {
    // No time to come again: it puts everybody off for ever.
    let Some(verdict) = proven(Temper::GreylistingFirst, "xclient", "deadline = \"20s\"") else { return };
    verdict.expect("inconclusive", 2);
    let findings = verdict.findings("IPv4");
    assert!(findings.iter().any(|finding| finding.contains("greylisting")), "{findings:?}");
}

#[test]
fn a_blocked_prober_is_inconclusive() {
    let Some(verdict) = proven(Temper::Blocking, "xclient", "") else { return };
    verdict.expect("inconclusive", 2);
    let findings = verdict.findings("IPv4");
    assert!(findings.iter().any(|finding| finding.contains("the prober is blocked there")), "{findings:?}");
}

/// As Exchange and hardened servers do: a wait before each refusal, and the end of the session with the fifth.
#[test]
fn one_that_lets_strangers_wait_gets_its_verdict_in_time() {
    let begun = Instant::now();
    let Some(verdict) = proven(Temper::Slow, "xclient", "deadline = \"60s\"") else { return };
    verdict.expect("safe-unproven", 0);
    // A fifth of the deadline, and what was under way then. One after another, its refusals would take two minutes.
    assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
    let findings = verdict.findings("IPv4");
    assert!(findings.iter().any(|finding| finding.contains("not tried yet: it waits up to 1.")), "{findings:?}");
}

#[test]
fn one_that_minds_names_is_told_them() {
    let Some(verdict) = proven(Temper::Nameful, "xclient", "") else { return };
    verdict.expect("safe-unproven", 0);
    for probe in ["naked", "outsider"] {
        let opening = verdict.probe(probe)["opening"].to_string();
        assert!(opening.contains("NAME=gateway.test"), "{opening}");
    }
}

#[test]
fn one_that_minds_names_and_takes_none_says_what_to_set() {
    let Some(verdict) = proven(Temper::NamefulProxy, "proxy-v2", "deadline = \"20s\"") else { return };
    verdict.expect("inconclusive", 2);
    let findings = verdict.findings("IPv4");
    assert!(
        findings.iter().any(|finding| finding.contains("`proof.outsiders` an address that has a name")),
        "{findings:?}"
    );
}

/// It puts off whomever it does not know, whatever the recipient, and knows him the next time.
#[test]
fn one_that_tests_clients_first_is_asked_again() {
    let Some(verdict) = proven(Temper::PostscreenDeep, "proxy-v2", "") else { return };
    verdict.expect("safe-unproven", 0);
}

#[test]
fn one_without_dns_is_asked_what_needs_none() {
    let Some(verdict) = proven(Temper::WithoutDns, "xclient", "") else { return };
    verdict.expect("safe-unproven", 0);
}

#[test]
fn one_that_has_no_place_for_the_proof_is_busy() {
    let Some(verdict) = proven(Temper::Counting, "xclient", "deadline = \"20s\"") else { return };
    verdict.expect("inconclusive", 2);
    let findings = verdict.findings("IPv4");
    assert!(
        findings.iter().any(|finding| finding.contains("for it is busy: it") && finding.contains("421")),
        "{findings:?}"
    );
    let mend = verdict.mend();
    assert!(mend.contains("smtpd_client_connection_rate_limit"), "{mend}");
}

/// A forwarder on the gateway's host hides its clients behind an address that may relay.
#[test]
fn strangers_behind_a_forwarder_are_never_safe() {
    if !available("the relay proof behind a forwarder", &["postfix"]) {
        return;
    }
    let trio = Trio::new();
    let postfix = Postfix::start(&trio.backend, Temper::TrustingFront);
    let front = Family::V4.smtp(FRONT);
    let own = "\"192.0.2.0/24\"";
    let verdict = Selftest::new(&trio, postfix.address(), "xclient").allowing(own).run_both();
    verdict.expect("latent", 1);
    let findings = verdict.findings("IPv4");
    let found = "high: who comes from 192.0.2.1, an address of this host? That may relay by `relay.allowed_networks`";
    assert!(findings.iter().any(|finding| finding.starts_with(found)), "{findings:?}");
    assert!(verdict.mend().contains("take 192.0.2.1 out of `relay.allowed_networks`"), "{}", verdict.mend());
    assert!(verdict.page.contains("LATENT") && verdict.page.contains("who comes from 192.0.2.1"), "{}", verdict.page);
    // And it is so: a stranger of elsewhere, who comes by the forwarder, relays.
    let gateway =
        Gateway::start_relaying(&trio, postfix.address(), "xclient", &format!("allowed_networks = [{own}]"), PROOF);
    let forwarder: SocketAddr = "192.0.2.1:2525".parse().unwrap();
    let _forwarder = Forwarder::start(&trio.gateway, forwarder, front);
    let mut stranger = Client::over(trio.client.connect(forwarder).unwrap());
    stranger.expect(2);
    stranger.must("EHLO client.test");
    stranger.must("MAIL FROM:<a@client.test>");
    stranger.must("RCPT TO:<victim@elsewhere.test>");
    gateway.log().wait_for(&["trust that must not be", "192.0.2.1"]);
    // Machines that are named by themselves are nobody's forwarder.
    let verdict = Selftest::new(&trio, postfix.address(), "xclient").allowing("\"192.0.2.10/32\"").run();
    verdict.expect("safe-unproven", 0);
}

#[test]
fn nobody_there_is_inconclusive() {
    if !available("the relay proof before nobody", &[]) {
        return;
    }
    let trio = Trio::new();
    let verdict = Selftest::new(&trio, "198.51.100.25:25".parse().unwrap(), "xclient").run();
    verdict.expect("inconclusive", 2);
    let findings = verdict.findings("IPv4");
    assert!(findings[0].contains("cannot connect to 198.51.100.25:25"), "{findings:?}");
}

/// Level 2 goes on to DATA, and shows what else trust lifts. Nothing is left behind.
#[test]
fn level_2_audits_and_leaves_nothing_behind() {
    let keys = "level = 2";
    let Some(verdict) = proven(Temper::TrustingXclient, "xclient", keys) else { return };
    verdict.expect("latent", 1);
    let findings = verdict.findings("IPv4");
    assert!(
        findings
            .iter()
            .any(|finding| finding.contains("line feed on its own ends a message from 198.51.100.1, though not")),
        "{findings:?}"
    );
    let case = &verdict.probe("naked")["failing"][0]["transcript"];
    assert!(case.to_string().contains("354"), "{case:#}");
    let Some(verdict) = proven(Temper::Believing, "xclient", keys) else { return };
    verdict.expect("safe-unproven", 0);
}

/// Level 3 sends one message by each way that relays.
#[test]
fn level_3_sends_the_canary() {
    if !available("the relay proof's canary before a Postfix", &["postfix"]) {
        return;
    }
    let trio = Trio::new();
    let postfix = Postfix::start(&trio.backend, Temper::TrustingEverybody);
    let keys = "level = 3\ncanary = \"canary@elsewhere.test\"";
    let verdict = Selftest::new(&trio, postfix.address(), "xclient").with(keys).run();
    let sent = verdict.leg("IPv4")["sent"].as_array().unwrap();
    assert_eq!(sent.len(), 2, "{sent:?}");
    assert!(sent.iter().all(|sent| sent["answer"].as_str().unwrap().contains("queued as")), "{sent:?}");
    postfix.log().wait_for_count(&["postfix/", "to=<canary@elsewhere.test>"], 2);
    assert!(!postfix.log().text().contains("to=<box@"), "{}", postfix.log().text());
}
