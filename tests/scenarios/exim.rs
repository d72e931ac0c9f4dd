//! Exim knows the client by either PROXY header.

use tests::peers::arrival::client_is_known;
use tests::peers::available;
use tests::peers::exim::Exim;
use tests::peers::net::Trio;

fn check(identity: &str) {
    if !available(&format!("Exim with {identity}"), &["exim"]) {
        return;
    }
    let trio = Trio::new();
    let exim = Exim::start(&trio.backend);
    client_is_known(&trio, &exim, identity, &[" <= sender@client.test", "P=esmtp"]);
}

#[test]
fn proxy_v1() {
    check("proxy-v1");
}

#[test]
fn proxy_v2() {
    check("proxy-v2");
}
