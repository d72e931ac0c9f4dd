//! OpenSMTPD, told of clients by a PROXY version 2 header.

use std::net::SocketAddr;

use super::log::{Log, Process};
use super::net::{BACK, BACKEND, Family, Host};
use super::stage::Stage;
use super::{Backend, LOCAL_DOMAIN};

/// Whom an OpenSMTPD lets relay, and whom it believes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Nobody; it requires a PROXY header.
    Nobody,
    /// The gateway (`match from src`); it knows of no PROXY header.
    GatewayBlindly,
    /// The gateway (`match from src`); it requires a PROXY header.
    Gateway,
    /// Everybody; it requires a PROXY header.
    Everybody,
    /// 10.9.9.9; it requires a PROXY header.
    Insider,
}

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
        Self::trusting(host, Trust::Nobody)
    }

    /// An OpenSMTPD that trusts somebody, once it listens. Its users are `box` and `postmaster`.
    pub fn trusting(host: &Host, trust: Trust) -> Self {
        let [v4, v6] = BACKEND;
        let proxy = if trust == Trust::GatewayBlindly { "" } else { " proxy-v2" };
        let listen = format!(
            "listen on {v4} port 25 hostname backend.test{proxy}\nlisten on {v6} port 25 hostname backend.test{proxy}\n"
        );
        Self::launch(host, trust, &listen, Family::V4.smtp(BACKEND))
    }

    /// As somebody set it up: with this line beside one for everybody on port 25. It trusts nobody, and is to be reached on
    /// this port.
    pub fn set_up(host: &Host, listen: &str, port: u16) -> Self {
        let address = SocketAddr::new(Family::V4.ip(BACKEND), port);
        Self::launch(host, Trust::Nobody, &format!("listen on {} port 25\n{listen}", address.ip()), address)
    }

    fn launch(host: &Host, trust: Trust, listen: &str, address: SocketAddr) -> Self {
        let mut stage = Stage::new("opensmtpd");
        for user in ["opensmtpd", "opensmtpq", "box"] {
            stage.user(user);
        }
        let [gateway_v4, gateway_v6] = BACK;
        let users =
            if trust == Trust::Nobody { "\"@\" = \"box\"" } else { "\"box\" = \"box\", \"postmaster\" = \"box\"" };
        let relay = match trust {
            Trust::Nobody => String::new(),
            Trust::GatewayBlindly | Trust::Gateway => {
                format!("match from src {{ {gateway_v4}, \"{gateway_v6}\" }} for any action \"out\"\n")
            }
            Trust::Everybody => "match from any for any action \"out\"\n".to_owned(),
            Trust::Insider => "match from src { 10.9.9.9 } for any action \"out\"\n".to_owned(),
        };
        stage.etc("mailname", "backend.test\n");
        stage.etc(
            "smtpd.conf",
            &format!(
                "table everybody {{ {users} }}\n{listen}action \"box\" maildir \"/var/mail/box\" virtual <everybody>\n\
                 action \"out\" relay\n{relay}\
                 match from any for domain \"{LOCAL_DOMAIN}\" action \"box\"\n"
            ),
        );
        stage.prepare("mkdir -p /var/empty /var/lib/opensmtpd/empty\nchown box /var/mail");
        // Without `-v` it would not say when it listens.
        let process = stage.start(host, &["/usr/sbin/smtpd", "-d", "-v"]);
        process.log().wait_for(&["smtp: will accept"]);
        Self { process, _stage: stage, address }
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
