//! The gateway as a whole: its parts put together in the one right order, and taken apart again.
//!
//! First everything that can fail because of the host (sockets), then privileges go, then threads start. What a part does
//! is the part's own affair.

mod kernel_side;
mod view;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::accept::{Admission, BindError, BoundListener, Parts, Workers, bind};
use crate::backend::{BackendState, watch};
use crate::config::Config;
use crate::control::{Answers as _, ControlSocket, ListenerStatus, SocketError, Status};
use crate::drive::Drain;
use crate::identity::names::Names;
use crate::observe::counters::{CounterSet, Counters};
use crate::observe::log;
use crate::proof::{LastProofs, Prover};
use crate::time::clock::now;
use crate::verdicts::Verdicts;

use kernel_side::{Attachment, KernelSide, attach};
use view::View;

/// How long the start waits to hear what backends offer. A backend that is down does not hold it up longer.
const FIRST_CHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// Between two rounds of housekeeping.
const KEEPING_INTERVAL: Duration = Duration::from_secs(1);

/// A gateway that holds its sockets, and has not started.
#[derive(Debug)]
pub struct Bound {
    config: Config,
    control: ControlSocket,
    listeners: Vec<BoundListener>,
    kernel: (Option<Attachment>, Option<String>),
}

/// A gateway that runs.
#[derive(Debug)]
pub struct Gateway {
    view: Arc<View>,
    workers: Workers,
    drain_timeout: Duration,
    _control: ControlSocket,
}

/// Why a gateway cannot start, in one sentence.
#[derive(Debug)]
#[expect(missing_docs, reason = "each carries its sentence")]
pub enum StartError {
    Control(SocketError),
    Listener(BindError),
    Threads(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Control(error) => error.fmt(f),
            Self::Listener(error) => error.fmt(f),
            Self::Threads(error) => {
                write!(f, "cannot start worker threads: {error}; raise the limit of tasks or lower server.workers")
            }
        }
    }
}

impl std::error::Error for StartError {}

impl Bound {
    /// Takes the control socket and every listener's port, and puts the kernel side on its cards.
    pub fn new(config: Config) -> Result<Self, StartError> {
        let control = ControlSocket::bind(&config.control).map_err(StartError::Control)?;
        let listeners = bind(&config.listeners, config.server.workers).map_err(StartError::Listener)?;
        let ports: Vec<_> = listeners.iter().map(|listener| listener.address.port()).collect();
        let kernel = attach(&config, &ports);
        Ok(Self { config, control, listeners, kernel })
    }

    /// The configuration it is bound for.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where each listener listens.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(|listener| listener.address).collect()
    }

    /// Starts on the current runtime, which must live as long as the gateway. Backends are asked first, briefly, so that
    /// the first client already hears what they offer.
    pub async fn start(self) -> Result<Gateway, StartError> {
        let Self { config, mut control, listeners, kernel } = self;
        let (names, no_names) = Names::spawn(&config.dns);
        if let Some(problem) = no_names {
            warn!("{problem}");
        }
        let backends = watch_backends(&config).await;
        let verdicts = Arc::new(Verdicts::new(&config));
        let (kernel, kernel_problem) = steer(kernel, &config, &verdicts);
        // The last set is this thread's own.
        let counters = CounterSet::new(config.server.workers + 1);
        let proofs = follow_proofs(&config, &listeners, &backends, &names, counters.of(config.server.workers));
        let view = Arc::new(View {
            started: Instant::now(),
            listeners: listener_statuses(&config, &listeners),
            backends,
            counters,
            verdicts,
            admission: Arc::new(Admission::new(&config.limits)),
            proofs,
            kinds: config.backends.iter().map(|backend| backend.kind).collect(),
            kernel,
            kernel_problem,
        });
        let parts = Parts {
            config: &config,
            backends: &view.backends,
            names: &names,
            counters: &view.counters,
            verdicts: &view.verdicts,
            admission: &view.admission,
            record_messages: log::records_messages(),
        };
        let workers = Workers::start(&parts, listeners).map_err(StartError::Threads)?;
        tokio::spawn(keep(view.clone()));
        control.serve(view.clone()).map_err(StartError::Threads)?;
        Ok(Gateway { view, workers, drain_timeout: config.timeouts.drain, _control: control })
    }
}

