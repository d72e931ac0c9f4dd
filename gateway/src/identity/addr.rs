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
pub struct ClientAddr {
    addr: SocketAddr,
    named: bool,
}

impl ClientAddr {
    /// No load balancer stands before this listener: the peer is the client.
    pub fn direct(peer: PeerAddr) -> Self {
        Self { addr: peer.0, named: true }
    }

    /// A listed load balancer speaks for itself, or does not say for whom (v2 LOCAL, v1 UNKNOWN). It is served as the peer
    /// it is, but whoever may stand behind it inherits nothing that is granted to its address.
    pub fn unnamed(balancer: PeerAddr) -> Self {
        Self { addr: balancer.0, named: false }
    }

    /// A listed load balancer named this source in its PROXY header.
    pub fn from_proxy_header(source: SocketAddr) -> Self {
        Self { addr: SocketAddr::new(source.ip().to_canonical(), source.port()), named: true }
    }

    /// The address.
    pub fn ip(self) -> IpAddr {
        self.addr.ip()
    }

    /// The TCP port.
    pub fn port(self) -> u16 {
        self.addr.port()
    }

    /// Address and port.
    pub fn socket_addr(self) -> SocketAddr {
        self.addr
    }

    /// Whether the address is the client's own, and not that of a load balancer which did not name it.
    pub fn is_named(self) -> bool {
        self.named
    }

    /// What a backend may be told: never the address of a load balancer, which it may trust, in a client's stead.
    pub fn told(self) -> Option<SocketAddr> {
        self.named.then_some(self.addr)
    }
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.ip().fmt(f)
    }
}

impl fmt::Display for ClientAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.addr.ip().fmt(f)
    }
}
