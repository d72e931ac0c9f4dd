//! The gateway as a whole: its parts put together in the one right order, and taken apart again.
//!
//! First everything that can fail because of the host (sockets), then privileges go, then threads start. What a part does
//! is the part's own affair.

mod backends;
mod kernel_side;
mod numbers;
mod view;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::accept::{Admission, BindError, BoundListener, Entry, Gate, Listener, Parts, Workers, bind};
use crate::config::Config;
use crate::control::{Answers as _, ControlSocket, ListenerStatus, SocketError, Status};
use crate::drive::Drain;
use crate::identity::host::HostNetworks;
use crate::identity::names::Names;
use crate::metrics::MetricsSocket;
use crate::observe::counters::{CounterSet, Counters, MessageOutcome};
use crate::observe::events::{self, EventKind};
use crate::observe::{log, refusals};
use crate::proof::{Prover, Schedule};
use crate::time::clock::now;
use crate::verdicts::Verdicts;

pub(crate) use backends::Backends;
use kernel_side::{Attachment, KernelSide, attach};
use view::View;

/// Between two rounds of housekeeping.
const KEEPING_INTERVAL: Duration = Duration::from_secs(1);

/// Between two summaries of what was too much to tell one by one.
const SUMMARY_INTERVAL: Duration = Duration::from_secs(60);

/// A gateway that holds its sockets, and has not started.
#[derive(Debug)]
pub struct Bound {
    config: Config,
    control: ControlSocket,
    listeners: Vec<BoundListener>,
    metrics: Option<MetricsSocket>,
    warnings: Vec<String>,
    kernel: (Option<Attachment>, Option<String>),
}

/// A gateway that runs.
#[derive(Debug)]
pub struct Gateway {
    view: Arc<View>,
    listeners: Vec<Listener>,
    workers: Workers,
    drain_timeout: Duration,
    _control: ControlSocket,
}

