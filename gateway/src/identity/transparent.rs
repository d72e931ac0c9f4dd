//! A client's own address as the source of a connection (`IP_TRANSPARENT`, ip(7)): what is left for backends that take
//! neither XCLIENT nor PROXY.
//!
//! The kernel lets whoever has CAP_NET_RAW send from any address. That the answers come back is a matter of routing, here
//! and at the backend: `smtp-gateway network show` says what it takes. Where they do not, the connection never stands, so
//! this identity cannot be half delivered.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpSocket;

/// Whether an address is one of this host's, so that a backend could not tell a client of that address from the gateway.
///
/// What can be bound to is; where `ip_nonlocal_bind` lets everything be, what is reached without leaving the host is.
fn is_own(ip: IpAddr) -> bool {
    let nobody = match ip {
        IpAddr::V4(_) => IpAddr::from([240, 0, 0, 1]),
        IpAddr::V6(_) => IpAddr::from([0x100, 0, 0, 0, 0, 0, 0, 1_u16]),
    };
    let can_bind = |ip: IpAddr| UdpSocket::bind((ip, 0)).is_ok();
    // Nothing is sent.
    let answers_itself = || {
        let socket = UdpSocket::bind((if ip.is_ipv4() { "0.0.0.0" } else { "::" }, 0))?;
        socket.connect((ip, 9))?;
        Ok::<_, io::Error>(socket.local_addr()?.ip() == ip)
    };
    ip.is_loopback() || (can_bind(ip) && (!can_bind(nobody) || answers_itself().unwrap_or(true)))
}

/// A socket that connects to `backend` from this client's address; the port is the kernel's choice.
///
/// # Errors
/// `AddrNotAvailable` where the two are of different families or the address is this host's own; `PermissionDenied` without
/// CAP_NET_RAW.
pub fn socket(client: IpAddr, backend: SocketAddr) -> io::Result<TcpSocket> {
    let client = client.to_canonical();
    if client.is_ipv4() != backend.is_ipv4() {
        let message = format!("{client} and {backend} are not of one address family");
        return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, message));
    }
    if is_own(client) {
        let message = format!("{client} is this host's own address: the backend would take the client for the gateway");
        return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, message));
    }
    let source = SocketAddr::new(client, 0);
    let socket = Socket::new(Domain::for_address(source), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    let allowed = match client {
        IpAddr::V4(_) => socket.set_ip_transparent_v4(true),
        IpAddr::V6(_) => socket.set_ip_transparent_v6(true),
    };
    allowed.map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            io::Error::new(error.kind(), "a client's address may be used only with the capability CAP_NET_RAW")
        }
        _ => error,
    })?;
    socket.bind(&source.into())?;
    Ok(TcpSocket::from_std_stream(socket.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses_are_known() {
        for (ip, own) in [("127.0.0.7", true), ("::1", true), ("203.0.113.9", false), ("2001:db8::9", false)] {
            assert_eq!(is_own(ip.parse().unwrap()), own, "{ip}");
        }
    }

    #[test]
    fn families_do_not_mix() {
        for (client, backend) in [("203.0.113.9", "[2001:db8::25]:25"), ("2001:db8::9", "192.0.2.25:25")] {
            let error = socket(client.parse().unwrap(), backend.parse().unwrap()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
            assert!(error.to_string().contains(client), "{error}");
        }
    }
}
