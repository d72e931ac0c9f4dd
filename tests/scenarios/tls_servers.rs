//! Mail servers that take nothing in clear, and know the client all the same.

use tests::peers::dovecot::{Dovecot, PASSWORD};
use tests::peers::exim::Exim;
use tests::peers::gateway::Gateway;
use tests::peers::net::{BACK, BACKEND, CLIENT, FRONT, Family, Trio};
use tests::peers::postfix::{Postfix, Temper};
use tests::peers::stage::{Stage, said};
use tests::peers::tls::{Files, TLSMGR, encrypting, encrypting_postfix, gateway, verified};
use tests::peers::{Backend as _, LOCAL_DOMAIN, available};

fn swaks(trio: &Trio, how: &[&str]) {
    let options = ["--server", FRONT[0], "--helo", "client.test", "--from", "a@client.test", "--to", "box@local.test"];
    let output = Stage::new("swaks").run(&trio.client, &[&["swaks"], &options[..], how].concat());
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn postfix_takes_nothing_in_clear_and_knows_the_client_inside_tls() {
    if !available("Postfix that demands TLS", &["postfix", "swaks"]) {
        return;
    }
    let trio = Trio::new();
    let (own, theirs) = (Files::new("gateway.test"), Files::new("backend.test"));
    let postfix = encrypting_postfix(&trio.backend, &theirs);
    let gateway = gateway(&trio, &[&own], &postfix, &verified("required", "xclient", &theirs));
    swaks(&trio, &["--tls"]);
    swaks(&trio, &[]);
    postfix.wait_for_deliveries(2);
    postfix.log().wait_for(&["Anonymous TLS connection established from", BACK[0]]);
    postfix.log().wait_for_address(&["postfix/smtpd", ": client=unknown["], Family::V4.ip(CLIENT));
    drop(gateway);
}

/// Implicit TLS, and the client told by a PROXY header before it.
#[test]
fn postfix_is_spoken_to_over_implicit_tls() {
    if !available("Postfix with smtps", &["postfix", "swaks"]) {
        return;
    }
    let trio = Trio::new();
    let (own, theirs) = (Files::new("gateway.test"), Files::rsa("backend.test"));
    let master = format!(
        "{TLSMGR}465 inet n - n - - smtpd -o smtpd_tls_wrappermode=yes -o smtpd_upstream_proxy_protocol=haproxy\n"
    );
    let postfix = Postfix::set_up(&trio.backend, &encrypting(&theirs), &master, 465);
    let gateway = gateway(&trio, &[&own], &postfix, &verified("implicit", "proxy-v2", &theirs));
    swaks(&trio, &["--tls"]);
    postfix.wait_for_deliveries(1);
    postfix.log().wait_for_address(&["postfix/smtpd", ": client=unknown["], Family::V4.ip(CLIENT));
    drop(gateway);
}

/// The client is told by a PROXY header, before STARTTLS.
#[test]
fn exim_takes_nothing_in_clear() {
    if !available("Exim that demands TLS", &["exim", "swaks"]) {
        return;
    }
    let trio = Trio::new();
    for theirs in [Files::new("backend.test"), Files::rsa("backend.test")] {
        let own = Files::new("gateway.test");
        let exim = Exim::encrypting(&trio.backend, &theirs);
        let gateway = gateway(&trio, &[&own], &exim, &verified("required", "proxy-v2", &theirs));
        swaks(&trio, &["--tls"]);
        let line = exim.log().wait_for_address(&[" <= a@client.test", "P=esmtps", "X=TLS1.3:"], Family::V4.ip(CLIENT));
        gateway.log().wait_for(&[" accepted=1 ", "backend_tls=\"TLS 1.3 "]);
        assert_eq!(exim.log().text().matches(" <= a@client.test").count(), 1, "{line}");
    }
}

/// Users log in at Dovecot, which knows them and where they are, and hands on to a Postfix.
#[test]
fn dovecot_submits_what_users_send() {
    if !available("Dovecot's submission service", &["dovecot", "postfix", "swaks"]) {
        return;
    }
    let trio = Trio::new();
    let (own, theirs) = (Files::new("gateway.test"), Files::new("backend.test"));
    let postfix = Postfix::start(&trio.backend, Temper::CatchAll);
    let dovecot = Dovecot::submission(&trio.backend, &theirs);
    for (count, (port, way, identity)) in
        [(587, "required", "xclient"), (465, "implicit", "proxy-v2")].into_iter().enumerate()
    {
        let config = format!(
            "[server]\nhostname = \"gateway.test\"\nworkers = 1\n\
             [[listener]]\naddress = \"{}:587\"\nservice = \"submission\"\n\
             [[backend]]\naddress = \"{}:{port}\"\n{}\n[tls]\ncertificates = [{}]\n\
             [relay]\nlocal_domains = [\"{LOCAL_DOMAIN}\"]\n[log]\nlevel = \"debug\"\n[proof]\nenabled = false\n",
            FRONT[0],
            BACKEND[0],
            verified(way, identity, &theirs),
            own.pair(),
        );
        let gateway = Gateway::by(&trio, &config);
        let user = ["--auth", "PLAIN", "--auth-user", "user@local.test", "--auth-password", PASSWORD];
        swaks(&trio, &[&["--port", "587", "--tls"], &user[..]].concat());
        postfix.wait_for_deliveries(count + 1);
        gateway.log().wait_for(&[" accepted=1 ", "backend_tls=\"TLS 1.3 "]);
        let login = format!("rip={}", CLIENT[0]);
        dovecot.log().wait_for_count(&["submission-login: ", "user=<user@local.test>", &login, "TLS"], count + 1);
    }
}
