//! One listener of the running gateway: its sockets, one a worker, and the gate that their connections pass.
//!
//! The gate can be changed while connections come in; who came through the old one keeps what it began with. Dropped, a
//! listener serves what its queues hold, and closes. Handed over to another process, it leaves them to that one.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::accepting::Accepting;
use super::bind::{BoundListener, Queue};
use super::gate::{Entry, Gate};
use super::workers::Workers;

/// A listener that accepts.
#[derive(Debug)]
pub struct Listener {
    /// What the configuration says.
    pub configured: SocketAddr,
    /// Where it listens.
    pub address: SocketAddr,
    entry: Entry,
    /// One a worker.
    gates: Vec<Arc<ArcSwap<Gate>>>,
    /// All its queues once more, for a process that takes over.
    spares: Vec<std::net::TcpListener>,
    /// Dropped with the listener: then every worker stops accepting on it.
    open: watch::Sender<()>,
}

impl Listener {
    /// Begins to accept on these sockets. `gate` makes the gate of the worker with this index.
    pub fn open(workers: &Workers, bound: BoundListener, entry: Entry, gate: impl Fn(&Entry, usize) -> Gate) -> Self {
        let BoundListener { configured, address, sockets } = bound;
        let (open, is_open) = watch::channel(());
        let gate = |worker| Arc::new(ArcSwap::from_pointee(gate(&entry, worker)));
        let gates: Vec<_> = (0..workers.count()).map(gate).collect();
        let (sockets, spares): (Vec<_>, Vec<_>) =
            sockets.into_iter().map(|Queue { socket, spare }| (socket, spare)).unzip();
        // There may be more queues than workers, of a gateway that had more. A queue that nobody serves would reset who
        // waits in it.
        let accepting = sockets.into_iter().zip(gates.iter().cycle());
        workers.hand_out(accepting.map(|(socket, gate)| Accepting {
            socket,
            gate: gate.clone(),
            open: is_open.clone(),
        }));
        Self { configured, address, entry, gates, spares, open }
    }

    /// Its queues, for a process that takes over.
    pub fn queues(&self) -> &[std::net::TcpListener] {
        &self.spares
    }

    /// Stops accepting; what waits is for the process that has its queues.
    pub fn hand_over(self) {
        self.open.send_replace(());
    }

    /// Connections that are accepted from now on pass these gates; made as by [`open`](Self::open). What the gates before led
    /// to comes back, for sessions may hold it still.
    #[must_use]
    pub fn change(&mut self, entry: Entry, gate: impl Fn(&Entry, usize) -> Gate) -> Entry {
        for (worker, place) in self.gates.iter().enumerate() {
            place.store(Arc::new(gate(&entry, worker)));
        }
        std::mem::replace(&mut self.entry, entry)
    }

    /// Serves what its queues hold, and closes. What its gates led to comes back, for sessions may hold it still.
    #[must_use]
    pub fn close(self) -> Entry {
        self.entry
    }
}
