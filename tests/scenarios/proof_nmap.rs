//! An independent judge: what nmap finds before a confused Postfix, through a blind forwarder and through the gateway.

use tests::peers::forwarder::Forwarder;
use tests::peers::gateway::Gateway;
use tests::peers::net::{FRONT, Family, Trio};
use tests::peers::nmap::relayed;
use tests::peers::postfix::{Postfix, Temper};
use tests::peers::{Backend as _, available};

#[test]
fn sixteen_of_sixteen_without_and_none_with_the_gateway() {
    if !available("nmap's open relay test", &["postfix", "nmap"]) {
        return;
    }
    let trio = Trio::new();
    let postfix = Postfix::start(&trio.backend, Temper::Confused);
    let front = Family::V4.smtp(FRONT);
    let forwarder = Forwarder::start(&trio.gateway, front, postfix.address());
    assert_eq!(relayed(&trio.client, front), 16, "through a forwarder");
    drop(forwarder);
    // It would be banned before its last trick.
    let _gateway = Gateway::start_with(&trio, postfix.address(), "none", "[bans]\nenabled = false\n");
    assert_eq!(relayed(&trio.client, front), 0, "through the gateway");
    assert!(!postfix.log().text().contains("status="), "{}", postfix.log().text());
}
