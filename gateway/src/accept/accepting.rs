//! One worker's share of a listener: it accepts until the listener is gone, and then serves what its queue holds.
//!
//! Several workers wait at one queue, and whoever comes by first takes one connection, not all that wait: then it sees to its
//! sessions before it comes again. So the worker that has less to do takes more, and nobody needs to know who that is.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SocketFlags, acceptfrom_with};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::identity::PeerAddr;

use super::gate::{Alive, EXHAUSTED_PAUSE, Gate};

/// One worker's share of a listener.
#[derive(Debug)]
pub(super) struct Accepting {
    pub(super) socket: TcpListener,
    pub(super) gate: Arc<ArcSwap<Gate>>,
    /// Closes when the listener is dropped; changes when it is handed over.
    pub(super) open: watch::Receiver<()>,
}

impl Accepting {
    /// Accepts until the listener is gone.
    pub(super) async fn accept(self, alive: Alive) {
        let Self { socket, gate, mut open } = self;
        // The runtime's own listener can be asked for nothing but a connection. To wait, a socket is as good as any other.
        let listener = match TcpStream::from_std(OwnedFd::from(socket).into()) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "a bound socket cannot be used"),
        };
        tokio::select! {
            error = accept(&listener, &gate, &alive) => tracing::error!(%error, "a bound socket cannot be waited for"),
            changed = open.changed() => {
                if changed.is_ok() {
                    return;
                }
            }
        }
        // Who has connected already would be reset. The kernel refuses whoever comes later.
        while let Ok((stream, peer)) = next(&listener) {
            open_gate(&gate, stream, peer, &alive);
        }
    }
}

/// Accepts for ever, unless the runtime fails.
async fn accept(listener: &TcpStream, gate: &ArcSwap<Gate>, alive: &Alive) -> io::Error {
    let mut exhausted = false;
    loop {
        if let Err(error) = listener.readable().await {
            return error;
        }
        match listener.try_io(Interest::READABLE, || next(listener)) {
            Ok((stream, peer)) => {
                exhausted = false;
                open_gate(gate, stream, peer, alive);
                // To accept in vain costs several times as much as to ask.
                if listener.try_io(Interest::READABLE, || another_waits(listener)).is_ok() {
                    yield_now().await;
                }
            }
            // Another worker was first.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
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

fn open_gate(gate: &ArcSwap<Gate>, stream: TcpStream, peer: PeerAddr, alive: &Alive) {
    let gate = gate.load();
    gate.worker.counters.connections_total.increment();
    gate.open(stream, peer, alive);
}

/// The connection that waits longest.
fn next(listener: impl AsFd) -> io::Result<(TcpStream, PeerAddr)> {
    let (stream, peer) = acceptfrom_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    // The kernel says of every connection from where it is.
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok()).ok_or(io::ErrorKind::ConnectionAborted)?;
    Ok((TcpStream::from_std(stream.into())?, PeerAddr::from_socket(peer)))
}

/// Whether a connection waits already; would block if none does, and the runtime says when one comes.
fn another_waits(listener: impl AsFd) -> io::Result<()> {
    match poll(&mut [PollFd::new(&listener, PollFlags::IN)], Some(&Timespec::default())) {
        Ok(0) => Err(io::ErrorKind::WouldBlock.into()),
        // Who cannot ask tries.
        Ok(_) | Err(_) => Ok(()),
    }
}

fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
