//! One listener of the running gateway: its sockets, one a worker, and the gate that their connections pass.
//!
//! The gate can be changed while connections come in; who came through the old one keeps what it began with. Dropped, a
//! listener serves what its queues hold, and closes.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::identity::PeerAddr;

use super::bind::BoundListener;
use super::gate::{Alive, EXHAUSTED_PAUSE, Gate};
use super::workers::Workers;

/// A listener that accepts.
#[derive(Debug)]
pub struct Listener {
    /// What the configuration says.
    pub configured: SocketAddr,
    /// Where it listens.
    pub address: SocketAddr,
    /// One a worker.
    gates: Vec<Arc<ArcSwap<Gate>>>,
    /// Dropped with the listener: then every worker stops accepting on it.
    _open: watch::Sender<()>,
}

/// One worker's share of a listener.
#[derive(Debug)]
pub(super) struct Accepting {
    socket: std::net::TcpListener,
    gate: Arc<ArcSwap<Gate>>,
    /// Closes when the listener is dropped.
    open: watch::Receiver<()>,
}

impl Listener {
    /// Begins to accept on these sockets. `gate` makes the gate of the worker with this index.
    pub fn open(workers: &Workers, bound: BoundListener, gate: impl Fn(usize) -> Gate) -> Self {
        let BoundListener { configured, address, sockets } = bound;
        let (open, is_open) = watch::channel(());
        let gates: Vec<_> = (0..workers.count()).map(|worker| Arc::new(ArcSwap::from_pointee(gate(worker)))).collect();
        let accepting = sockets.into_iter().zip(&gates);
        workers.hand_out(accepting.map(|(socket, gate)| Accepting {
            socket,
            gate: gate.clone(),
            open: is_open.clone(),
        }));
        Self { configured, address, gates, _open: open }
    }

    /// Connections that are accepted from now on pass these gates; made as by [`open`](Self::open).
    pub fn change(&self, gate: impl Fn(usize) -> Gate) {
        for (worker, place) in self.gates.iter().enumerate() {
            place.store(Arc::new(gate(worker)));
        }
    }
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
            // Nothing is ever sent: it ends when the listener is dropped.
            _ = open.changed() => {}
        }
        // Who has connected already would be reset. The kernel refuses whoever comes later.
        let Ok(listener) = listener.into_std() else { return };
        while let Ok((stream, peer)) = listener.accept() {
            if stream.set_nonblocking(true).is_ok()
                && let Ok(stream) = tokio::net::TcpStream::from_std(stream)
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
