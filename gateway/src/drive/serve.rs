//! How sessions begin: at once, or behind a PROXY header.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::RecvFlags;
use tokio::io::{AsyncReadExt as _, Interest};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::debug;

use crate::identity::proxy_in::{HeaderParse, ProxyFault, ProxyHeader, V2_MAX, parse_header};
use crate::identity::{ClientAddr, PeerAddr};
use crate::observe::refusals::RefusalCause;

use super::task::SessionTask;
use super::worker::Worker;

/// A load balancer that has connected.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Balancer {
    pub(crate) peer: PeerAddr,
    /// Whether a connection for which it names nobody is its own.
    pub(crate) speaks_for_itself: bool,
}

/// What the header said, and what was read behind it.
struct Introduction {
    client: ClientAddr,
    destination: Option<SocketAddr>,
    unread: Vec<u8>,
}

/// Why there is no introduction.
enum Unintroduced {
    /// The connection ended before anything was said: a look whether the port is open.
    Nothing,
    /// Something was said that is no header.
    NoHeader,
    /// A header that is not to be used, and why.
    Faulty(String),
}

/// Serves a connection whose peer is the client. `destination` is the address it connected to, where it is not the
/// listener's. `held` is kept while the session lasts.
pub(crate) fn serve_direct(
    worker: Arc<Worker>,
    stream: TcpStream,
    peer: PeerAddr,
    destination: Option<SocketAddr>,
    greet_delay: Duration,
    held: impl Send + 'static,
) {
    let early = has_talked(&stream);
    let mut session = SessionTask::new(worker, stream, peer, ClientAddr::direct(peer), destination, Vec::new());
    session.begin(greet_delay, early);
    tokio::spawn(session.holding(held));
}

/// Serves a connection from a listed load balancer. `admit` judges the client once it is known; what it returns is kept
/// while the session lasts, as is `held`.
pub(crate) async fn serve_proxied<G: Send + 'static>(
    worker: Arc<Worker>,
    mut stream: TcpStream,
    balancer: Balancer,
    greet_delay: Duration,
    admit: impl FnOnce(ClientAddr, &TcpStream) -> Option<G>,
    held: impl Send + 'static,
) {
    let peer = balancer.peer;
    let (cause, problem) = match timeout(worker.settings.timeouts.proxy_header, introduce(&mut stream, balancer)).await
    {
        Ok(Ok(Introduction { client, destination, unread })) => {
            let Some(place) = admit(client, &stream) else { return };
            let early = !unread.is_empty() || has_talked(&stream);
            let mut session = SessionTask::new(worker, stream, peer, client, destination, unread);
            session.begin(greet_delay, early);
            return session.holding((place, held)).await;
        }
        Ok(Err(Unintroduced::Nothing)) => return worker.turned_away_silently(),
        Ok(Err(Unintroduced::NoHeader)) => (RefusalCause::NoProxyHeader, "something else".to_owned()),
        Ok(Err(Unintroduced::Faulty(problem))) => (RefusalCause::ProxyHeader, problem),
        Err(_) => (RefusalCause::NoProxyHeader, "none in time".to_owned()),
    };
    worker.turned_away(cause, peer.ip());
    debug!(%peer, problem, "no usable PROXY header");
}

/// Whether bytes of the client are there already. Its end or an error is for the session to see.
///
/// Asked through the runtime, which then knows that there is nothing to read, and does not try until there is.
fn has_talked(stream: &TcpStream) -> bool {
    let mut byte = [0];
    let peek = || Ok(rustix::net::recv(stream, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT)?.0);
    stream.try_io(Interest::READABLE, peek).is_ok_and(|count| count > 0)
}

/// Reads the header of a load balancer.
async fn introduce(stream: &mut TcpStream, balancer: Balancer) -> Result<Introduction, Unintroduced> {
    let Balancer { peer, speaks_for_itself } = balancer;
    let faulty = |why: &str| Unintroduced::Faulty(why.to_owned());
    let mut buffer = Vec::with_capacity(256);
    loop {
        match stream.read_buf(&mut buffer).await {
            Ok(0) | Err(_) if buffer.is_empty() => return Err(Unintroduced::Nothing),
            Ok(0) | Err(_) => return Err(faulty("cut off")),
            Ok(_) => {}
        }
        match parse_header(&buffer) {
            HeaderParse::NeedMore if buffer.len() > V2_MAX => return Err(faulty("endless")),
            HeaderParse::NeedMore => {}
            HeaderParse::Faulty(ProxyFault::NoHeader) => return Err(Unintroduced::NoHeader),
            HeaderParse::Faulty(fault) => return Err(Unintroduced::Faulty(format!("{fault:?}"))),
            HeaderParse::Complete { header, used } => {
                let unread = buffer.split_off(used);
                let (client, destination) = match header {
                    ProxyHeader::Proxied { source, destination } => {
                        let client = ClientAddr::from_proxy_header(source);
                        // What the backend grants to the gateway's address is not to be had by claiming it.
                        let is_own = stream.local_addr().is_ok_and(|own| own.ip().to_canonical() == client.ip());
                        if is_own || client.ip().is_loopback() {
                            debug!(%peer, %client, "an address of the gateway's own in a PROXY header names nobody");
                            (ClientAddr::unnamed(peer), None)
                        } else {
                            (client, Some(destination))
                        }
                    }
                    ProxyHeader::Unnamed if speaks_for_itself => (ClientAddr::balancer_itself(peer), None),
                    ProxyHeader::Unnamed => (ClientAddr::unnamed(peer), None),
                };
                return Ok(Introduction { client, destination, unread });
            }
        }
    }
}
