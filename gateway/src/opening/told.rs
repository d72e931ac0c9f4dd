//! What a backend is told of the client while its session opens.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use crate::config::IdentityMode;
use crate::identity::xclient::{ClientName, Ipv6Form};
use crate::identity::{ClientAddr, PeerAddr};
use crate::smtp::command::is_plain_hello;

/// The client's identity, as this backend takes it.
#[derive(Debug, Clone, Copy)]
pub enum Identity<'a> {
    /// None in the opening: the connection itself has it, or the message will, or nobody is told.
    Elsewhere,
    /// In a PROXY header, with the address of the gateway that the client connected to.
    Proxy {
        /// 1 or 2.
        version: ProxyVersion,
        /// The client.
        client: ClientAddr,
        /// The gateway's address.
        destination: SocketAddr,
    },
    /// In a PROXY header that was sent already.
    ProxySent,
    /// In an XCLIENT command.
    Xclient {
        /// The client.
        client: ClientAddr,
        /// Its name; `None` while it is being looked up.
        name: Option<&'a ClientName>,
        /// The gateway's address that it connected to.
        destination: SocketAddr,
        /// How the backend wants IPv6 addresses written.
        ipv6_form: Ipv6Form,
    },
}

/// The version of a PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyVersion {
    /// Text.
    V1,
    /// Binary.
    V2,
}

impl<'a> Identity<'a> {
    /// By this mode, which is the one place where modes become bytes. `name` and `ipv6_form` are XCLIENT's.
    pub fn by(
        mode: IdentityMode,
        client: ClientAddr,
        destination: SocketAddr,
        name: Option<&'a ClientName>,
        ipv6_form: Ipv6Form,
    ) -> Self {
        match mode {
            IdentityMode::Xclient => Self::Xclient { client, name, destination, ipv6_form },
            IdentityMode::ProxyV1 => Self::Proxy { version: ProxyVersion::V1, client, destination },
            IdentityMode::ProxyV2 => Self::Proxy { version: ProxyVersion::V2, client, destination },
            IdentityMode::Transparent | IdentityMode::TraceHeader | IdentityMode::None => Self::Elsewhere,
        }
    }

    /// A probe or a health check that speaks for the gateway itself: a PROXY header, where that must be, names the gateway's
    /// own address.
    pub fn of_the_gateway(mode: IdentityMode, own: SocketAddr, backend: SocketAddr) -> Self {
        let own = ClientAddr::direct(PeerAddr::from_socket(own));
        if mode.is_proxy() { Self::by(mode, own, backend, None, Ipv6Form::default()) } else { Self::Elsewhere }
    }

    pub(super) fn is_proxy(self) -> bool {
        matches!(self, Self::Proxy { .. } | Self::ProxySent)
    }
}

/// The hello to be said for the client.
#[derive(Debug, Clone, Copy)]
pub struct Hello<'a> {
    /// The name it gave.
    pub name: &'a str,
    /// Whether by EHLO. A HELO client stays one.
    pub esmtp: bool,
    /// Who has logged in; XCLIENT may say so.
    pub login: Option<&'a str>,
    /// What stands for a name that could be misread: the client's address, unless that is nobody's.
    pub address: Option<IpAddr>,
}

impl<'a> Hello<'a> {
    /// The gateway's own.
    pub fn of_the_gateway(hostname: &'a str) -> Self {
        Self { name: hostname, esmtp: true, login: None, address: None }
    }

    /// What is said behind EHLO or HELO: the name, where every server reads it as one word and as no more than a name;
    /// otherwise the client's address literal (RFC 5321 section 4.1.4: who has no name gives that).
    pub(super) fn word(&self) -> Cow<'a, str> {
        match self.address {
            _ if is_plain_hello(self.name) => self.name.into(),
            Some(IpAddr::V4(ip)) => format!("[{ip}]").into(),
            Some(IpAddr::V6(ip)) => format!("[IPv6:{ip}]").into(),
            None => "unnamed.invalid".into(),
        }
    }
}
