//! The gateway as a TLS server.

use std::sync::Arc;

use rustls::server::{NoServerSessionStorage, UnbufferedServerConnection};
use rustls::{ServerConfig, SupportedProtocolVersion, version};

use super::certificates::Certificates;
use super::channel::Channel;
use super::ciphers::provider;
use super::fault::TlsFault;
use super::tickets::TicketKeys;

/// The only protocol that is spoken here. A client that asks for others by ALPN was led to a mail server by somebody who
/// wants it to take mail for something else.
const PROTOCOL: &[u8] = b"smtp";

/// `tls.minimum_version`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsVersion {
    /// TLS 1.2 and later.
    #[default]
    Tls12,
    /// TLS 1.3 only.
    Tls13,
}

impl TlsVersion {
    pub(super) fn and_later(self) -> &'static [&'static SupportedProtocolVersion] {
        const ALL: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
        match self {
            Self::Tls12 => &ALL,
            Self::Tls13 => &ALL[..1],
        }
    }
}

/// Begins clients' TLS; shared by all sessions of a gateway.
#[derive(Debug, Clone)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
    certificates: Arc<Certificates>,
    tickets: Arc<TicketKeys>,
}

impl Acceptor {
    /// With these certificates, which may be exchanged later.
    ///
    /// # Errors
    /// rustls knows no cipher for this version, which a build that has one cannot bring about.
    pub fn new(
        certificates: Arc<Certificates>,
        tickets: Arc<TicketKeys>,
        minimum: TlsVersion,
    ) -> Result<Self, TlsFault> {
        let builder = ServerConfig::builder_with_provider(Arc::new(provider()));
        let builder = builder.with_protocol_versions(minimum.and_later())?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(certificates.clone());
        config.ignore_client_order = true;
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = tickets.clone();
        // One is enough for a client that comes again, and each costs a packet's worth of bytes.
        config.send_tls13_tickets = 1;
        Ok(Self { config: Arc::new(config), certificates, tickets })
    }

    /// TLS for a client that has just connected, or was told to begin.
    ///
    /// # Errors
    /// The configuration is not usable, which [`Acceptor::new`] has ruled out.
    pub fn accept(&self) -> Result<Channel, TlsFault> {
        Ok(Channel::server(UnbufferedServerConnection::new(self.config.clone())?))
    }

    /// What opens the sessions of clients that come again.
    pub fn tickets(&self) -> &Arc<TicketKeys> {
        &self.tickets
    }

    /// What it shows to clients.
    pub fn certificates(&self) -> &Arc<Certificates> {
        &self.certificates
    }
}
