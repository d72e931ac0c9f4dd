//! The header tells who the client is: what a Postfix delivers begins, below its own field, with the gateway's.

use tests::peers::client::Client;
use tests::peers::gateway::Gateway;
use tests::peers::net::{Family, Trio};
use tests::peers::postfix::{Postfix, Temper};
use tests::peers::{Backend as _, available};

#[test]
fn the_first_hop_is_the_client() {
    if !available("a trace header before a Postfix", &["postfix"]) {
        return;
    }
    let trio = Trio::new();
    let mut postfix = Postfix::start(&trio.backend, Temper::Confused);
    let gateway = Gateway::start(&trio, postfix.address(), "trace-header");
    let forged =
        "Received: from forged.test ([198.51.100.99]) by gateway.test;\r\n\tMon, 1 Jan 2024 00:00:00 +0000\r\n";
    for (family, literal) in [(Family::V4, "[192.0.2.10]"), (Family::V6, "[IPv6:2001:db8:c::10]")] {
        let mut client = Client::to_gateway(&trio.client, family);
        client.must("EHLO client.test");
        let message = format!("{forged}Subject: x\r\n\r\ntext\r\n");
        assert_eq!(client.mail("a@client.test", "box@local.test", message.as_bytes()).code, 250);
        client.quit();
        let delivered = String::from_utf8(postfix.next_message()).unwrap();
        let trace = format!("Received: from client.test ({literal})\r\n\tby gateway.test with ESMTP;\r\n\t");
        let rest = delivered.strip_prefix(&trace).unwrap_or_else(|| panic!("{delivered}"));
        let (date, rest) = rest.split_once("\r\n").unwrap();
        assert!(date.ends_with(" +0000") && date.len() >= 30, "{date}");
        assert_eq!(rest, message);
    }
    let page = String::from_utf8(gateway.run(&["status"]).stdout).unwrap();
    assert!(page.contains("learns who its clients are from headers alone"), "{page}");
}
