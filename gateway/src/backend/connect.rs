//! The way to a server: where it is, a connection to it, TLS on that.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use thiserror::Error;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::config::HostPort;
use crate::identity::host::HostNetworks;
use crate::identity::{ClientAddr, transparent};
use crate::tls::{Connector, SecuredStream, TlsStream};

use super::state::{BackendState, UNHEARD_MAX};

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 64;

impl BackendState {
    /// Connects for this client: from its own address, where that is how the backend is told.
    ///
    /// # Errors
    /// Those of [`connect`](Self::connect). Where the backend is told by the address: a client that has none to show, or whose
    /// address is not of the backend's family or is this host's own. Five clients in a row whom the backend did not answer
    /// make it unhealthy.
    pub async fn connect_for(&self, client: ClientAddr) -> io::Result<TcpStream> {
        if !self.identity.is_transparent() {
            return self.connect().await;
        }
        let Some(told) = client.told() else {
            return Err(io::Error::other("the load balancer does not say who the client is"));
        };
        let connected = self.connect_from(Some(told.ip())).await;
        // Other errors are about this client, or would befall the gateway too.
        if connected.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            let unheard = self.unheard.fetch_add(1, Ordering::Relaxed).saturating_add(1);
            if unheard >= UNHEARD_MAX && self.health().healthy {
                self.identity_refused(&unshown(&self.address));
            }
        }
        connected
    }

    /// Connects to the first address that answers; each gets its own timeout.
    ///
    /// # Errors
    /// No address is known and none was found, or none answered: the last one's error, `TimedOut` after the timeout.
    pub async fn connect(&self) -> io::Result<TcpStream> {
        self.connect_from(None).await
    }

    async fn connect_from(&self, source: Option<IpAddr>) -> io::Result<TcpStream> {
        let mut addresses = self.known_addresses();
        if addresses.is_empty() {
            addresses = self.resolve().await?;
        }
        let mut last = None;
        let fits = |address: &&SocketAddr| source.is_none_or(|source| source.is_ipv4() == address.is_ipv4());
        for &address in addresses.iter().filter(fits) {
            match self.connect_to(address, source).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| match source {
            None => no_address(format!("`{}` has no address", self.address)),
            Some(source) => no_address(format!("`{}` has no address of the same family as {source}", self.address)),
        }))
    }

    async fn connect_to(&self, address: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
        let connecting = async {
            match source {
                None => TcpStream::connect(address).await,
                Some(source) => transparent::socket(source, address)?.connect(address).await,
            }
        };
        let silence = |_| io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
        let stream = timeout(self.connect_timeout, connecting).await.map_err(silence)??;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// What begins TLS with it, if that can be had.
    pub fn connector(&self) -> Option<&Connector> {
        self.connector.as_ref()
    }

    /// Begins TLS on a connection to it.
    ///
    /// # Errors
    /// The socket's, or the handshake's.
    pub async fn secure(&self, socket: TcpStream) -> io::Result<SecuredStream> {
        let mut stream = TlsStream::plain(socket);
        self.secure_stream(&mut stream).await?;
        Ok(stream.into_parts())
    }

    /// The same, for whoever goes on with the stream.
    ///
    /// # Errors
    /// The socket's, or the handshake's.
    pub async fn secure_stream(&self, stream: &mut TlsStream) -> io::Result<()> {
        match &self.connector {
            Some(connector) => stream.secure(connector).await,
            None => Err(io::Error::other("TLS was not asked for")),
        }
    }

    /// Looks its name up anew, if it has one. Health checks do, so that sessions need not wait for a resolver. What leads back to
    /// the gateway is no address of it, and never dialled.
    ///
    /// # Errors
    /// The resolver's, or [`LeadsBack`] where no other address is left.
    pub(super) async fn resolve(&self) -> io::Result<Arc<[SocketAddr]>> {
        let found: Vec<SocketAddr> = match &self.address {
            HostPort::Address(address) => vec![*address],
            HostPort::Name(name, port) => {
                let found = timeout(self.connect_timeout, lookup_host((name.as_str(), *port))).await??;
                found.take(ADDRESSES_MAX).collect()
            }
        };
        let own = self.own_listeners.read().unwrap_or_else(PoisonError::into_inner).clone();
        let others = found.iter().copied().filter(|found| leads_back(*found, &own).is_none());
        let others: Arc<[SocketAddr]> = others.collect();
        *self.addresses.write().unwrap_or_else(PoisonError::into_inner) = others.clone();
        LeadsBack::find(&self.address, &found, &own).map_or(Ok(others), |error| Err(io::Error::other(error)))
    }

    /// Where the gateway itself listens.
    pub fn set_own_listeners(&self, listeners: impl Iterator<Item = SocketAddr>) {
        *self.own_listeners.write().unwrap_or_else(PoisonError::into_inner) = listeners.collect();
    }

    fn known_addresses(&self) -> Arc<[SocketAddr]> {
        self.addresses.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where it is, as far as that is known. One with a name may have other addresses tomorrow.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.known_addresses().iter().map(SocketAddr::ip).collect()
    }
}

