//! Connections that need something before their session: a PROXY header from a load balancer, or a delayed greeting.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::debug;

use crate::identity::proxy_in::{HeaderParse, ProxyHeader, V2_MAX, parse_header};
use crate::identity::{ClientAddr, PeerAddr};

use super::task::SessionTask;
use super::worker::Worker;

/// What the header said, and what was read behind it.
struct Introduction {
    client: ClientAddr,
    destination: Option<SocketAddr>,
    unread: Vec<u8>,
}

/// Serves a connection from a listed load balancer. `admit` judges the client once it is known; what it returns is held
/// while the session lasts.
pub(crate) async fn serve<G>(
    worker: Arc<Worker>,
    mut stream: TcpStream,
    peer: PeerAddr,
    greet_delay: Duration,
    admit: impl FnOnce(ClientAddr) -> Option<G>,
) {
    let introduction = match timeout(worker.settings.timeouts.proxy_header, introduce(&mut stream, peer)).await {
        Ok(Ok(introduction)) => introduction,
        Ok(Err(error)) => {
            worker.counters.sessions_refused_total.increment();
            debug!(%peer, %error, "no usable PROXY header");
            return;
        }
        Err(_) => {
            worker.counters.sessions_refused_total.increment();
            debug!(%peer, "no PROXY header in time");
            return;
        }
    };
    let Introduction { client, destination, unread } = introduction;
    let Some(_guard) = admit(client) else { return };
    let early = !unread.is_empty() || talks_early(&stream, greet_delay).await;
    let mut session = SessionTask::new(worker, stream, peer, client, destination, unread);
    session.greet(early);
    session.await;
}

/// Whether the client says something within `delay`, before it was greeted.
pub(super) async fn talks_early(stream: &TcpStream, delay: Duration) -> bool {
    !delay.is_zero() && timeout(delay, stream.readable()).await.is_ok()
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
                        (ClientAddr::from_proxy_header(source), Some(destination))
                    }
                    // A health check is served as the peer itself.
                    ProxyHeader::Local => (ClientAddr::direct(peer), None),
                };
                return Ok(Introduction { client, destination, unread });
            }
        }
    }
}
