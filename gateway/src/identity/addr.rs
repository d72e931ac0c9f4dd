//! The two addresses of a session.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// The other end of the socket. A v4-mapped IPv6 address is the IPv4 host it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PeerAddr(SocketAddr);

impl PeerAddr {
    /// From what `accept` returned.
    pub fn from_socket(addr: SocketAddr) -> Self {
        Self(SocketAddr::new(addr.ip().to_canonical(), addr.port()))
    }

    /// The address.
    pub fn ip(self) -> IpAddr {
        self.0.ip()
    }

    /// Address and port.
    pub fn socket_addr(self) -> SocketAddr {
        self.0
    }
}

/// Who the gateway believes the client to be; what the backend is told, what policy judges, what logs name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientAddr(SocketAddr);

impl ClientAddr {
    /// No load balancer stands before this listener: the peer is the client.
    pub fn direct(peer: PeerAddr) -> Self {
        Self(peer.0)
    }

    /// A listed load balancer named this source in its PROXY header.
    pub fn from_proxy_header(source: SocketAddr) -> Self {
        Self(SocketAddr::new(source.ip().to_canonical(), source.port()))
    }

    /// The address.
    pub fn ip(self) -> IpAddr {
        self.0.ip()
    }

    /// The TCP port.
    pub fn port(self) -> u16 {
        self.0.port()
    }

    /// Address and port.
    pub fn socket_addr(self) -> SocketAddr {
        self.0
    }
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.ip().fmt(f)
    }
}

impl fmt::Display for ClientAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.ip().fmt(f)
    }
}
