//! Programs that send mail over TLS: each message arrives once, and the gateway says what it was sent by.

use std::io::Write as _;
use std::process::{ChildStdin, Output, Stdio};

use tests::peers::exim;
use tests::peers::gateway::Gateway;
use tests::peers::log::{Log, Process};
use tests::peers::net::{FRONT, Trio};
use tests::peers::postfix::Postfix;
use tests::peers::stage::{Stage, said};
use tests::peers::tls::{Files, TLSMGR, encrypting_postfix, gateway, verified};
use tests::peers::{Backend as _, available, folder};

/// A gateway before a Postfix that demands TLS as well.
struct Setting {
    gateway: Gateway,
    backend: Postfix,
    own: Files,
    /// It reads them for each of its processes.
    _theirs: Files,
    trio: Trio,
}

impl Setting {
    fn new(scenario: &str, others: &[&str]) -> Option<Self> {
        if !available(scenario, &[others, &["postfix"]].concat()) {
            return None;
        }
        let trio = Trio::new();
        let (own, theirs) = (Files::new("gateway.test"), Files::new("backend.test"));
        let backend = encrypting_postfix(&trio.backend, &theirs);
        let gateway = gateway(&trio, &[&own], &backend, &verified("required", "xclient", &theirs));
        Some(Self { gateway, backend, own, _theirs: theirs, trio })
    }

    /// Where programs find the gateway by its name.
    fn stage(&self, stage: Stage) -> Stage {
        stage.etc("hosts", &format!("127.0.0.1 localhost\n{} gateway.test\n", FRONT[0]));
        stage.etc("roots.pem", &std::fs::read_to_string(&self.own.certificate).unwrap());
        stage
    }

    /// So many messages in all have arrived, each once, and the last of them by this version.
    fn arrived(&self, count: usize, version: &str) {
        self.backend.wait_for_deliveries(count);
        let sent = format!(" tls=\"{version} ");
        self.gateway.log().wait_for(&[" accepted=1 ", &sent, "backend_tls=\"TLS 1.3 "]);
        let status = self.gateway.json(&["status"]);
        assert_eq!(status["tls"]["messages_total"], count, "{}", status["tls"]);
        assert_eq!(status["tls"]["clear_messages_total"], 0, "{}", status["tls"]);
        let delivered = self.backend.log().text().matches("status=sent (delivered to maildir)").count();
        assert_eq!(delivered, count);
    }
}

fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}: {}", output.status, said(output));
}

/// What a Postfix that sends by these lines says of its connections.
fn postfix_sends(scenario: &str, level: &str, says: &str) {
    let Some(setting) = Setting::new(scenario, &[]) else { return };
    let main = format!(
        "relayhost = [{}]\n{level}\nsmtp_tls_CAfile = {}\nsmtp_tls_loglevel = 1\nvirtual_mailbox_domains =\n",
        FRONT[0],
        setting.own.certificate.display()
    );
    let sender = Postfix::set_up(&setting.trio.client, &main, TLSMGR, 25);
    let options = ["-m", "5", "-f", "a@client.test", "-t", "box@local.test", "inet:127.0.0.1:25"];
    succeeded(&Stage::new("postfix").run(&setting.trio.client, &[&["smtp-source"], &options[..]].concat()));
    setting.arrived(5, "TLS 1.3");
    sender.log().wait_for(&[says, "TLSv1.3 with cipher"]);
    assert!(!sender.log().text().contains("status=deferred"));
}

#[test]
fn postfix_that_may() {
    postfix_sends("Postfix at may", "smtp_tls_security_level = may", "TLS connection established to");
}

#[test]
fn postfix_that_encrypts() {
    let level = "smtp_tls_security_level = encrypt\nsmtp_tls_mandatory_ciphers = high";
    postfix_sends("Postfix at encrypt", level, "TLS connection established to");
}

#[test]
fn postfix_that_verifies() {
    let level = "smtp_tls_security_level = secure\nsmtp_tls_secure_cert_match = gateway.test";
    postfix_sends("Postfix that verifies", level, "Verified TLS connection established to");
}

#[test]
fn exim_where_it_may_and_where_it_must() {
    let Some(setting) = Setting::new("Exim as a client", &["exim"]) else { return };
    let must = "hosts_require_tls = *\n  tls_sni = gateway.test\n  tls_verify_hosts = *\n  \
                tls_verify_certificates = /etc/roots.pem\n";
    for (count, (how, says)) in [("", " X=TLS1.3:"), (must, " CV=yes ")].into_iter().enumerate() {
        let mut stage = setting.stage(Stage::new("exim"));
        exim::prepare_client(&mut stage, "gateway.test", how);
        let output = stage.run(&setting.trio.client, &exim::SEND);
        succeeded(&output);
        let said = said(&output);
        assert!(said.contains("=> box@local.test") && said.contains(says), "{said}");
        setting.arrived(count + 1, "TLS 1.3");
        // It sends everything at once, and so before it knows whether its recipient is taken.
        setting.gateway.log().wait_for_count(&["outcome=\"accepted\"", "recipients=1 "], count + 1);
    }
}