impl Gateway {
    /// What it is doing.
    pub fn status(&self) -> Status {
        self.view.status()
    }

    /// Stops accepting, lets transactions finish until the configured time or `hasten` is over, and ends.
    pub async fn drain(mut self, hasten: impl Future<Output = ()>) {
        info!(sessions = self.view.admission.sessions(), "draining");
        self.workers.drain(Drain::Gently);
        tokio::select! {
            () = self.workers.ended() => {}
            () = hasten => {}
            () = tokio::time::sleep(self.drain_timeout) => {}
        }
        self.workers.drain(Drain::Now);
        self.workers.ended().await;
        let totals = self.view.counters.totals();
        info!(sessions = totals.sessions_accepted_total, messages = totals.messages_accepted_total, "stopped");
    }
}

/// Asks every backend what it offers, briefly, and goes on asking on the current runtime.
pub(crate) async fn watch_backends(config: &Config) -> Vec<Arc<BackendState>> {
    let hostname = &config.server.hostname;
    let mut backends = Vec::new();
    let mut checks = Vec::new();
    for backend in &config.backends {
        let state = Arc::new(BackendState::new(backend, hostname, config.timeouts.connect));
        let (first, checked) = oneshot::channel();
        tokio::spawn(watch(state.clone(), hostname.clone(), config.limits.clone(), config.timeouts.clone(), first));
        backends.push(state);
        checks.push(checked);
    }
    let all = async {
        for checked in checks {
            // A watch that ended has nothing to tell.
            let _ = checked.await;
        }
    };
    // Backends that need longer are learned later; until then clients are told of little and mail is answered 451.
    let _ = tokio::time::timeout(FIRST_CHECK_TIMEOUT, all).await;
    backends
}

/// The scheduled proofs begin. Where port 0 was asked for, it is told the port that the kernel chose.
fn follow_proofs(
    config: &Config,
    listeners: &[BoundListener],
    backends: &[Arc<BackendState>],
    names: &Names,
    counters: Arc<Counters>,
) -> LastProofs {
    let mut config = config.clone();
    for (listener, bound) in config.listeners.iter_mut().zip(listeners) {
        listener.address = bound.address;
    }
    let config = Arc::new(config);
    LastProofs::follow(Prover::new(config.clone(), backends.to_vec(), names), &config, counters)
}

/// The kernel side that was attached begins to follow verdicts; a gateway without one works too.
fn steer(
    (attachment, problem): (Option<Attachment>, Option<String>),
    config: &Config,
    verdicts: &Arc<Verdicts>,
) -> (Option<KernelSide>, Option<String>) {
    match attachment.map(|attachment| KernelSide::start(attachment, config, verdicts)) {
        None => (None, problem),
        Some(Ok(kernel)) => (Some(kernel), problem),
        Some(Err(error)) => {
            warn!("{error}");
            (None, Some(error.to_string()))
        }
    }
}

/// The housekeeping that nobody waits for.
async fn keep(view: Arc<View>) {
    loop {
        view.verdicts.protect_backends(view.backends.iter().flat_map(|backend| backend.addresses()));
        view.verdicts.sweep(now());
        tokio::time::sleep(KEEPING_INTERVAL).await;
    }
}

fn listener_statuses(config: &Config, bound: &[BoundListener]) -> Vec<ListenerStatus> {
    let statuses = config.listeners.iter().zip(bound).map(|(listener, bound)| ListenerStatus {
        address: bound.address,
        backend: config.backends[listener.backend].name.clone(),
        proxy_protocol: !listener.proxy_protocol_from.is_empty(),
    });
    statuses.collect()
}
