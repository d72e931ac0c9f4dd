//! Other mail servers that know who users are, each with its own way of knowing: the log of each names the user beside his
//! own address.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use tests::peers::dovecot::{Dovecot, PASSWORD};
use tests::peers::exim::Exim;
use tests::peers::net::{BACK, CLIENT, FRONT, Trio};
use tests::peers::postfix::Postfix;
use tests::peers::stage::{Stage, said};
use tests::peers::submission::{USER, gateway, logged_in};
use tests::peers::tls::Files;
use tests::peers::{Backend as _, available};

/// swaks logs in and sends; what it said and heard.
fn swaks(trio: &Trio, mechanism: &str, password: &str) -> (bool, String) {
    let program = ["swaks", "--server", FRONT[0], "--port", "587", "--tls", "--helo", "client.test", "--from", USER];
    let login = ["--to", "box@local.test", "--auth", mechanism, "--auth-user", USER, "--auth-password", password];
    let output = Stage::new("swaks").run(&trio.client, &[&program[..], &login[..]].concat());
    (output.status.success(), said(&output))
}

#[test]
fn postfix_with_cyrus_sasl_knows_user_and_client() {
    if !available("submission before Cyrus SASL", &["postfix", "swaks"]) {
        return;
    }
    let trio = Trio::new();
    let main = format!(
        "smtpd_authorized_xclient_hosts = {}\nsmtpd_recipient_restrictions = permit_sasl_authenticated, reject\n",
        BACK[0]
    );
    let postfix = Postfix::with_cyrus(&trio.backend, &main, USER, PASSWORD);
    let own = Files::new("gateway.test");
    let gateway = gateway(&trio, &own, postfix.address(), "xclient", "");
    for (number, mechanism) in ["DIGEST-MD5", "CRAM-MD5", "LOGIN", "PLAIN"].into_iter().enumerate() {
        let (is_sent, said) = swaks(&trio, mechanism, PASSWORD);
        assert!(is_sent, "{mechanism}: {said}\n{}", postfix.log().text());
        let (method, user) = (format!("sasl_method={mechanism}"), format!("sasl_username={USER}"));
        postfix.log().wait_for(&[&format!("client=unknown[{}]", CLIENT[0]), &method, &user]);
        postfix.wait_for_deliveries(number + 1);
        logged_in(&gateway, number + 1);
    }
    let (is_sent, said) = swaks(&trio, "CRAM-MD5", "wrong");
    assert!(!is_sent && said.contains("535 5.7.8"), "{said}");
    postfix.log().wait_for(&[&format!("unknown[{}]: SASL CRAM-MD5 authentication failed", CLIENT[0])]);
}

/// Exim knows some mechanisms by itself, and asks a Dovecot about another.
#[test]
fn exim_with_dovecot_knows_user_and_client() {
    if !available("submission before Exim", &["exim", "dovecot", "swaks"]) {
        return;
    }
    let trio = Trio::new();
    let folder = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().expect("a folder");
    let socket = folder.path().join("auth");
    let dovecot = Dovecot::at(&trio.backend, "digest-md5", &socket);
    let exim = Exim::with_users(&trio.backend, USER, PASSWORD, &socket);
    let own = Files::new("gateway.test");
    let gateway = gateway(&trio, &own, exim.address(), "proxy-v2", "");
    for (number, (mechanism, by)) in
        [("DIGEST-MD5", "digest_md5"), ("CRAM-MD5", "cram_md5"), ("LOGIN", "login"), ("PLAIN", "plain")]
            .into_iter()
            .enumerate()
    {
        let (is_sent, said) = swaks(&trio, mechanism, PASSWORD);
        assert!(is_sent, "{mechanism}: {said}\n{}\n{}", exim.log().text(), dovecot.log().text());
        exim.log().wait_for(&[&format!(" <= {USER} "), &format!("[{}]", CLIENT[0]), &format!("A={by}:{USER}")]);
        logged_in(&gateway, number + 1);
    }
    let (is_sent, said) = swaks(&trio, "DIGEST-MD5", "wrong");
    assert!(!is_sent && said.contains("535"), "{said}");
    // Who failed is known to Dovecot too, by what Exim tells it.
    dovecot.log().wait_for(&[&format!("{USER},{}", CLIENT[0])]);
    drop(exim);
}
