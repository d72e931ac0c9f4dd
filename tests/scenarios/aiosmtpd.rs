//! aiosmtpd knows the client by either PROXY header.

use tests::peers::aiosmtpd::Aiosmtpd;
use tests::peers::arrival::client_is_known;
use tests::peers::available;
use tests::peers::net::Trio;

fn check(identity: &str, version: &str) {
    if !available(&format!("aiosmtpd with {identity}"), &["aiosmtpd"]) {
        return;
    }
    let trio = Trio::new();
    let aiosmtpd = Aiosmtpd::start(&trio.backend);
    client_is_known(&trio, &aiosmtpd, identity, &["mail from=sender@client.test", version]);
}

#[test]
fn proxy_v1() {
    check("proxy-v1", "version=1 ");
}

#[test]
fn proxy_v2() {
    check("proxy-v2", "version=2 ");
}
