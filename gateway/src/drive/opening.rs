//! How sessions begin: at once, after a delayed greeting, or behind a PROXY header.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, Interest};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::debug;

use crate::identity::proxy_in::{HeaderParse, ProxyHeader, V2_MAX, parse_header};
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
    let problem = match timeout(worker.settings.timeouts.proxy_header, introduce(&mut stream, peer)).await {
        Ok(Ok(Introduction { client, destination, unread })) => {
            let Some(place) = admit(client, &stream) else { return };
            let early = !unread.is_empty() || talks_early(&stream, greet_delay).await;
            let mut session = SessionTask::new(worker, stream, peer, client, destination, unread);
            session.greet(early);
            return session.holding((place, held)).await;
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "none in time".to_owned(),
    };
    worker.turned_away(RefusalCause::ProxyHeader, peer.ip());
    debug!(%peer, problem, "no usable PROXY header");
}

/// Whether the client says something within `delay`, before it was greeted.
async fn talks_early(stream: &TcpStream, delay: Duration) -> bool {
    if delay.is_zero() {
        return has_talked(stream);
    }
    // Its end is no talk, and for the session to see.
    matches!(timeout(delay, stream.peek(&mut [0])).await, Ok(Ok(1..)))
}

/// Whether bytes of the client are there already. Its end or an error is for the session to see.
///
/// Asked through the runtime, which then knows that there is nothing to read, and does not try until there is.
fn has_talked(stream: &TcpStream) -> bool {
    let mut byte = [std::mem::MaybeUninit::uninit()];
    let peeked = stream.try_io(Interest::READABLE, || socket2::SockRef::from(stream).peek(&mut byte));
    peeked.is_ok_and(|count| count > 0)
}

async fn introduce(stream: &mut TcpStream, peer: PeerAddr) -> io::Result<Introduction> {
    let mut buffer = Vec::with_capacity(256);
    loop {
        if stream.read_buf(&mut buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match parse_header(&buffer) {
            HeaderParse::NeedMore if buffer.len() > V2_MAX => return Err(io::Error::other("endless header")),
            HeaderParse::NeedMore => {}
            HeaderParse::Faulty(fault) => return Err(io::Error::other(format!("{fault:?}"))),
            HeaderParse::Complete { header, used } => {
                let unread = buffer.split_off(used);
                let (client, destination) = match header {
                    ProxyHeader::Proxied { source, destination } => {
                        let client = ClientAddr::from_proxy_header(source);
                        // What the backend grants to the gateway's address is not to be had by claiming it.
                        if client.ip() == stream.local_addr()?.ip().to_canonical() {
                            return Err(io::Error::other("the gateway's own address as the source"));
                        }
                        (client, Some(destination))
                    }
                    ProxyHeader::Local => (ClientAddr::unnamed(peer), None),
                };
                return Ok(Introduction { client, destination, unread });
            }
        }
    }
}
