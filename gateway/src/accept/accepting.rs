//! One worker's share of a listener: it accepts until the listener is gone, and then serves what its queue holds.

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::identity::PeerAddr;

use super::gate::{Alive, EXHAUSTED_PAUSE, Gate};

/// One worker's share of a listener.
#[derive(Debug)]
pub(super) struct Accepting {
    pub(super) socket: std::net::TcpListener,
    pub(super) gate: Arc<ArcSwap<Gate>>,
    /// Closes when the listener is dropped; changes when it is handed over.
    pub(super) open: watch::Receiver<()>,
}

impl Accepting {
    /// Accepts until the listener is gone.
    pub(super) async fn accept(self, alive: Alive) {
        let Self { socket, gate, mut open } = self;
        let listener = match TcpListener::from_std(socket) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "a bound socket cannot be used"),
        };
        tokio::select! {
            () = accept(&listener, &gate, &alive) => {}
            changed = open.changed() => {
                if changed.is_ok() {
                    return;
                }
            }
        }
        // Who has connected already would be reset. The kernel refuses whoever comes later.
        let Ok(listener) = listener.into_std() else { return };
        while let Ok((stream, peer)) = listener.accept() {
            // Of a socket that the runtime did not accept itself it knows nothing before its first event.
            if stream.set_nonblocking(true).is_ok()
                && let Ok(stream) = TcpStream::from_std(stream)
                && stream.writable().await.is_ok()
            {
                let gate = gate.load();
                gate.worker.counters.connections_total.increment();
                gate.open(stream, PeerAddr::from_socket(peer), &alive);
            }
        }
    }
}

/// Accepts for ever.
async fn accept(listener: &TcpListener, gate: &ArcSwap<Gate>, alive: &Alive) {
    let mut exhausted = false;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                exhausted = false;
                let gate = gate.load();
                gate.worker.counters.connections_total.increment();
                gate.open(stream, PeerAddr::from_socket(peer), alive);
            }
            // A client that was gone before it was accepted is nobody's fault.
            Err(error) if is_of_the_connection(&error) => debug!(%error, "accept"),
            Err(error) => {
                if !exhausted {
                    warn!(%error, "cannot accept connections; raise the limit of open files or lower limits.sessions");
                    exhausted = true;
                }
                sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }
}

fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
