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

    /// Without its port; IPv4 is never written as IPv6.
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
    origin: Origin,
}

/// Where a client's address is known from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Origin {
    /// The connection itself.
    Direct,
    /// A load balancer's PROXY header.
    Header,
    /// Nowhere: it is the load balancer's own.
    Unnamed,
}

impl ClientAddr {
    /// No load balancer stands before this listener: the peer is the client.
    pub fn direct(peer: PeerAddr) -> Self {
        Self { addr: peer.0, origin: Origin::Direct }
    }

    /// A listed load balancer speaks for itself, or does not say for whom (v2 LOCAL, v1 UNKNOWN). It is served as the peer
    /// it is, but whoever may stand behind it inherits nothing that is granted to its address, and a backend must not be told
    /// that address: it may trust it.
    pub fn unnamed(balancer: PeerAddr) -> Self {
        Self { addr: balancer.0, origin: Origin::Unnamed }
    }

    /// A listed load balancer speaks for itself, and by the configuration nobody else ever stands behind such a connection: it
    /// is the client.
    pub fn balancer_itself(balancer: PeerAddr) -> Self {
        Self { addr: balancer.0, origin: Origin::Header }
    }

    /// A listed load balancer named this source in its PROXY header.
    pub fn from_proxy_header(source: SocketAddr) -> Self {
        Self { addr: SocketAddr::new(source.ip().to_canonical(), source.port()), origin: Origin::Header }
    }

    /// Without its port; IPv4 is never written as IPv6.
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
        self.origin != Origin::Unnamed
    }

    /// Whether it is the connection's own, with no load balancer between.
    pub fn is_direct(self) -> bool {
        self.origin == Origin::Direct
    }

    /// What a backend may be told: never the address of a load balancer, which it may trust, in a client's stead.
    pub fn told(self) -> Option<SocketAddr> {
        self.is_named().then_some(self.addr)
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
