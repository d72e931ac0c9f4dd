//! One listener on one worker: from an accepted connection to a session, or to a refusal.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::drive::{Worker, serve_direct, serve_proxied};
use crate::identity::{ClientAddr, PeerAddr};
use crate::time::clock::now;

use super::admission::{Admission, Place, Refusal};

/// How long accepting pauses when the system has no more file descriptors or memory.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Held by every session; when all are gone, so is the worker.
pub(super) type Alive = mpsc::Sender<()>;

/// What a connection must pass.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    pub(super) worker: Arc<Worker>,
    pub(super) admission: Arc<Admission>,
    /// Not empty: only these, and only with a PROXY header.
    pub(super) proxy_protocol_from: Arc<[IpNet]>,
    pub(super) greet_delay: Duration,
    /// The listener's address, unless that is every address of the host.
    pub(super) destination: Option<SocketAddr>,
    pub(super) alive: Alive,
}

impl Gate {
    /// Accepts for ever.
    pub(super) async fn accept(self, listener: TcpListener) {
        let mut exhausted = false;
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    exhausted = false;
                    self.worker.counters.connections_total.increment();
                    self.open(stream, PeerAddr::from_socket(peer));
                }
                // A client that was gone before it was accepted is nobody's fault.
                Err(error) if is_of_the_connection(&error) => debug!(%error, "accept"),
                Err(error) => {
                    if !exhausted {
                        warn!(%error, "cannot accept connections; raise the limit of open files or lower limits.sessions");
                        exhausted = true;
                    }
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
            }
        }
    }

    pub(super) fn open(&self, stream: TcpStream, peer: PeerAddr) {
        let Self { worker, admission, proxy_protocol_from, greet_delay, destination, alive } = self;
        let proxied = !proxy_protocol_from.is_empty();
        if proxied && !proxy_protocol_from.iter().any(|network| network.contains(&peer.ip())) {
            worker.counters.sessions_refused_total.increment();
            debug!(%peer, "not in proxy_protocol_from, closed unread");
            return;
        }
        if !proxied && worker.verdicts.refuses(peer.ip(), now()) {
            return self.refuse(&stream, peer, Refusal::Banned);
        }
        let slot = match admission.slot(proxied.then_some(peer)) {
            Ok(slot) => slot,
            Err(refusal) => return self.refuse(&stream, peer, refusal),
        };
        let (worker, delay, alive) = (worker.clone(), *greet_delay, alive.clone());
        if proxied {
            let gate = self.clone();
            let admit = move |client: ClientAddr, stream: &TcpStream| {
                gate.admit(client).map_err(|refusal| gate.refuse(stream, peer, refusal)).ok()
            };
            tokio::spawn(serve_proxied(worker, stream, peer, delay, admit, (slot, alive)));
            return;
        }
        match admission.place(ClientAddr::direct(peer), false) {
            Ok(place) => serve_direct(worker, stream, peer, *destination, delay, (slot, place, alive)),
            Err(refusal) => {
                // Before the client hears of it, and tries again.
                drop(slot);
                self.refuse(&stream, peer, refusal);
            }
        }
    }

    /// A client that a load balancer has named.
    fn admit(&self, client: ClientAddr) -> Result<Place, Refusal> {
        if self.worker.verdicts.refuses(client.ip(), now()) {
            return Err(Refusal::Banned);
        }
        self.admission.place(client, true)
    }

    fn refuse(&self, stream: &TcpStream, peer: PeerAddr, refusal: Refusal) {
        self.worker.counters.sessions_refused_total.increment();
        debug!(%peer, ?refusal, "connection refused");
        // Whether it arrives is the client's concern.
        let _ = stream.try_write(refusal.reply());
    }
}

fn is_of_the_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
