//! A Postfix that knows neither XCLIENT nor PROXY sees its clients all the same: the gateway connects from their addresses.

use std::process::Output;

use serde_json::Value;
use tests::peers::client::Client;
use tests::peers::gateway::Gateway;
use tests::peers::net::{BACKEND, CLIENT, Family, Host, Trio};
use tests::peers::postfix::{Postfix, Temper};
use tests::peers::selftest::Selftest;
use tests::peers::{Backend as _, available};

/// Clients that get no answer need not wait long for 451.
const IMPATIENT: &str = "[timeouts]\nconnect = \"1s\"\n";

#[track_caller]
fn done(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Everything that `ip` knows of a host's routing.
fn routing(host: &Host) -> String {
    let shows = ["-4 rule show", "-6 rule show", "-4 route show table all", "-6 route show table all"];
    shows.map(|show| done(&host.command("ip").args(show.split(' ')).output().unwrap())).concat()
}

/// It trusts the gateway's address, and clients do not come from there.
#[test]
fn a_postfix_without_xclient_sees_the_client() {
    if !available("transparent before a Postfix", &["postfix"]) {
        return;
    }
    let trio = Trio::new();
    trio.route_answers_back();
    let mut postfix = Postfix::start(&trio.backend, Temper::Confused);
    for family in Family::BOTH {
        let gateway = Gateway::start_with(&trio, family.smtp(BACKEND), "transparent", IMPATIENT);
        done(&gateway.network(&trio, "up"));
        let mut client = Client::to_gateway(&trio.client, family);
        client.must("EHLO client.test");
        assert_eq!(client.mail("a@client.test", "box@local.test", b"Subject: x\r\n\r\ntext\r\n").code, 250);
        client.quit();
        assert_eq!(postfix.next_message(), b"Subject: x\r\n\r\ntext\r\n");
        postfix.log().wait_for_address(&["postfix/smtpd", "connect from unknown["], family.ip(CLIENT));
        let status = gateway.json(&["status"]);
        assert_eq!(
            (&status["backends"][0]["identity"], &status["backends"][0]["healthy"]),
            (&"transparent".into(), &true.into())
        );
        done(&gateway.network(&trio, "down"));
    }
}

#[test]
fn without_the_way_back_no_mail_passes_until_it_is_there() {
    if !available("transparent without its routing", &["postfix"]) {
        return;
    }
    let trio = Trio::new();
    trio.route_answers_back();
    let postfix = Postfix::start(&trio.backend, Temper::Confused);
    let gateway = Gateway::start_with(&trio, postfix.address(), "transparent", IMPATIENT);
    let mut client = Client::to_gateway(&trio.client, Family::V4);
    client.must("EHLO client.test");
    assert_eq!(
        client.command("MAIL FROM:<a@client.test>").lines,
        ["451 4.4.1 The mail server cannot be reached now; try again later"]
    );
    let backend = gateway.json(&["status"])["backends"][0].clone();
    assert_eq!(backend["healthy"], false);
    let problem = backend["problem"].as_str().unwrap();
    assert!(
        problem.contains("no answer comes back to clients' addresses") && problem.contains("network show"),
        "{problem}"
    );

    assert!(done(&gateway.network(&trio, "show")).contains("sport 25 lookup 25025    # missing"));
    done(&gateway.network(&trio, "up"));
    client.must("MAIL FROM:<a@client.test>");
    client.quit();
    gateway.log().wait_for(&["backend is healthy again"]);
    assert_eq!(gateway.json(&["status"])["backends"][0]["problem"], Value::Null);
}

/// Nothing of a client's may come from the address that the server trusts, even if it is the client's own.
#[test]
fn a_client_with_the_gateways_address_is_put_off() {
    if !available("transparent for a client on the gateway's host", &["postfix"]) {
        return;
    }
    let trio = Trio::new();
    trio.route_answers_back();
    let postfix = Postfix::start(&trio.backend, Temper::Confused);
    let gateway = Gateway::start_with(&trio, postfix.address(), "transparent", IMPATIENT);
    done(&gateway.network(&trio, "up"));
    let mut client = Client::to_gateway(&trio.gateway, Family::V4);
    client.must("EHLO client.test");
    assert_eq!(client.command("MAIL FROM:<a@client.test>").code, 451);
    client.quit();
    // It is this client's affair, and no fault of the server's.
    assert_eq!(gateway.json(&["status"])["backends"][0]["healthy"], true);
    assert!(!postfix.log().text().contains("mail="), "{}", postfix.log().text());
}

#[test]
fn the_routing_is_set_once_and_undone_cleanly() {
    if !available("network up and down", &["postfix"]) {
        return;
    }
    let trio = Trio::new();
    let before = routing(&trio.gateway);
    for family in Family::BOTH {
        let gateway = Gateway::start(&trio, family.smtp(BACKEND), "transparent");
        let up = done(&gateway.network(&trio, "up"));
        assert!(up.contains(&format!("rule add pref 25025 from {} ipproto tcp sport 25", family.of(BACKEND))), "{up}");
        let there = routing(&trio.gateway);
        assert_ne!(there, before);
        assert_eq!(done(&gateway.network(&trio, "up")), "nothing to do\n");
        assert_eq!(routing(&trio.gateway), there);
        assert!(done(&gateway.network(&trio, "show")).contains("# in place"));
        done(&gateway.network(&trio, "down"));
        assert_eq!(routing(&trio.gateway), before);
        assert_eq!(done(&gateway.network(&trio, "down")), "nothing to do\n");
    }
    // What a backend left behind that has moved goes when the next is set up.
    let [moved, next] = ["198.51.100.25:25", "198.51.100.26:2525"].map(|backend| {
        let gateway = Gateway::start(&trio, backend.parse().unwrap(), "transparent");
        done(&gateway.network(&trio, "up"))
    });
    assert!(moved.contains("rule add") && next.contains("rule del pref 25025 from 198.51.100.25"), "{next}");
    let rules = done(&trio.gateway.command("ip").args(["-4", "rule", "show"]).output().unwrap());
    assert_eq!(rules.matches("25025:").count(), 1, "{rules}");
}

/// Naked and outsider are two source addresses, and the server tells them apart.
#[test]
fn the_proof_tells_trust_in_the_gateway_from_trust_in_its_clients() {
    if !available("the relay proof through a transparent gateway", &["postfix"]) {
        return;
    }
    let trio = Trio::new();
    trio.route_answers_back();
    let postfix = Postfix::start(&trio.backend, Temper::Confused);
    // Without the routing here, strangers are not heard.
    let verdict = Selftest::new(&trio, postfix.address(), "transparent").with(IMPATIENT).run();
    verdict.expect("latent", 1);
    let findings = verdict.findings("IPv4");
    assert!(
        findings.iter().any(|text| text.contains("cannot connect to 198.51.100.25:25 from 203.0.113.77")),
        "{findings:?}"
    );
    let gateway = Gateway::start(&trio, postfix.address(), "transparent");
    done(&gateway.network(&trio, "up"));
    drop(gateway);

    let verdict = Selftest::new(&trio, postfix.address(), "transparent").run();
    verdict.expect("latent", 1);
    assert_eq!((verdict.answer("naked"), verdict.answer("outsider")), ("accepts", "refuses"));
    assert_eq!(verdict.probe("outsider")["source"], "203.0.113.77");
    assert_eq!(verdict.answer("front-door"), "refuses");
    drop(postfix);

    let postfix = Postfix::start(&trio.backend, Temper::Believing);
    let verdict = Selftest::new(&trio, postfix.address(), "transparent").with("spoof_from = [\"198.51.100.1\"]").run();
    verdict.expect("safe-unproven", 0);
    assert_eq!(verdict.findings("IPv4"), Vec::<String>::new());
    let verdict = Selftest::new(&trio, postfix.address(), "transparent").with("trusted = [\"10.9.9.9\"]").run();
    verdict.expect("proven", 0);

    let backend = Family::V6.smtp(BACKEND);
    let gateway = Gateway::start(&trio, backend, "transparent");
    done(&gateway.network(&trio, "up"));
    drop(gateway);
    let verdict = Selftest::new(&trio, backend, "transparent").families(&[Family::V6]).run();
    assert_eq!((verdict.state("IPv6"), verdict.code), ("safe-unproven", 0), "{:#}", verdict.report);
    assert!(!postfix.log().text().contains("status=sent"));
}

/// Invariant 10: the one capability that a client's address takes, and no other; without it nothing starts.
#[test]
fn one_capability_is_kept_and_needed() {
    if !available("transparent without privilege", &["postfix"]) {
        return;
    }
    let trio = Trio::new();
    let backend = Family::V4.smtp(BACKEND);
    let gateway = Gateway::start(&trio, backend, "transparent");
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    for (set, mask) in [("CapInh", 0), ("CapPrm", 1 << 13), ("CapEff", 1 << 13), ("CapAmb", 0), ("CapBnd", 0)] {
        let line = status.lines().find(|line| line.starts_with(set)).unwrap();
        assert_eq!(line, format!("{set}:\t{mask:016x}"));
    }
    drop(gateway);
    let output =
        Gateway::refused(&trio, backend, "transparent", &["--bounding-set", "-net_raw", "--inh-caps", "-net_raw"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("needs the capability CAP_NET_RAW") && !said.contains("ready"), "{said}");
}
