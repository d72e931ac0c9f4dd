//! OpenSMTPD, told of clients by a PROXY version 2 header.

use std::net::SocketAddr;

use super::log::{Log, Process};
use super::net::{BACKEND, Family, Host};
use super::stage::Stage;
use super::{Backend, LOCAL_DOMAIN};

/// A running OpenSMTPD.
#[derive(Debug)]
pub struct OpenSmtpd {
    process: Process,
    _stage: Stage,
    address: SocketAddr,
}

impl OpenSmtpd {
    /// An OpenSMTPD on a host, once it listens. It requires a PROXY header from everybody.
    pub fn start(host: &Host) -> Self {
        let mut stage = Stage::new("opensmtpd");
        for user in ["opensmtpd", "opensmtpq", "box"] {
            stage.user(user);
        }
        let [v4, v6] = BACKEND;
        stage.etc("mailname", "backend.test\n");
        stage.etc(
            "smtpd.conf",
            &format!(
                "table everybody {{ \"@\" = \"box\" }}\n\
                 listen on {v4} port 25 hostname backend.test proxy-v2\n\
                 listen on {v6} port 25 hostname backend.test proxy-v2\n\
                 action \"box\" maildir \"/var/mail/box\" virtual <everybody>\n\
                 match from any for domain \"{LOCAL_DOMAIN}\" action \"box\"\n"
            ),
        );
        stage.prepare("mkdir -p /var/empty /var/lib/opensmtpd/empty\nchown box /var/mail");
        // Without `-v` it would not say when it listens.
        let process = stage.start(host, &["/usr/sbin/smtpd", "-d", "-v"]);
        process.log().wait_for(&["smtp: will accept"]);
        Self { process, _stage: stage, address: Family::V4.smtp(BACKEND) }
    }

    /// Waits until so many messages are in the mailbox.
    pub fn wait_for_deliveries(&self, count: usize) {
        self.log().wait_for_count(&["mda delivery", "result=Ok"], count);
    }
}

impl Backend for OpenSmtpd {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn log(&self) -> &Log {
        self.process.log()
    }
}
