//! Postfix knows the client by XCLIENT, by PROXY in `smtpd`, and by PROXY in `postscreen`.

use tests::peers::arrival::client_is_known;
use tests::peers::available;
use tests::peers::net::{Family, Trio};
use tests::peers::postfix::{Postfix, Temper};

/// What `smtpd` writes when it opens a queue file.
const QUEUED: &[&str] = &["postfix/smtpd", ": client=unknown["];

fn check(scenario: &str, temper: Temper, family: Family, identity: &str) {
    if !available(scenario, &["postfix"]) {
        return;
    }
    let trio = Trio::new();
    let postfix = Postfix::start_at(&trio.backend, temper, family);
    client_is_known(&trio, &postfix, identity, QUEUED);
}

#[test]
fn xclient() {
    check("Postfix with XCLIENT", Temper::Xclient, Family::V4, "xclient");
}

#[test]
fn xclient_over_ipv6() {
    check("Postfix with XCLIENT over IPv6", Temper::Xclient, Family::V6, "xclient");
}

#[test]
fn proxy_v1_in_smtpd() {
    check("Postfix smtpd with PROXY v1", Temper::Proxy, Family::V4, "proxy-v1");
}

#[test]
fn proxy_v2_in_smtpd() {
    check("Postfix smtpd with PROXY v2", Temper::Proxy, Family::V6, "proxy-v2");
}

#[test]
fn proxy_v1_behind_postscreen() {
    check("Postfix postscreen with PROXY v1", Temper::Postscreen, Family::V4, "proxy-v1");
}

#[test]
fn proxy_v2_behind_postscreen() {
    check("Postfix postscreen with PROXY v2", Temper::Postscreen, Family::V4, "proxy-v2");
}