/// Why a gateway cannot start, in one sentence.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The control socket cannot be had.
    #[error(transparent)]
    Control(#[from] SocketError),
    /// A listener cannot listen.
    #[error(transparent)]
    Listener(#[from] BindError),
    /// The metrics listener cannot listen.
    #[error(transparent)]
    Metrics(#[from] crate::metrics::BindError),
    /// The system has no more threads.
    #[error("cannot start worker threads: {0}; raise the limit of tasks or lower server.workers")]
    Threads(#[source] io::Error),
}

impl StartError {
    /// Whether starting again cannot mend it.
    pub fn is_of_the_configuration(&self) -> bool {
        matches!(self, Self::Listener(error) if error.is_of_the_configuration())
    }
}

impl Bound {
    /// Takes the control socket and every listener's port, and puts the kernel side on its cards.
    pub fn new(config: Config) -> Result<Self, StartError> {
        let control = ControlSocket::bind(&config.control)?;
        let (listeners, warnings) = bind(&config.listeners, config.server.workers)?;
        for warning in &warnings {
            warn!("{warning}");
        }
        let metrics = MetricsSocket::bind(&config.metrics, &config.server.hostname)?;
        let ports: Vec<_> = listeners.iter().map(|listener| listener.address.port()).collect();
        let kernel = attach(&config, &ports);
        Ok(Self { config, control, listeners, metrics, warnings, kernel })
    }

    /// The configuration it is bound for.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What was made on the host's file system; it must stay the gateway's when it becomes another user.
    pub fn own_files(&self) -> Vec<PathBuf> {
        self.control.own_files()
    }

    /// Something that an administrator should know, for `status`.
    pub fn warn(&mut self, sentence: String) {
        self.warnings.push(sentence);
    }

    /// Where each listener listens.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(|listener| listener.address).collect()
    }

    /// Starts on the current runtime, which must live as long as the gateway. Backends are asked first, briefly, so that
    /// the first client already hears what they offer.
    pub async fn start(self) -> Result<Gateway, StartError> {
        let Self { config, mut control, listeners, metrics, warnings, kernel } = self;
        let (names, no_names) = Names::spawn(&config.dns);
        if let Some(problem) = no_names {
            warn!("{problem}");
        }
        let mut backends = Backends::watch(&config).await;
        let verdicts = Arc::new(Verdicts::new(&config, &HostNetworks::read()));
        let (kernel, kernel_problem) = steer(kernel, &config, &verdicts);
        // The last set is this thread's own.
        let counters = CounterSet::new(config.server.workers + 1);
        if config.proof.enabled {
            backends.prove(&schedule(&config, &listeners, &backends, &names, counters.of(config.server.workers)));
        }
        let view = Arc::new(View {
            started: Instant::now(),
            warnings,
            listeners: listener_statuses(&config, &listeners),
            backends,
            counters,
            verdicts,
            admission: Arc::new(Admission::new(&config.limits)),
            kernel,
            kernel_problem,
            sessions_limit: u64::try_from(config.limits.sessions).unwrap_or(u64::MAX),
            config_digest: digest(&config),
            draining: AtomicBool::new(false),
        });
        let workers = Workers::start(config.server.workers).map_err(StartError::Threads)?;
        let listeners = open(&config, &view, &names, &workers, listeners);
        tokio::spawn(keep(view.clone()));
        control.serve(view.clone()).map_err(StartError::Threads)?;
        if let Some(metrics) = metrics {
            metrics.serve(view.clone()).map_err(StartError::Threads)?;
        }
        events::emit(EventKind::Gateway, "gateway", concat!("started, version ", env!("CARGO_PKG_VERSION")));
        Ok(Gateway { view, listeners, workers, drain_timeout: config.timeouts.drain, _control: control })
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
        self.view.draining.store(true, Ordering::Relaxed);
        events::emit(EventKind::Gateway, "gateway", "draining");
        self.listeners.clear();
        self.workers.drain(Drain::Gently);
        tokio::select! {
            () = self.workers.ended() => {}
            () = hasten => {}
            () = tokio::time::sleep(self.drain_timeout) => {}
        }
        self.workers.drain(Drain::Now);
        self.workers.ended().await;
        let totals = self.view.counters.totals();
        info!(
            sessions = totals.sessions_accepted_total,
            messages = totals.messages_total.of(MessageOutcome::Accepted),
            "stopped"
        );
    }
}

/// The workers begin to accept.
fn open(config: &Config, view: &View, names: &Names, workers: &Workers, bound: Vec<BoundListener>) -> Vec<Listener> {
    let parts = Parts {
        config,
        names,
        counters: &view.counters,
        verdicts: &view.verdicts,
        admission: &view.admission,
        drain: workers.drain_state(),
        record_messages: log::records_messages(),
    };
    let backends = view.backends.states();
    let listeners = config.listeners.iter().zip(bound).enumerate().map(|(index, (configured, bound))| {
        let entry = Entry::new(&parts, index, bound.address, backends[configured.backend].clone());
        Listener::open(workers, bound, |worker| Gate::new(&parts, &entry, worker, true))
    });
    listeners.collect()
}

/// When these backends are proven. Where port 0 was asked for, the prover is told the port that the kernel chose.
fn schedule(
    config: &Config,
    listeners: &[BoundListener],
    backends: &Backends,
    names: &Names,
    counters: Arc<Counters>,
) -> Schedule {
    let mut config = config.clone();
    for (listener, bound) in config.listeners.iter_mut().zip(listeners) {
        listener.address = bound.address;
    }
    let config = Arc::new(config);
    Schedule::new(Prover::new(config.clone(), backends.states(), names), &config, counters)
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
    let mut since_summary = Instant::now();
    loop {
        view.verdicts.protect_backends(view.backends.iter().flat_map(|backend| backend.state.addresses()));
        view.verdicts.sweep(now());
        events::journal().gather();
        if since_summary.elapsed() >= SUMMARY_INTERVAL {
            since_summary = Instant::now();
            refusals::sum_up();
            log::sum_up();
        }
        tokio::time::sleep(KEEPING_INTERVAL).await;
    }
}

/// A number that differs where configurations do.
fn digest(config: &Config) -> String {
    let mut hasher = DefaultHasher::new();
    format!("{config:?}").hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn listener_statuses(config: &Config, bound: &[BoundListener]) -> Vec<ListenerStatus> {
    let statuses = config.listeners.iter().zip(bound).map(|(listener, bound)| ListenerStatus {
        address: bound.address,
        backend: config.backends[listener.backend].name.clone(),
        proxy_protocol: !listener.proxy_protocol_from.is_empty(),
    });
    statuses.collect()
}
