//! How sessions begin: at once, after a delayed greeting, or behind a PROXY header.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::RecvFlags;
use tokio::io::{AsyncReadExt as _, Interest};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::debug;

use crate::identity::proxy_in::{HeaderParse, ProxyFault, ProxyHeader, V2_MAX, begins_header, parse_header};
use crate::identity::proxy_out::V2_SIGNATURE;
use crate::identity::{ClientAddr, PeerAddr};
use crate::observe::refusals::RefusalCause;

use super::task::SessionTask;
use super::worker::Worker;

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

/// What a client said before it was greeted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Early {
    Silent,
    Talk,
    /// A PROXY header, on a listener that takes none.
    ProxyHeader,
}

/// Serves a connection whose peer is the client. `destination` is the address it connected to, where the listener has no
/// other. `held` is kept while the session lasts.
pub(crate) fn serve_direct(
    worker: Arc<Worker>,
    stream: TcpStream,
    peer: PeerAddr,
    destination: Option<SocketAddr>,
    greet_delay: Duration,
    held: impl Send + 'static,
) {
    let client = ClientAddr::direct(peer);
    if greet_delay.is_zero() {
        let early = has_talked(&stream);
        let mut session = SessionTask::new(worker, stream, peer, client, destination, Vec::new());
        session.greet(early);
        tokio::spawn(session.holding(held));
        return;
    }
    tokio::spawn(async move {
        let early = talks_early(&stream, greet_delay).await;
        let mut session = SessionTask::new(worker, stream, peer, client, destination, Vec::new());
        session.greet(early);
        session.holding(held).await;
    });
}

/// Serves a connection from a listed load balancer. `admit` judges the client once it is known; what it returns is kept
/// while the session lasts, as is `held`.
pub(crate) async fn serve_proxied<G: Send + 'static>(
    worker: Arc<Worker>,
    mut stream: TcpStream,
    peer: PeerAddr,
    greet_delay: Duration,
    admit: impl FnOnce(ClientAddr, &TcpStream) -> Option<G>,
    held: impl Send + 'static,
) {
    let (cause, problem) = match timeout(worker.settings.timeouts.proxy_header, introduce(&mut stream, peer)).await {
        Ok(Ok(Introduction { client, destination, unread })) => {
            let Some(place) = admit(client, &stream) else { return };
            let early = match talks_early(&stream, greet_delay).await {
                // A load balancer that speaks for itself is not early: its health checks put all into one packet.
                _ if !client.is_named() => Early::Silent,
                Early::Silent if unread.is_empty() => Early::Silent,
                // What comes behind the header is the client's own, whatever it looks like.
                _ => Early::Talk,
            };
            let mut session = SessionTask::new(worker, stream, peer, client, destination, unread);
            session.greet(early);
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

/// What the client says within `delay`, before it was greeted.
async fn talks_early(stream: &TcpStream, delay: Duration) -> Early {
    if delay.is_zero() {
        return has_talked(stream);
    }
    let mut bytes = [0; V2_SIGNATURE.len()];
    match timeout(delay, stream.peek(&mut bytes)).await {
        Ok(Ok(count)) => Early::of(&bytes[..count]),
        // Its end is no talk, and for the session to see.
        Ok(Err(_)) | Err(_) => Early::Silent,
    }
}

/// Whether bytes of the client are there already. Its end or an error is for the session to see.
///
/// Asked through the runtime, which then knows that there is nothing to read, and does not try until there is.
fn has_talked(stream: &TcpStream) -> Early {
    let mut bytes = [0; V2_SIGNATURE.len()];
    let peek = || Ok(rustix::net::recv(stream, &mut bytes, RecvFlags::PEEK | RecvFlags::DONTWAIT)?.0);
    let count = stream.try_io(Interest::READABLE, peek).unwrap_or(0);
    Early::of(&bytes[..count])
}

impl Early {
    fn of(bytes: &[u8]) -> Self {
        match bytes {
            [] => Self::Silent,
            bytes if begins_header(bytes) => Self::ProxyHeader,
            _ => Self::Talk,
        }
    }
}

/// Reads the header of a load balancer.
async fn introduce(stream: &mut TcpStream, peer: PeerAddr) -> Result<Introduction, Unintroduced> {
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
                    ProxyHeader::Unnamed => (ClientAddr::unnamed(peer), None),
                };
                return Ok(Introduction { client, destination, unread });
            }
        }
    }
}