/// A backend that is the gateway itself: mail would go round until its `Received:` fields are too many.
#[derive(Debug, Error)]
#[error(
    "{what} the gateway's own listener {listener}: mail would loop; write the mail server's address, or have the gateway \
     listen elsewhere"
)]
pub struct LeadsBack {
    what: String,
    listener: SocketAddr,
}

impl LeadsBack {
    /// If each of the addresses that were found for this server leads back to one of these listeners.
    pub fn find(server: &HostPort, found: &[SocketAddr], listeners: &[SocketAddr]) -> Option<Self> {
        let taken: Option<Vec<_>> = found.iter().map(|address| leads_back(*address, listeners)).collect();
        let (address, listener) = (found.first()?, *taken?.first()?);
        let what = match server {
            HostPort::Address(_) => format!("{server} is"),
            HostPort::Name(..) => format!("{server} is {address}, which is"),
        };
        Some(Self { what, listener })
    }
}

/// The listener that whoever connects to this address gets to.
fn leads_back(address: SocketAddr, listeners: &[SocketAddr]) -> Option<SocketAddr> {
    let (ip, port) = (address.ip().to_canonical(), address.port());
    let takes = |listener: &&SocketAddr| match listener.ip() {
        IpAddr::V4(any) if any.is_unspecified() => ip.is_ipv4(),
        // Unless the system was told otherwise, it takes IPv4 connections too.
        IpAddr::V6(any) if any.is_unspecified() => true,
        own => own.to_canonical() == ip,
    };
    let found = listeners.iter().filter(|listener| listener.port() == port).find(takes)?;
    // Whether an address is this host's is looked up only where a listener is on every one of them, and on that port.
    (!found.ip().is_unspecified() || ip.is_loopback() || HostNetworks::read().own.contains(&ip)).then_some(*found)
}

fn no_address(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, message)
}

/// A backend that answers the gateway, and not a client's address.
fn unshown(address: &HostPort) -> String {
    format!(
        "{address} answers the gateway, but no answer comes back to clients' addresses, so mail is answered 451; `smtp-gateway \
         network show` says what routing that takes"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_back_to_the_gateway() {
        let own = HostNetworks::read().own;
        let elsewhere = own.iter().find(|ip| ip.is_ipv4() && !ip.is_loopback());
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        for (address, listener, expected) in [
            ("127.0.0.1:25", "127.0.0.1:25", true),
            ("127.0.0.2:25", "127.0.0.1:25", false),
            ("127.0.0.1:26", "127.0.0.1:25", false),
            ("127.0.0.2:25", "0.0.0.0:25", true),
            ("127.0.0.2:25", "[::]:25", true),
            ("[::1]:25", "[::]:25", true),
            ("[::1]:25", "0.0.0.0:25", false),
            ("[::ffff:127.0.0.1]:25", "127.0.0.1:25", true),
            ("192.0.2.1:25", "0.0.0.0:25", false),
            ("192.0.2.1:25", "192.0.2.1:25", true),
        ] {
            assert_eq!(leads_back(at(address), &[at(listener)]).is_some(), expected, "{address} and {listener}");
        }
        if let Some(ip) = elsewhere {
            assert!(leads_back((*ip, 25).into(), &[at("[::]:25")]).is_some(), "{ip}");
        }
    }
}
