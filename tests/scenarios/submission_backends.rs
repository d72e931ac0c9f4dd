//! Other mail servers that know who users are, each with its own way of knowing: the log of each names the user beside his
//! own address.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use tests::peers::dovecot::{Dovecot, PASSWORD};
use tests::peers::exim::Exim;
use tests::peers::gateway::Gateway;
use tests::peers::net::{BACK, BACKEND, CLIENT, FRONT, Trio};
use tests::peers::postfix::{Postfix, Temper};
use tests::peers::stage::{Stage, said};
use tests::peers::submission::{USER, gateway, logged_in};
use tests::peers::tls::{Files, verified};
use tests::peers::{Backend as _, available};

/// swaks logs in and sends; what it said and heard.
fn swaks(trio: &Trio, mechanism: &str, password: &str) -> (bool, String) {
    swaks_as(trio, USER, mechanism, password)
}

fn swaks_as(trio: &Trio, user: &str, mechanism: &str, password: &str) -> (bool, String) {
    let program = ["swaks", "--server", FRONT[0], "--port", "587", "--tls", "--helo", "client.test", "--from", user];
    let login = ["--to", "box@local.test", "--auth", mechanism, "--auth-user", user, "--auth-password", password];
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

/// Two submission services of a Dovecot, and users who are asked who they are before either is woken: it takes what the gateway
/// was told with AUTH, which clients of LOGIN never say so.
#[test]
fn dovecot_s_submission_services_get_users_by_who_they_are() {
    if !available("user routes before Dovecot's submission service", &["dovecot", "postfix", "swaks"]) {
        return;
    }
    let trio = Trio::new();
    let (own, theirs) = (Files::new("gateway.test"), Files::new("backend.test"));
    let postfix = Postfix::start(&trio.backend, Temper::CatchAll);
    let dovecot = Dovecot::submission(&trio.backend, &theirs);
    let backend = |name: &str, port: u16, how: &str| {
        format!("[[backend]]\nname = \"{name}\"\naddress = \"{}:{port}\"\n{how}\n", BACKEND[0])
    };
    let gateway = Gateway::by(
        &trio,
        &format!(
            "[server]\nhostname = \"gateway.test\"\nworkers = 1\n\
             [[listener]]\naddress = \"{}:587\"\nservice = \"submission\"\nbackend = \"first\"\n{}{}\
             [[route]]\nusers = [\"second.test\"]\nbackend = \"second\"\n[tls]\ncertificates = [{}]\n\
             [relay]\nlocal_domains = [\"local.test\"]\n[proof]\nenabled = false\n",
            FRONT[0],
            backend("first", 587, &verified("required", "xclient", &theirs)),
            backend("second", 465, &verified("implicit", "proxy-v2", &theirs)),
            own.pair(),
        ),
    );
    let mut deliveries = 0;
    for (user, place) in [(USER, "first"), ("boss@second.test", "second")] {
        for mechanism in ["LOGIN", "PLAIN"] {
            let (is_sent, said) = swaks_as(&trio, user, mechanism, PASSWORD);
            assert!(is_sent, "{user}, {mechanism}: {said}\n{}\n{}", dovecot.log().text(), gateway.log().text());
            let (user, client) = (format!("user=<{user}>"), format!("rip={}", CLIENT[0]));
            dovecot.log().wait_for(&["submission-login: ", &user, &format!("method={mechanism}"), &client, "TLS"]);
            deliveries += 1;
            postfix.wait_for_deliveries(deliveries);
        }
        gateway.log().wait_for_count(&["outcome=\"ok\"", &format!("backend=\"{place}\"")], 2);
    }
    let (is_sent, said) = swaks(&trio, "LOGIN", "wrong");
    assert!(!is_sent && said.contains("535 5.7.8"), "{said}");
    dovecot.log().wait_for(&["auth failed", &format!("user=<{USER}>"), &format!("rip={}", CLIENT[0])]);
    drop(gateway);
}
