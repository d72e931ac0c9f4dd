//! One listener of the running gateway: its sockets, one a worker, and the gate that their connections pass.
//!
//! The gate can be changed while connections come in; who came through the old one keeps what it began with. Dropped, a
//! listener serves what its queues hold, and closes.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::accepting::Accepting;
use super::bind::BoundListener;
use super::gate::Gate;
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
