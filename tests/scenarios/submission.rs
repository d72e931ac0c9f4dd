//! Users send through the gateway: the mail server behind it decides who they are, and knows where they come from.

use std::process::Output;

use tests::peers::dovecot::PASSWORD;
use tests::peers::net::{CLIENT, FRONT};
use tests::peers::postfix::Postfix;
use tests::peers::stage::{Stage, said};
use tests::peers::submission::{Submission, USER};
use tests::peers::tls::TLSMGR;
use tests::peers::{Backend as _, client::Client};

fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}: {}", output.status, said(output));
}

#[test]
fn swaks_logs_in_by_every_mechanism_it_has() {
    let mechanisms = "plain login cram-md5 digest-md5";
    let Some(setting) = Submission::new("submission by swaks", mechanisms, &["swaks"]) else { return };
    let stage = Stage::new("swaks");
    let run = |port: &str, tls: &str, mechanism: &str, password: &str| {
        let program = ["swaks", "--server", FRONT[0], "--port", port, tls, "--helo", "client.test", "--from", USER];
        let login = ["--to", "box@local.test", "--auth", mechanism, "--auth-user", USER, "--auth-password", password];
        stage.run(&setting.trio.client, &[&program[..], &login[..]].concat())
    };
    for (number, mechanism) in ["PLAIN", "LOGIN", "CRAM-MD5", "DIGEST-MD5"].into_iter().enumerate() {
        let (port, tls) = if number % 2 == 0 { ("587", "--tls") } else { ("465", "--tls-on-connect") };
        succeeded(&run(port, tls, mechanism, PASSWORD));
        setting.sent(mechanism, number + 1);
    }
    let refused = run("587", "--tls", "PLAIN", "wrong");
    assert!(said(&refused).contains("535 5.7.8"), "{}", said(&refused));
    setting.gateway.log().wait_for(&["outcome=\"wrong-password\""]);
    let clear = run("587", "--pipeline", "PLAIN", PASSWORD);
    assert!(!clear.status.success(), "{}", said(&clear));
    assert!(!setting.gateway.log().text().contains(PASSWORD), "a password in the log");
    let status = setting.gateway.run(&["status"]);
    let page = String::from_utf8_lossy(&status.stdout);
    assert!(
        page.contains("\nlogins     4 accepted, 1 refused; 1 CRAM-MD5, 1 DIGEST-MD5, 1 LOGIN, 1 PLAIN\n"),
        "{page}"
    );
}

#[test]
fn smtplib_and_curl_log_in() {
    let Some(setting) = Submission::new("submission by smtplib and curl", "plain login scram-sha-256", &[]) else {
        return;
    };
    let stage = Stage::plain();
    let script = "import smtplib, ssl, sys\n\
                  server = smtplib.SMTP(sys.argv[1], 587, 'client.test')\n\
                  server.starttls(context=ssl._create_unverified_context())\n\
                  server.login(sys.argv[2], sys.argv[3])\n\
                  server.sendmail(sys.argv[2], ['box@local.test'], 'Subject: smtplib\\r\\n\\r\\nText.\\r\\n')\n\
                  server.quit()\n";
    succeeded(&stage.run(&setting.trio.client, &["python3", "-c", script, FRONT[0], USER, PASSWORD]));
    setting.sent("PLAIN", 1);
    stage.etc("message", "Subject: curl\r\n\r\nText.\r\n");
    let server = format!("smtps://{}/client.test", FRONT[0]);
    let (user, login) = (format!("{USER}:{PASSWORD}"), "AUTH=LOGIN");
    let program = ["curl", "--silent", "--show-error", "--insecure", "--url", &server, "--user", &user];
    let mail = ["--login-options", login, "--mail-from", USER, "--mail-rcpt", "box@local.test", "--upload-file"];
    succeeded(&stage.run(&setting.trio.client, &[&program[..], &mail[..], &["/etc/message"]].concat()));
    setting.sent("LOGIN", 2);
}

/// A mail server of a user's that sends through the gateway by his login, as with a provider.
#[test]
fn postfix_logs_in_as_a_client() {
    let Some(setting) = Submission::new("submission by Postfix", "plain login cram-md5", &[]) else { return };
    let front = FRONT[0];
    let main = format!(
        "virtual_mailbox_domains =\nrelayhost = [{front}]:587\nsmtp_tls_security_level = encrypt\nsmtp_tls_loglevel = 1\n\
         smtp_sasl_auth_enable = yes\nsmtp_sasl_security_options = noanonymous\n\
         smtp_sasl_password_maps = inline:{{ {{ [{front}]:587 = {USER}:{PASSWORD} }} }}\n"
    );
    let relay = Postfix::set_up(&setting.trio.client, &main, TLSMGR, 25);
    let mut client = Client::connect(&setting.trio.client, ([127, 0, 0, 1], 25).into());
    assert_eq!(client.mail(USER, "box@local.test", b"Subject: Postfix\r\n\r\nText.\r\n").code, 250);
    client.quit();
    relay.log().wait_for(&["status=sent", &format!("relay={front}[{front}]:587")]);
    setting.sent("CRAM-MD5", 1);
    setting.backend.log().wait_for(&["sasl_method=CRAM-MD5", CLIENT[0]]);
}
