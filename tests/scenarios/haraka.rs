//! Haraka knows the client by XCLIENT and by a PROXY version 1 header.

use tests::peers::arrival::client_is_known;
use tests::peers::available;
use tests::peers::haraka::{Haraka, Told};
use tests::peers::net::Trio;

fn check(told: Told, identity: &str) {
    if !available(&format!("Haraka with {identity}"), &["haraka"]) {
        return;
    }
    let trio = Trio::new();
    let haraka = Haraka::start(&trio.backend, told);
    // Its last line about a connection sums it up.
    client_is_known(&trio, &haraka, identity, &["[core] disconnect", "msgs=1/0/0"]);
}

#[test]
fn xclient() {
    check(Told::Xclient, "xclient");
}

#[test]
fn proxy_v1() {
    check(Told::Proxy, "proxy-v1");
}
