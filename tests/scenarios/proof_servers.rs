//! The relay proof before Exim, OpenSMTPD and Haraka: other servers trust by other words, and deny by others.

use std::net::SocketAddr;

use tests::peers::exim::{self, Exim};
use tests::peers::haraka::{Haraka, Told};
use tests::peers::net::Trio;
use tests::peers::opensmtpd::{self, OpenSmtpd};
use tests::peers::selftest::{Selftest, Verdict};
use tests::peers::{Backend as _, available};

fn verdict(trio: &Trio, address: SocketAddr, identity: &str, keys: &str) -> Verdict {
    Selftest::new(trio, address, identity).with(keys).run()
}

const INSIDER: &str = "trusted = [\"10.9.9.9\"]";

#[test]
fn exim() {
    if !available("the relay proof before Exim", &["exim"]) {
        return;
    }
    let trio = Trio::new();
    for (trust, identity, keys, state, code, mend) in [
        (exim::Trust::GatewayBlindly, "none", "", "open", 1, "hosts_proxy"),
        (exim::Trust::GatewayBlindly, "proxy-v2", "", "latent", 1, "relay_from_hosts"),
        (exim::Trust::Gateway, "proxy-v1", "", "latent", 1, "relay_from_hosts"),
        (exim::Trust::Gateway, "proxy-v2", "", "latent", 1, "relay_from_hosts"),
        (exim::Trust::Insider, "proxy-v1", "", "safe-unproven", 0, ""),
        (exim::Trust::Insider, "proxy-v2", INSIDER, "proven", 0, ""),
        (exim::Trust::Nobody, "proxy-v2", "", "safe-unproven", 0, ""),
    ] {
        let exim = Exim::trusting(&trio.backend, trust);
        let verdict = verdict(&trio, exim.address(), identity, keys);
        verdict.expect(state, code);
        assert!(verdict.mend().contains(mend), "{trust:?}, {identity}: {}", verdict.mend());
    }
}

#[test]
fn opensmtpd() {
    if !available("the relay proof before OpenSMTPD", &["opensmtpd"]) {
        return;
    }
    let trio = Trio::new();
    for (trust, identity, keys, state, code, mend) in [
        (opensmtpd::Trust::GatewayBlindly, "none", "", "open", 1, "proxy-v2"),
        (opensmtpd::Trust::Gateway, "proxy-v2", "", "latent", 1, "match from src"),
        (opensmtpd::Trust::Everybody, "proxy-v2", "", "open", 1, "proxy-v2"),
        (opensmtpd::Trust::Insider, "proxy-v2", INSIDER, "proven", 0, ""),
        (opensmtpd::Trust::Nobody, "proxy-v2", "", "safe-unproven", 0, ""),
    ] {
        let opensmtpd = OpenSmtpd::trusting(&trio.backend, trust);
        let verdict = verdict(&trio, opensmtpd.address(), identity, keys);
        verdict.expect(state, code);
        assert!(verdict.mend().contains(mend), "{trust:?}, {identity}: {}", verdict.mend());
    }
}

#[test]
fn haraka() {
    if !available("the relay proof before Haraka", &["haraka"]) {
        return;
    }
    let trio = Trio::new();
    for (told, identity) in [(Told::Xclient, "xclient"), (Told::Proxy, "proxy-v1")] {
        let haraka = Haraka::start(&trio.backend, told);
        verdict(&trio, haraka.address(), identity, "").expect("safe-unproven", 0);
    }
}
