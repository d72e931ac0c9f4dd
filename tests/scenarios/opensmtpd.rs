//! OpenSMTPD knows the client by a PROXY version 2 header.

use tests::peers::arrival::client_is_known;
use tests::peers::available;
use tests::peers::net::Trio;
use tests::peers::opensmtpd::OpenSmtpd;

#[test]
fn proxy_v2() {
    if !available("OpenSMTPD with proxy-v2", &["opensmtpd"]) {
        return;
    }
    let trio = Trio::new();
    let opensmtpd = OpenSmtpd::start(&trio.backend);
    client_is_known(&trio, &opensmtpd, "proxy-v2", &["smtp connected"]);
    opensmtpd.wait_for_deliveries(2);
}
