//! Threads: each has a listener of its own at the same address and a runtime of its own, and a session stays where it was
//! accepted. The kernel spreads the connections.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::runtime::{self, Runtime};
use tokio::sync::watch;

use super::connection;
use super::options::Options;
use super::shared::Shared;

/// Connections the kernel holds for a thread that is busy.
const BACKLOG: i32 = 4096;
/// How long a thread waits when the system has no descriptor for a further connection.
const NO_DESCRIPTOR_PAUSE: Duration = Duration::from_millis(50);

/// A sink that runs. It stops when this is dropped; its sessions are closed as they stand.
#[derive(Debug)]
pub struct Sink {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Its loss tells the threads to end.
    running: Option<watch::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

/// What a sink has counted since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Connections accepted.
    pub sessions: u64,
    /// Messages answered with 250.
    pub messages: u64,
    /// Octets in them.
    pub octets: u64,
}

/// Starts a sink on threads of its own.
///
/// # Errors
/// Says what was wrong and where: the address, the host name or the Maildir.
pub fn start(options: Options) -> io::Result<Sink> {
    let workers = match options.workers {
        0 => thread::available_parallelism().map_or(1, NonZeroUsize::get),
        workers => workers,
    };
    let listeners = listen(options.listen, workers).map_err(|error| {
        let text = format!("the sink cannot listen at {}: {error}", options.listen);
        io::Error::new(error.kind(), text)
    })?;
    let address = listeners[0].local_addr()?;
    let shared = Arc::new(Shared::new(options)?);
    let (running, stopped) = watch::channel(());
    let mut sink = Sink { address, shared, running: Some(running), threads: Vec::new() };
    for listener in listeners {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let (shared, stopped) = (Arc::clone(&sink.shared), stopped.clone());
        let run = move || work(&runtime, listener, shared, stopped);
        sink.threads.push(thread::Builder::new().name("sink".into()).spawn(run)?);
    }
    Ok(sink)
}

impl Sink {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has counted.
    pub fn totals(&self) -> Totals {
        let counts = &self.shared.counts;
        Totals {
            sessions: counts.sessions.load(Ordering::Relaxed),
            messages: counts.messages.load(Ordering::Relaxed),
            octets: counts.octets.load(Ordering::Relaxed),
        }
    }

    /// Stops it, and returns when its threads are gone and the address is free.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.running = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                // The thread has told of its panic already; a second one while dropping would hide it.
                eprintln!("sink: a thread ended in a panic");
            }
        }
    }
}

/// One listener for each worker.
fn listen(address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    if address.port() != 0 {
        // Shared ports are shared with another sink of the same user too, which would take half of the mail.
        socket(address, false)?;
    }
    let first = socket(address, true)?;
    let address = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..workers {
        listeners.push(socket(address, true)?);
    }
    Ok(listeners)
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    // Accepted sockets inherit it, which saves a system call a session.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn work(runtime: &Runtime, listener: TcpListener, shared: Arc<Shared>, mut stopped: watch::Receiver<()>) {
    runtime.block_on(async {
        tokio::select! {
            Err(error) = accept(listener, shared) => eprintln!("sink: {error}"),
            _ = stopped.changed() => {}
        }
    });
}

/// Accepts until the world ends. An error is one of the listener itself.
async fn accept(listener: TcpListener, shared: Arc<Shared>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => drop(tokio::spawn(connection::serve(stream, peer, Arc::clone(&shared)))),
            // The client went before it was accepted, or there is no descriptor left: the next one may fare better.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(_) => tokio::time::sleep(NO_DESCRIPTOR_PAUSE).await,
        }
    }
}