#[test]
fn smtplib_of_either_version() {
    let Some(setting) = Setting::new("smtplib over TLS", &[]) else { return };
    let script = "import smtplib, ssl, sys\n\
                  context = ssl.create_default_context(cafile='/etc/roots.pem')\n\
                  context.maximum_version = ssl.TLSVersion[sys.argv[1]]\n\
                  with smtplib.SMTP('gateway.test', 25, 'client.test') as server:\n \
                  server.starttls(context=context)\n \
                  server.sendmail('a@client.test', ['box@local.test'], 'Subject: smtplib\\r\\n\\r\\n.one\\r\\n')\n";
    let stage = setting.stage(Stage::plain());
    for (count, (version, named)) in [("TLSv1_2", "TLS 1.2"), ("TLSv1_3", "TLS 1.3")].into_iter().enumerate() {
        succeeded(&stage.run(&setting.trio.client, &["python3", "-c", script, version]));
        setting.arrived(count + 1, named);
    }
}

#[test]
fn curl_that_requires_it() {
    let Some(setting) = Setting::new("curl over TLS", &["curl"]) else { return };
    let stage = setting.stage(Stage::new("curl"));
    stage.etc("message", "Subject: curl\r\n\r\n.line\r\n");
    for (count, (version, named)) in [("1.2", "TLS 1.2"), ("1.3", "TLS 1.3")].into_iter().enumerate() {
        let how = ["--silent", "--show-error", "--ssl-reqd", "--cacert", "/etc/roots.pem", "--tls-max", version];
        let mail = ["--mail-from", "a@client.test", "--mail-rcpt", "box@local.test", "--upload-file", "/etc/message"];
        let program = [&["curl", "--url", "smtp://gateway.test/client.test"], &how[..], &mail].concat();
        succeeded(&stage.run(&setting.trio.client, &program));
        setting.arrived(count + 1, named);
    }
}

/// A dialog by `openssl s_client`.
struct Openssl {
    /// Before `process`: without it, it ends.
    input: ChildStdin,
    process: Process,
}

impl Openssl {
    fn start(setting: &Setting, how: &[&str]) -> Self {
        let mut command = setting.trio.client.command("env");
        command.arg(folder("openssl").join("usr/bin/openssl"));
        command.env("LD_LIBRARY_PATH", folder("openssl").join("usr/lib/x86_64-linux-gnu"));
        command.args(["s_client", "-quiet", "-crlf", "-starttls", "smtp", "-connect"]).arg(format!("{}:25", FRONT[0]));
        command.args(["-verify_return_error", "-verify_hostname", "gateway.test", "-CAfile"]);
        command.arg(&setting.own.certificate).args(how);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = child.unwrap();
        let input = child.stdin.take().unwrap();
        Self { process: Process::new("openssl", child), input }
    }

    fn say(&mut self, lines: &str) -> &Log {
        self.input.write_all(lines.as_bytes()).unwrap();
        self.process.log()
    }
}

#[test]
fn openssl_of_either_version_and_again() {
    let Some(setting) = Setting::new("openssl s_client", &["openssl"]) else { return };
    let session = setting.own.certificate.with_file_name("session.pem");
    let session = session.to_str().unwrap();
    let ways: [(&[&str], &str); 4] = [
        (&["-tls1_2", "-sess_out", session], "TLS 1.2"),
        (&["-tls1_2", "-sess_in", session], "TLS 1.2"),
        (&["-tls1_3", "-sess_out", session], "TLS 1.3"),
        (&["-tls1_3", "-sess_in", session], "TLS 1.3"),
    ];
    for (count, (how, named)) in ways.into_iter().enumerate() {
        let mut openssl = Openssl::start(&setting, how);
        openssl.say("EHLO client.test\n").wait_for(&["250-gateway.test"]);
        openssl.say("MAIL FROM:<a@client.test>\nRCPT TO:<box@local.test>\nDATA\n").wait_for(&["354 "]);
        openssl.say("Subject: openssl\n\n..line\n.\n").wait_for(&["250 2.0.0 Ok: queued as"]);
        openssl.say("QUIT\n").wait_for(&["221 "]);
        openssl.process.log().wait_for_end();
        setting.arrived(count + 1, named);
    }
    // What it can still be told to speak, and nobody should.
    Openssl::start(&setting, &["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"]).process.log().wait_for_end();
    let status = setting.gateway.json(&["status"]);
    assert_eq!(status["tls"]["resumed_total"], 2, "{}", status["tls"]);
    assert_eq!(status["tls"]["faults_total"]["no-common-version"], 1, "{}", status["tls"]);
}
