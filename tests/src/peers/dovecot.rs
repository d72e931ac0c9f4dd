//! Dovecot's authentication server: it tells a Postfix on the same host who users are.

use super::log::{Log, Process};
use super::net::Host;
use super::stage::Stage;

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
        let process = stage.start(host, &["/usr/sbin/dovecot", "-F", "-c", "/etc/dovecot/dovecot.conf"]);
        process.log().wait_for(&["starting up"]);
        Self { process, _stage: stage }
    }

    /// What it says.
    pub fn log(&self) -> &Log {
        self.process.log()
    }
}
