//! README's set-ups, by the letter: its own blocks of configuration, each at the real server, with no key more.

use std::net::SocketAddr;

use serde_json::Value;
use tests::peers::client::Client;
use tests::peers::dovecot::{Dovecot, PASSWORD, SASL};
use tests::peers::exim::Exim;
use tests::peers::gateway::Gateway;
use tests::peers::haraka::Haraka;
use tests::peers::net::{BACK, BACKEND, CLIENT, FRONT, Family, Trio};
use tests::peers::opensmtpd::OpenSmtpd;
use tests::peers::postfix::Postfix;
use tests::peers::stage::{Stage, said};
use tests::peers::submission::USER;
use tests::peers::tls::{Files, TLSMGR};
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

/// The gateway's block with the one for users behind it, before this server; `theirs` has signed itself.
fn with_users(server: &Postfix, own: &Files, theirs: &Files) -> String {
    let mail = ("10.0.0.25:25", &*format!("{}:25", BACKEND[0]));
    let way = format!("tls = \"required\"\ntls_verify = \"ca\"\ntls_ca = \"{}\"", theirs.certificate.display());
    let exchanged = [
        ("10.0.0.25:587", &*server.address().to_string()),
        ("mail.example.com", "backend.test"),
        ("tls = \"required\"", &way),
    ];
    let users = block("users.toml", &exchanged);
    format!("{}{users}[tls]\ncertificates = [{}]\n", block("gateway.toml", &[mail]), own.pair())
}

/// A Postfix whose `submission` is as its own master.cf has it, and who logs in as README has it: Thunderbird's way, and a
/// printer's, with TLS and without.
#[test]
fn users_send() {
    if !available("README's set-up for users", &["postfix", "dovecot", "swaks"]) {
        return;
    }
    let trio = Trio::new();
    let dovecot = Dovecot::start(&trio.backend, "plain login");
    let (own, theirs) = (Files::new("mx.example.com"), Files::new("backend.test"));
    let main = format!(
        "{}{SASL}smtpd_sasl_auth_enable = no\nsmtpd_tls_cert_file = {}\nsmtpd_tls_key_file = {}\n",
        block("main.cf", &[GATEWAY]),
        theirs.certificate.display(),
        theirs.key.display()
    );
    let master = format!(
        "{TLSMGR}587 inet n - n - - smtpd -o smtpd_tls_security_level=encrypt -o smtpd_sasl_auth_enable=yes \
         -o smtpd_tls_auth_only=yes -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject\n"
    );
    let postfix = Postfix::set_up(&trio.backend, &main, &master, 587);
    let gateway = Gateway::by(&trio, &with_users(&postfix, &own, &theirs));
    let stage = Stage::plain();
    // What Thunderbird does with those settings, to the name in the certificate.
    let script = "import smtplib, ssl, sys\n\
                  address, authority, user, password = sys.argv[1:]\n\
                  server = smtplib.SMTP_SSL(context=ssl.create_default_context(cafile=authority))\n\
                  server._host = 'mx.example.com'\n\
                  server.connect(address, 465)\n\
                  server.ehlo('[192.168.1.20]')\n\
                  server.login(user, password)\n\
                  server.sendmail(user, ['box@local.test'], 'Subject: Thunderbird\\r\\n\\r\\nText.\\r\\n')\n\
                  server.quit()\n";
    let authority = own.certificate.to_str().expect("a path");
    let sent = stage.run(&trio.client, &["python3", "-c", script, FRONT[0], authority, USER, PASSWORD]);
    assert!(sent.status.success(), "{}\n{}", said(&sent), gateway.log().text());
    let printer = |more: &[&str]| {
        let program = ["swaks", "--server", FRONT[0], "--port", "587", "--helo", "printer", "--from", USER];
        let output = Stage::new("swaks").run(&trio.client, &[&program[..], &["--to", "box@local.test"], more].concat());
        (output.status.success(), said(&output))
    };
    let login = ["--auth", "LOGIN", "--auth-user", USER, "--auth-password", PASSWORD];
    let secured = printer(&[&login[..], &["--tls"]].concat());
    assert!(secured.0, "{}", secured.1);
    postfix.wait_for_deliveries(2);
    let (client, user) = (format!("client=unknown[{}]", CLIENT[0]), format!("sasl_username={USER}"));
    postfix.log().wait_for(&[&client, "sasl_method=PLAIN", &user]);
    postfix.log().wait_for(&[&client, "sasl_method=LOGIN", &user]);
    // One without TLS, and one that knows no password either: each is let in only where it is said so.
    assert!(!printer(&login).0 && printer(&[]).1.contains("530 5.7.0"));
    let network = format!("[\"{}/32\"]", CLIENT[0]);
    gateway.rewrite(|text| format!("{text}[submission]\nclear_text_networks = {network}\n"));
    assert!(gateway.run(&["reload"]).status.success());
    let clear = printer(&login);
    assert!(clear.0, "{}", clear.1);
    gateway.rewrite(|text| {
        text.replacen("\nbackend = \"submission\"", "\nbackend = \"submission\"\nrelay_without_auth = true", 1)
            .replacen("[relay]\n", &format!("[relay]\nallowed_networks = {network}\n"), 1)
    });
    assert!(gateway.run(&["reload"]).status.success());
    let refused = printer(&[]);
    assert!(!refused.0 && refused.1.contains("554 5.7.1"), "the mail server has the last word: {}", refused.1);
    drop((gateway, postfix, dovecot));
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
