//! Other mail servers that know users: Postfix with Cyrus SASL, and Exim by itself and with Dovecot.

use tests::peers::dovecot::{Dovecot, PASSWORD};
use tests::peers::exim::Exim;
use tests::peers::net::{CLIENT, FRONT, Trio};
use tests::peers::postfix::Postfix;
use tests::peers::stage::{Stage, said, temporary_folder};
use tests::peers::submission::{USER, gateway, logged_in, main_cf};
use tests::peers::tls::Files;
use tests::peers::{Backend as _, available};

fn swaks(trio: &Trio, mechanism: &str, password: &str) -> String {
    let program = ["swaks", "--server", FRONT[0], "--port", "587", "--tls", "--helo", "client.test", "--from", USER];
    let login = ["--to", "box@local.test", "--auth", mechanism, "--auth-user", USER, "--auth-password", password];
    said(&Stage::new("swaks").run(&trio.client, &[&program[..], &login[..]].concat()))
}

#[test]
fn postfix_with_cyrus_sasl() {
    if !available("submission to Postfix with Cyrus SASL", &["postfix", "swaks"]) {
        return;
    }
    let trio = Trio::new();
    let postfix = Postfix::with_cyrus(&trio.backend, &main_cf(""), USER, PASSWORD);
    let own = Files::new("gateway.test");
    let gateway = gateway(&trio, &own, postfix.address(), "xclient", "");
    let client = format!("client=unknown[{}]", CLIENT[0]);
    for (number, mechanism) in ["CRAM-MD5", "DIGEST-MD5", "PLAIN", "LOGIN"].into_iter().enumerate() {
        let said = swaks(&trio, mechanism, PASSWORD);
        assert!(said.contains("235 2.7.0"), "{mechanism}: {said}");
        let method = format!("sasl_method={mechanism}");
        postfix.log().wait_for(&[&client, &method, &format!("sasl_username={USER}")]);
        postfix.wait_for_deliveries(number + 1);
        logged_in(&gateway, number + 1);
    }
    let said = swaks(&trio, "CRAM-MD5", "wrong");
    assert!(said.contains("535 5.7.8"), "{said}");
    gateway.log().wait_for(&["outcome=\"wrong-password\"", "name=\"@local.test\""]);
}

#[test]
fn exim_by_itself_and_with_dovecot() {
    if !available("submission to Exim", &["exim", "dovecot", "swaks"]) {
        return;
    }
    let trio = Trio::new();
    let folder = temporary_folder();
    let socket = folder.path().join("auth-client");
    let _dovecot = Dovecot::at(&trio.backend, "digest-md5", &socket);
    let exim = Exim::with_users(&trio.backend, USER, PASSWORD, &socket);
    let own = Files::new("gateway.test");
    let gateway = gateway(&trio, &own, exim.address(), "proxy-v2", "");
    let client = format!("[{}]", CLIENT[0]);
    for (number, mechanism) in ["PLAIN", "LOGIN", "CRAM-MD5", "DIGEST-MD5"].into_iter().enumerate() {
        let said = swaks(&trio, mechanism, PASSWORD);
        assert!(said.contains("235 "), "{mechanism}: {said}");
        let authenticator = mechanism.to_ascii_lowercase().replace('-', "_");
        exim.log().wait_for(&[&format!(" <= {USER}"), &client, &format!("A={authenticator}:{USER}")]);
        logged_in(&gateway, number + 1);
    }
    for (number, mechanism) in ["PLAIN", "DIGEST-MD5"].into_iter().enumerate() {
        let said = swaks(&trio, mechanism, "wrong");
        assert!(said.contains("535 "), "{mechanism}: {said}");
        gateway.log().wait_for_count(&["outcome=\"wrong-password\"", "name=\"@local.test\""], number + 1);
    }
}
