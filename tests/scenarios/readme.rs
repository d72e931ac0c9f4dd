//! README's set-ups, by the letter: its own blocks of configuration, each at the real server, with no key more.

use std::net::SocketAddr;

use serde_json::Value;
use tests::peers::client::Client;
use tests::peers::exim::Exim;
use tests::peers::gateway::Gateway;
use tests::peers::haraka::Haraka;
use tests::peers::net::{BACK, BACKEND, CLIENT, Family, Trio};
use tests::peers::opensmtpd::OpenSmtpd;
use tests::peers::postfix::Postfix;
use tests::peers::{Backend, LOCAL_DOMAIN, available};
use tests::readme::block;

/// README's gateway and mail server.
const GATEWAY: (&str, &str) = ("10.0.0.2", BACK[0]);
const SERVER: (&str, &str) = ("10.0.0.25", BACKEND[0]);
const MESSAGE: &[u8] = b"Subject: readme\r\n\r\nby the letter\r\n";

/// Mail comes through, under the client's own address; a stranger does not relay, and the proof says so.
fn check(trio: &Trio, server: &dyn Backend, identity: &str) {
    let address = server.address().to_string();
    let exchanged = [
        ("10.0.0.25:25", &*address),
        ("example.com\"]", &format!("{LOCAL_DOMAIN}\"]")),
        ("\"xclient\"", &format!("\"{identity}\"")),
    ];
    let gateway = Gateway::by(trio, &block("gateway.toml", &exchanged));
    let mut client = Client::to_gateway(&trio.client, Family::V4);
    assert_eq!(client.mail("a@client.test", &format!("box@{LOCAL_DOMAIN}"), MESSAGE).code, 250);
    client.must("MAIL FROM:<a@client.test>");
    assert_eq!(client.command("RCPT TO:<b@elsewhere.test>").code, 550);
    client.quit();
    server.log().wait_for(&[CLIENT[0]]);
    gateway.log().wait_for(&["relay proof: strangers cannot relay"]);
    let backend = gateway.json(&["status"])["backends"][0].clone();
    assert_eq!((&backend["healthy"], &backend["proof"]["state"]), (&Value::from(true), &Value::from("safe-unproven")));
}

/// Somebody else who speaks to the server directly, as before.
fn check_others(trio: &Trio, address: &str) {
    let address: SocketAddr = address.parse().unwrap();
    let mut client = Client::over(trio.gateway.connect(address).unwrap());
    client.expect(2);
    assert_eq!(client.mail("a@other.test", &format!("box@{LOCAL_DOMAIN}"), MESSAGE).code, 250);
    client.quit();
}

#[test]
fn before_postfix() {
    if !available("README's set-up before Postfix", &["postfix"]) {
        return;
    }
    let trio = Trio::new();
    let postfix = Postfix::set_up(&trio.backend, &block("main.cf", &[GATEWAY]), "", 25);
    check(&trio, &postfix, "xclient");
    drop(postfix);
    let postfix = Postfix::set_up(&trio.backend, "", &block("master.cf", &[]), 10025);
    check(&trio, &postfix, "proxy-v2");
    check_others(&trio, "198.51.100.25:25");
}

#[test]
fn before_exim() {
    if !available("README's set-up before Exim", &["exim"]) {
        return;
    }
    let trio = Trio::new();
    check(&trio, &Exim::set_up(&trio.backend, &block("exim4.conf", &[GATEWAY])), "proxy-v2");
}

#[test]
fn before_opensmtpd() {
    if !available("README's set-up before OpenSMTPD", &["opensmtpd"]) {
        return;
    }
    let trio = Trio::new();
    let opensmtpd = OpenSmtpd::set_up(&trio.backend, &block("smtpd.conf", &[SERVER]), 10025);
    check(&trio, &opensmtpd, "proxy-v2");
    check_others(&trio, "198.51.100.25:25");
}

#[test]
fn before_haraka() {
    if !available("README's set-up before Haraka", &["haraka"]) {
        return;
    }
    let trio = Trio::new();
    check(&trio, &Haraka::set_up(&trio.backend, &block("xclient.hosts", &[GATEWAY])), "xclient");
}

/// Where nothing can be started, what README says is still a whole configuration.
#[test]
fn the_gateway_s_block_is_a_whole_configuration() {
    let text = block("gateway.toml", &[]);
    smtp_gateway::config::parse(&text, "README.md").unwrap();
    // So it is with what is there for users, who need a certificate.
    let users = block("users.toml", &[]);
    let tls = "[tls]\ncertificates = [{ certificate = \"mx.pem\", key = \"mx.key\" }]\n";
    smtp_gateway::config::parse(&format!("{text}{users}{tls}"), "README.md").unwrap();
}
