//! A Postfix that trusts the gateway's address and knows neither XCLIENT nor PROXY: the confusion this product is for.
//!
//! Identity fails closed: whatever way the gateway was told to use, the client gets 4xx and the backend gets no mail.

use tests::peers::client::Client;
use tests::peers::gateway::Gateway;
use tests::peers::net::{Family, Trio};
use tests::peers::postfix::{Postfix, Temper};
use tests::peers::{Backend as _, available};

fn nothing_is_relayed(identity: &str) {
    if !available(&format!("a confused Postfix and {identity}"), &["postfix"]) {
        return;
    }
    let trio = Trio::new();
    let postfix = Postfix::start(&trio.backend, Temper::Confused);
    let gateway = Gateway::start(&trio, postfix.address(), identity);
    for family in Family::BOTH {
        let mut client = Client::to_gateway(&trio.client, family);
        client.must("EHLO client.test");
        let mut replies = Vec::new();
        for command in
            ["MAIL FROM:<a@client.test>", "RCPT TO:<b@elsewhere.test>", "RCPT TO:<box@local.test>", "DATA", "QUIT"]
        {
            let reply = client.command(command);
            let closed = reply.code == 0 || reply.code == 421;
            replies.push(reply);
            if closed {
                break;
            }
        }
        let first = replies.first().map(|reply| reply.code / 100);
        assert_eq!(first, Some(4), "{replies:?}");
        let accepted = replies.iter().find(|reply| matches!(reply.code, 200..=299 | 354) && reply.code != 221);
        assert_eq!(accepted, None, "{replies:?}");
    }
    gateway.log().wait_for(&["WARN", "cannot be told who clients are"]);
    // Postfix logs in order: once it has logged a later session, it has logged these.
    let marker = Client::connect(&trio.backend, ([127, 0, 0, 1], 25).into());
    postfix.log().wait_for(&[": connect from unknown[127.0.0.1]"]);
    marker.quit();
    let log = postfix.log().text();
    assert!(!log.contains(": client="), "{log}");
    assert_eq!(postfix.mailbox(), Vec::<Vec<u8>>::new());
}

#[test]
fn xclient_fails_closed() {
    nothing_is_relayed("xclient");
}

#[test]
fn proxy_v1_fails_closed() {
    nothing_is_relayed("proxy-v1");
}

#[test]
fn proxy_v2_fails_closed() {
    nothing_is_relayed("proxy-v2");
}

/// Why it matters: without identity the same Postfix relays for anybody, and only the guard stands before it.
#[test]
fn without_identity_only_the_guard_stands() {
    if !available("a confused Postfix without identity", &["postfix"]) {
        return;
    }
    let trio = Trio::new();
    let postfix = Postfix::start(&trio.backend, Temper::Confused);
    let mut naked = Client::connect(&trio.gateway, postfix.address());
    naked.must("EHLO gateway.test");
    naked.must("MAIL FROM:<a@client.test>");
    assert_eq!(naked.command("RCPT TO:<b@elsewhere.test>").code, 250, "the backend is not confused");
    naked.quit();

    let _gateway = Gateway::start(&trio, postfix.address(), "none");
    let mut client = Client::to_gateway(&trio.client, Family::V4);
    client.must("EHLO client.test");
    client.must("MAIL FROM:<a@client.test>");
    assert_eq!(client.command("RCPT TO:<b@elsewhere.test>").code, 550);
    assert_eq!(client.command("RCPT TO:<b%elsewhere.test@local.test>").code, 550);
    client.must("RCPT TO:<box@local.test>");
    client.quit();
}
