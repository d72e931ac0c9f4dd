//! Dovecot: as what tells a Postfix on the same host who users are, and as the submission service before that Postfix.

use super::log::{Log, Process};
use super::net::{BACK, Host};
use super::stage::Stage;
use super::tls::Files;

/// Where the Postfix beside it asks: a line of its main.cf.
pub const SASL: &str =
    "smtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\nsmtpd_sasl_path = inet:127.0.0.1:12345\n";
/// Every user's password.
pub const PASSWORD: &str = "secret";

/// A running Dovecot.
#[derive(Debug)]
pub struct Dovecot {
    process: Process,
    _stage: Stage,
}

impl Dovecot {
    /// One that offers these mechanisms, once it answers.
    pub fn start(host: &Host, mechanisms: &str) -> Self {
        let mut stage = Stage::new("dovecot");
        stage.user("dovecot");
        stage.user("dovenull");
        stage.etc(
            "dovecot/dovecot.conf",
            &format!(
                "protocols =\nlog_path = /dev/stdout\nssl = no\ndisable_plaintext_auth = no\nauth_mechanisms = {mechanisms}\n\
                 auth_verbose = yes\nauth_failure_delay = 0\nauth_username_format = %Lu\n\
                 passdb {{\n driver = static\n args = password={PASSWORD}\n}}\n\
                 userdb {{\n driver = static\n args = uid=65534 gid=65534 home=/var/empty\n}}\n\
                 service auth {{\n inet_listener {{\n address = 127.0.0.1\n port = 12345\n }}\n}}\n"
            ),
        );
        Self::launch(stage, host)
    }

    /// Its submission service, which hands on to a Postfix on port 25 of its host: STARTTLS and XCLIENT on port 587, a PROXY
    /// header and implicit TLS on 465. It takes nothing in clear.
    pub fn submission(host: &Host, files: &Files) -> Self {
        let mut stage = Stage::new("dovecot");
        stage.user("dovecot");
        stage.user("dovenull");
        stage.etc(
            "dovecot/dovecot.conf",
            &format!(
                "protocols = submission\nlog_path = /dev/stdout\nhostname = backend.test\nlisten = *\n\
                 ssl = required\nssl_cert = <{}\nssl_key = <{}\nlogin_trusted_networks = {gateway}\n\
                 haproxy_trusted_networks = {gateway}\nauth_mechanisms = plain login\nmail_location = maildir:/var/mail/users/%u\n\
                 passdb {{\n driver = static\n args = password={PASSWORD}\n}}\n\
                 userdb {{\n driver = static\n args = uid=65534 gid=65534 home=/var/mail/users/%u\n}}\n\
                 submission_relay_host = 127.0.0.1\nsubmission_relay_port = 25\nsubmission_relay_trusted = yes\n\
                 service submission-login {{\n inet_listener submission {{\n port = 587\n }}\n\
                 inet_listener submissions {{\n port = 465\n ssl = yes\n haproxy = yes\n }}\n}}\n",
                files.certificate.display(),
                files.key.display(),
                gateway = BACK[0],
            ),
        );
        stage.prepare("mkdir -p -m 777 /var/mail/users");
        Self::launch(stage, host)
    }

    fn launch(stage: Stage, host: &Host) -> Self {
        let process = stage.start(host, &["/usr/sbin/dovecot", "-F", "-c", "/etc/dovecot/dovecot.conf"]);
        process.log().wait_for(&["starting up"]);
        Self { process, _stage: stage }
    }

    /// What it says.
    pub fn log(&self) -> &Log {
        self.process.log()
    }
}
