//! Listening sockets: one for every worker and listener.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::Listener;

/// Connections the kernel may hold for a worker that has not accepted them yet.
const BACKLOG: i32 = 1024;

/// A listener's sockets.
#[derive(Debug)]
pub struct BoundListener {
    /// Where it listens; the port is the kernel's choice where the configuration has 0.
    pub address: SocketAddr,
    pub(super) sockets: Vec<TcpListener>,
}

/// A listener that cannot listen, in one sentence with its mend.
#[derive(Debug)]
pub struct BindError {
    address: SocketAddr,
    source: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, source } = self;
        let port = address.port();
        write!(f, "cannot listen on {address}: ")?;
        match source.kind() {
            io::ErrorKind::AddrInUse => write!(
                f,
                "the port is in use; see who has it with `ss -ltnp 'sport = :{port}'`, and move that server or this listener"
            ),
            io::ErrorKind::PermissionDenied => write!(
                f,
                "ports below 1024 need a privilege; start as root or with CAP_NET_BIND_SERVICE (systemd: \
                 AmbientCapabilities=), the gateway drops it once it listens"
            ),
            io::ErrorKind::AddrNotAvailable => {
                write!(f, "this host has no such address; `ip address` lists those it has")
            }
            _ => write!(f, "{source}"),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Binds every listener `workers` times. Nothing stays bound after an error.
pub fn bind(listeners: &[Listener], workers: usize) -> Result<Vec<BoundListener>, BindError> {
    let addresses: Vec<_> = listeners.iter().map(|listener| listener.address).collect();
    let error = |address| move |source| BindError { address, source };
    for &address in &addresses {
        // A socket that shares its port would be given one that another gateway shares too; this one would not.
        socket(address, &addresses).and_then(|probe| probe.bind(&address.into())).map_err(error(address))?;
    }
    addresses.iter().map(|&address| bind_one(address, &addresses, workers).map_err(error(address))).collect()
}

fn bind_one(address: SocketAddr, all: &[SocketAddr], workers: usize) -> io::Result<BoundListener> {
    let mut bound = BoundListener { address, sockets: Vec::with_capacity(workers) };
    for _ in 0..workers {
        let socket = socket(address, all)?;
        socket.set_reuse_port(true)?;
        // What a listener has, accepted connections inherit: this saves a system call each.
        socket.set_tcp_nodelay(true)?;
        socket.bind(&bound.address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let listener = TcpListener::from(socket);
        bound.address = listener.local_addr()?;
        bound.sockets.push(listener);
    }
    Ok(bound)
}

fn socket(address: SocketAddr, all: &[SocketAddr]) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        // `[::]` takes IPv4 too, unless a listener of its own does.
        socket.set_only_v6(all.contains(&(Ipv4Addr::UNSPECIFIED, address.port()).into()))?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(address: &str) -> Listener {
        Listener { address: address.parse().unwrap(), backend: 0, proxy_protocol_from: Vec::new() }
    }

    #[test]
    fn workers_share_one_port() {
        let bound = bind(&[listener("127.0.0.1:0")], 2).unwrap();
        assert_ne!(bound[0].address.port(), 0);
        assert!(bound[0].sockets.iter().all(|socket| socket.local_addr().unwrap() == bound[0].address));
    }

    #[test]
    fn a_port_that_another_gateway_shares_is_in_use() {
        let other = bind(&[listener("127.0.0.1:0")], 1).unwrap();
        let address = other[0].address;
        let error = bind(&[listener(&address.to_string())], 1).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot listen on {address}: the port is in use; ")), "{error}");
    }

    #[test]
    fn both_families_may_have_their_own_listener() {
        let free = bind(&[listener("0.0.0.0:0")], 1).unwrap();
        let port = free[0].address.port();
        drop(free);
        let both = [listener(&format!("0.0.0.0:{port}")), listener(&format!("[::]:{port}"))];
        assert_eq!(bind(&both, 2).unwrap().len(), 2);
    }
}
