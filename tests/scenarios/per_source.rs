//! A mail server that limits how many connections one address may hold: to it, all clients have the gateway's. It is busy, and
//! not down; clients come again, and `status` says what to raise.

use std::net::SocketAddr;

use tests::peers::available;
use tests::peers::client::Client;
use tests::peers::exim::Exim;
use tests::peers::gateway::Gateway;
use tests::peers::net::{Family, Trio};
use tests::peers::postfix::{Postfix, Temper};
use tests::peers::{Backend as _, LOCAL_DOMAIN};

/// A server that lets the gateway hold two connections. Health checks stand aside: they need a place, too.
fn check(trio: &Trio, server: SocketAddr, identity: &str, raise: &str) {
    let gateway = Gateway::start_with(trio, server, identity, "[timeouts]\nhealth_interval = \"1h\"\n");
    let to = format!("RCPT TO:<box@{LOCAL_DOMAIN}>");
    let begin = || {
        let mut client = Client::to_gateway(&trio.client, Family::V4);
        client.must("EHLO client.test");
        let mail = client.command("MAIL FROM:<a@client.test>");
        (client, mail)
    };
    let (mut first, mail) = begin();
    assert_eq!(mail.code, 250, "{mail:?}");
    let (second, mail) = begin();
    assert_eq!(mail.code, 250, "{mail:?}");
    // Where two are held already, the next are told to come again.
    for _ in 0..5 {
        let (client, mail) = begin();
        assert!(matches!(mail.code, 421 | 451), "{mail:?}");
        drop(client);
    }
    let status = gateway.json(&["status"]);
    let backend = &status["backends"][0];
    assert_eq!(backend["healthy"], true, "{backend}");
    let told = status.to_string();
    assert!(told.contains("is busy") && told.contains(raise), "{told}");
    // Who holds a place is served, and whoever comes when one is free.
    first.must(&to);
    first.quit();
    second.quit();
    let mut mail = begin();
    while mail.1.code != 250 {
        drop(mail);
        mail = begin();
    }
    mail.0.must(&to);
}

#[test]
fn postfix() {
    if !available("Postfix with a limit per source", &["postfix"]) {
        return;
    }
    let trio = Trio::new();
    let postfix = Postfix::start(&trio.backend, Temper::PerSource);
    check(&trio, postfix.address(), "trace-header", "smtpd_client_connection_count_limit");
}

#[test]
fn exim() {
    if !available("Exim with a limit per source", &["exim"]) {
        return;
    }
    let trio = Trio::new();
    let exim = Exim::set_up(&trio.backend, "smtp_accept_max_per_host = 2\nhosts_proxy = 198.51.100.1\n");
    check(&trio, exim.address(), "proxy-v2", "smtp_accept_max_per_host");
}
