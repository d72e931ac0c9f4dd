//! Worker threads, and how they end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::backend::BackendState;
use crate::config::Config;
use crate::drive::{Drain, DrainState, Worker, wake_sessions};
use crate::identity::names::Names;
use crate::observe::counters::CounterSet;
use crate::session::Settings;
use crate::verdicts::Verdicts;

use super::admission::Admission;
use super::bind::BoundListener;
use super::gate::Gate;

/// After the drain's time is up, how long the last replies may take to leave.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Every worker wakes this often. A runtime interrupts itself, with a write and a read of its own, whenever a timer is set
/// that comes before all others; before a tick that is always near, no session's timer does.
const TICK: Duration = Duration::from_secs(1);

/// What all workers share.
#[derive(Debug)]
pub struct Parts<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// One for each backend of the configuration.
    pub backends: &'a [Arc<BackendState>],
    /// Reverse DNS.
    pub names: &'a Names,
    /// One set a worker.
    pub counters: &'a CounterSet,
    /// Who is banned.
    pub verdicts: &'a Arc<Verdicts>,
    /// Who is in.
    pub admission: &'a Arc<Admission>,
    /// Whether envelopes are kept for the log.
    pub record_messages: bool,
}

/// The running workers.
#[derive(Debug)]
pub struct Workers {
    drain: Arc<DrainState>,
    stage: watch::Sender<Drain>,
    ended: mpsc::Receiver<()>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts `config.server.workers` threads on sockets that are already bound.
    pub fn start(parts: &Parts<'_>, mut bound: Vec<BoundListener>) -> io::Result<Self> {
        let drain = Arc::new(DrainState::default());
        let (stage, _) = watch::channel(Drain::No);
        let (running, ended) = mpsc::channel(1);
        let mut threads = Vec::new();
        for index in 0..parts.config.server.workers {
            let (alive, sessions) = mpsc::channel(1);
            let listeners = bound.iter_mut().enumerate().filter_map(|(listener, bound)| {
                let gate = gate(parts, (listener, bound.address), index, &drain, alive.clone());
                bound.sockets.pop().map(|socket| (socket, gate))
            });
            let listeners: Vec<_> = listeners.collect();
            let (stage, running) = (stage.subscribe(), running.clone());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let thread = Builder::new().name(format!("worker-{index}")).spawn(move || {
                runtime.block_on(work(listeners, stage, sessions));
                runtime.shutdown_background();
                drop(running);
            })?;
            threads.push(thread);
        }
        Ok(Self { drain, stage, ended, threads })
    }

    /// Begins the way down, or hastens it.
    pub fn drain(&self, stage: Drain) {
        self.drain.set(stage);
        self.stage.send_replace(stage);
    }

    /// Waits until every worker has ended.
    pub async fn ended(&mut self) {
        // Nothing is ever sent: the channel closes when the last worker lets go of it.
        let _ = self.ended.recv().await;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker ended in panic");
            }
        }
    }
}

/// A gate that belongs to no worker: sessions that come through it heed no drain and no hold.
pub(super) fn gate_of(parts: &Parts<'_>, listener: usize) -> Gate {
    let (alive, _) = mpsc::channel(1);
    let mut gate = gate(parts, (listener, parts.config.listeners[listener].address), 0, &Arc::default(), alive);
    if let Some(worker) = Arc::get_mut(&mut gate.worker) {
        worker.heeds_hold = false;
    }
    gate
}

fn gate(
    parts: &Parts<'_>,
    (listener, address): (usize, SocketAddr),
    worker: usize,
    drain: &Arc<DrainState>,
    alive: mpsc::Sender<()>,
) -> Gate {
    let Parts { config, backends, names, counters, verdicts, admission, record_messages } = parts;
    let configured = &config.listeners[listener];
    Gate {
        worker: Arc::new(Worker {
            settings: Arc::new(Settings::new(config, listener, *record_messages)),
            backend: backends[configured.backend].clone(),
            names: (*names).clone(),
            verdicts: (*verdicts).clone(),
            counters: counters.of(worker),
            drain: drain.clone(),
            log_mailboxes: config.log.mailboxes,
            heeds_hold: true,
        }),
        admission: (*admission).clone(),
        proxy_protocol_from: configured.proxy_protocol_from.as_slice().into(),
        greet_delay: config.server.greet_delay,
        destination: (!address.ip().is_unspecified()).then_some(address),
        alive,
    }
}

/// A worker's life: accept until told to drain, then see its sessions out.
async fn work(
    listeners: Vec<(std::net::TcpListener, Gate)>,
    mut stage: watch::Receiver<Drain>,
    mut sessions: mpsc::Receiver<()>,
) {
    let mut accepting = Vec::new();
    for (socket, gate) in listeners {
        match TcpListener::from_std(socket) {
            Ok(listener) => accepting.push(tokio::spawn(gate.accept(listener))),
            Err(error) => tracing::error!(%error, "a bound socket cannot be used"),
        }
    }
    tokio::spawn(async {
        loop {
            tokio::time::sleep(TICK).await;
        }
    });
    // If whoever could tell is gone, it is time to go.
    let _ = stage.wait_for(|stage| *stage >= Drain::Gently).await;
    for task in accepting {
        task.abort();
        // It was aborted, so it has nothing to tell.
        let _ = task.await;
    }
    wake_sessions();
    tokio::select! {
        _ = sessions.recv() => return,
        _ = stage.wait_for(|stage| *stage >= Drain::Now) => {}
    }
    wake_sessions();
    // Sessions that are still there then are cut off.
    let _ = tokio::time::timeout(LAST_WORDS, sessions.recv()).await;
}
