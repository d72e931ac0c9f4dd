//! Users' set-up: a gateway with ports 587 and 465 before a mail server that knows who they are, and finds out where.

use std::net::SocketAddr;

use super::dovecot::{Dovecot, SASL};
use super::gateway::Gateway;
use super::net::{BACK, CLIENT, FRONT, Host, Trio};
use super::postfix::Postfix;
use super::tls::Files;
use super::{Backend as _, available};

/// Who logs in.
pub const USER: &str = "user@local.test";

/// A gateway before a Postfix whose users Dovecot knows. Fields go in this order when it is dropped.
#[derive(Debug)]
pub struct Submission {
    /// In the middle.
    pub gateway: Gateway,
    /// Behind it.
    pub backend: Postfix,
    _dovecot: Dovecot,
    _certificate: Files,
    /// The hosts; the client's is free.
    pub trio: Trio,
}

impl Submission {
    /// With a Dovecot that offers these mechanisms. `None` if the scenario cannot run here, for want of one of these peers too.
    pub fn new(scenario: &str, mechanisms: &str, others: &[&str]) -> Option<Self> {
        Self::with(scenario, others, "", |host| Dovecot::start(host, mechanisms))
    }

    /// With this Dovecot, and more of the gateway's configuration.
    pub fn with(scenario: &str, others: &[&str], more: &str, users: impl FnOnce(&Host) -> Dovecot) -> Option<Self> {
        if !available(scenario, &[others, &["postfix", "dovecot"]].concat()) {
            return None;
        }
        let trio = Trio::new();
        let dovecot = users(&trio.backend);
        let backend = Postfix::set_up(&trio.backend, &main_cf(SASL), "", 25);
        let certificate = Files::new("gateway.test");
        let gateway = gateway(&trio, &certificate, backend.address(), "xclient", more);
        Some(Self { gateway, backend, _dovecot: dovecot, _certificate: certificate, trio })
    }

    /// The backend has so many messages of this user, from the client's own address.
    pub fn sent(&self, mechanism: &str, count: usize) {
        let client = format!("client=unknown[{}]", CLIENT[0]);
        let (method, user) = (format!("sasl_method={mechanism}"), format!("sasl_username={USER}"));
        self.backend.log().wait_for(&[&client, &method, &user]);
        self.backend.wait_for_deliveries(count);
        logged_in(&self.gateway, count);
    }
}

/// Lines for a Postfix that takes mail from users only, whom it knows by these.
pub fn main_cf(sasl: &str) -> String {
    format!(
        "{sasl}smtpd_authorized_xclient_hosts = {}\nsmtpd_recipient_restrictions = permit_sasl_authenticated, reject\n",
        BACK[0]
    )
}

/// The gateway's log has so many logins of the client.
pub fn logged_in(gateway: &Gateway, count: usize) {
    let client = format!("client={}", CLIENT[0]);
    gateway.log().wait_for_count(&["outcome=\"ok\"", "name=\"@local.test\"", &client], count);
}

/// A gateway for users, before a backend that is told of them so. `more` is whole sections.
pub fn gateway(trio: &Trio, own: &Files, backend: SocketAddr, identity: &str, more: &str) -> Gateway {
    let front = FRONT[0];
    let quiet = if more.contains("[proof]") { "" } else { "[proof]\nenabled = false\n" };
    Gateway::by(
        trio,
        &format!(
            "[server]\nhostname = \"gateway.test\"\nworkers = 1\n\
             [[listener]]\naddress = \"{front}:587\"\nservice = \"submission\"\n\
             [[listener]]\naddress = \"{front}:465\"\nservice = \"submission\"\ntls = \"implicit\"\n\
             [[listener]]\naddress = \"{front}:25\"\n\
             [[backend]]\naddress = \"{backend}\"\nidentity = \"{identity}\"\n[relay]\nlocal_domains = [\"local.test\"]\n\
             {quiet}[tls]\ncertificates = [{}]\n{more}",
            own.pair()
        ),
    )
}
