//! Users send through the gateway: the mail server behind it decides who they are, and knows where they come from.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;

use smtp_gateway::tls::{SelfSigned, self_signed};
use tempfile::TempDir;
use tests::peers::dovecot::{Dovecot, PASSWORD, SASL};
use tests::peers::gateway::Gateway;
use tests::peers::net::{BACK, CLIENT, FRONT, Trio};
use tests::peers::postfix::Postfix;
use tests::peers::stage::{Stage, said};
use tests::peers::{Backend as _, available};

const USER: &str = "user@local.test";

/// A gateway with ports 587 and 465 before a Postfix whose users Dovecot knows.
struct Submission {
    gateway: Gateway,
    backend: Postfix,
    _dovecot: Dovecot,
    _certificate: TempDir,
    trio: Trio,
}

impl Submission {
    fn new(scenario: &str, mechanisms: &str, others: &[&str]) -> Option<Self> {
        if !available(scenario, &[others, &["postfix", "dovecot"]].concat()) {
            return None;
        }
        let trio = Trio::new();
        let dovecot = Dovecot::start(&trio.backend, mechanisms);
        let main = format!(
            "{SASL}smtpd_authorized_xclient_hosts = {}\n\
             smtpd_recipient_restrictions = permit_sasl_authenticated, reject\n",
            BACK[0]
        );
        let backend = Postfix::set_up(&trio.backend, &main, "", 25);
        let certificate = tempfile::tempdir().unwrap();
        let SelfSigned { certificate: pem, key } = self_signed(&["gateway.test".to_owned()], 2).unwrap();
        let (pem_file, key_file) = (certificate.path().join("gateway.pem"), certificate.path().join("gateway.key"));
        fs::write(&pem_file, pem).unwrap();
        fs::write(&key_file, key).unwrap();
        fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600)).unwrap();
        let gateway = Gateway::by(&trio, &configuration(backend.address(), &pem_file, &key_file));
        Some(Self { gateway, backend, _dovecot: dovecot, _certificate: certificate, trio })
    }

    /// The backend has so many messages of this user, from the client's own address.
    fn sent(&self, mechanism: &str, count: usize) {
        let client = format!("client=unknown[{}]", CLIENT[0]);
        let (method, user) = (format!("sasl_method={mechanism}"), format!("sasl_username={USER}"));
        self.backend.log().wait_for(&[&client, &method, &user]);
        self.backend.wait_for_deliveries(count);
        let logged = format!("client={}", CLIENT[0]);
        self.gateway.log().wait_for_count(&["outcome=\"ok\"", "name=\"@local.test\"", &logged], count);
    }
}

fn configuration(backend: std::net::SocketAddr, certificate: &std::path::Path, key: &std::path::Path) -> String {
    let front = FRONT[0];
    format!(
        "[server]\nhostname = \"gateway.test\"\nworkers = 1\n\
         [[listener]]\naddress = \"{front}:587\"\nservice = \"submission\"\n\
         [[listener]]\naddress = \"{front}:465\"\nservice = \"submission\"\ntls = \"implicit\"\n\
         [[listener]]\naddress = \"{front}:25\"\n\
         [[backend]]\naddress = \"{backend}\"\n[relay]\nlocal_domains = [\"local.test\"]\n[proof]\nenabled = false\n\
         [tls]\ncertificates = [{{ certificate = \"{}\", key = \"{}\" }}]\n",
        certificate.display(),
        key.display()
    )
}

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
