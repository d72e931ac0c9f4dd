//! The gateway's own listener, entered by the relay proof: one connection that comes from nowhere but this process, and goes
//! through the same gate, admission, PROXY header and session as those that the kernel brings.
//!
//! Not a copy of the accept path but the path itself: whatever it would let a stranger do, it lets the proof do. Only the
//! books are the proof's own (counters, admission), so that a full gateway can still be proven and a proof takes no client's
//! place.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::backend::Pool;
use crate::config::SMTP_PORT;
use crate::identity::{ClientAddr, PeerAddr, proxy_out};

use crate::session::Settings;

use super::gate::{Entry, Gate, Parts};

/// A listener's door, for connections of the proof.
#[derive(Debug)]
pub struct FrontDoor {
    gate: Gate,
    /// Where the listener listens: what clients see as the gateway's address.
    address: SocketAddr,
    /// A load balancer that this listener takes connections from; it then takes them from nobody else.
    balancer: Option<IpAddr>,
}

impl FrontDoor {
    /// The door of the listener with this index in the configuration, which leads to the server with that
    /// index among `Config::backends`, alone in its `pool`: by whatever route, so that each can be gone by. Of `parts`, the counters'
    /// first set is used. Sessions that come through it do not heed a hold: whether it is still needed is what they ask.
    pub fn new(parts: &Parts<'_>, listener: usize, server: usize, pool: Arc<Pool>) -> Self {
        let configured = &parts.config.listeners[listener];
        let settings = Settings::toward(parts.config, listener, server);
        let pools = vec![pool; settings.places()].into();
        let entry = Entry::new(parts, listener, configured.address, settings, pools);
        Self {
            gate: Gate::new(parts, &entry, 0, false),
            address: configured.address,
            balancer: configured.proxy_protocol_from.first().map(|network| network.addr()),
        }
    }

    /// Comes in as a client at this address would, and returns the client's end of the connection.
    ///
    /// # Errors
    /// The system's, when it has no local connection to give; never the gate's, which says no on the connection itself.
    pub async fn enter(&self, client: SocketAddr) -> io::Result<TcpStream> {
        let destination = self.destination(client);
        let (mut near, far) = pair(client.is_ipv6()).await?;
        let peer = match self.balancer {
            Some(balancer) => {
                let mut header = Vec::new();
                proxy_out::encode_v1(ClientAddr::from_proxy_header(client), destination, &mut header);
                near.write_all(&header).await?;
                SocketAddr::new(balancer, client.port())
            }
            None => client,
        };
        let gate = Gate { destination: Some(destination), ..self.gate.clone() };
        let (alive, _) = mpsc::channel(1);
        gate.open(far, PeerAddr::from_socket(peer), &alive);
        Ok(near)
    }

    /// The address that such a client would have connected to.
    fn destination(&self, client: SocketAddr) -> SocketAddr {
        let ip = match self.address.ip() {
            ip if !ip.is_unspecified() => ip,
            _ if client.is_ipv6() => Ipv6Addr::LOCALHOST.into(),
            _ => Ipv4Addr::LOCALHOST.into(),
        };
        // A port that the kernel has not chosen yet is no port that a client could have connected to.
        let port = if self.address.port() == 0 { SMTP_PORT } else { self.address.port() };
        SocketAddr::new(ip, port)
    }
}

/// Two ends of a connection within this machine; nobody else can take the far one.
async fn pair(ipv6: bool) -> io::Result<(TcpStream, TcpStream)> {
    let listener = match TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await {
        Ok(listener) if ipv6 => listener,
        _ => TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?,
    };
    let near = TcpStream::connect(listener.local_addr()?).await?;
    let own = near.local_addr()?;
    loop {
        let (far, peer) = listener.accept().await?;
        if peer == own {
            near.set_nodelay(true)?;
            far.set_nodelay(true)?;
            return Ok((near, far));
        }
    }
}
