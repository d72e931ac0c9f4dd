//! The gateway as a whole: its parts put together in the one right order, and taken apart again.
//!
//! First everything that can fail because of the host (sockets), then privileges go, then threads start. What a part does
//! is the part's own affair.

mod backends;
pub mod certificates;
mod departure;
mod generation;
mod handover;
mod held;
mod journal;
mod keeping;
mod kernel_side;
mod log_levels;
mod logins;
mod loops;
mod memory;
mod numbers;
mod parts;
mod reload;
mod retired;
mod routes;
mod secured;
mod servers;
mod sessions;
mod takeover;
mod upgrades;
mod view;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use crate::accept::{Admission, BindError, BoundListener, Listener, Workers, bind};
use crate::backend::{Connectors, SrvServers};
use crate::config::Config;
use crate::control::{Answers as _, ControlSocket, ReloadAnswer, SocketError, Status};
use crate::drive::Drain;
use crate::identity::host::HostNetworks;
use crate::metrics::{MetricsServer, MetricsSocket};
use crate::observe::counters::{CounterSet, MessageOutcome};
use crate::observe::events::{self, EventKind};
use crate::time::clock::{now, since_1970};
use crate::tls::Acceptor;
use crate::verdicts::Verdicts;

pub(crate) use backends::Backends;
pub use departure::{Departure, HandoverError};
use generation::{Generation, Origin};
use handover::Serving;
use journal::Journal;
use keeping::keep;
use kernel_side::{KernelStage, steer};
use log_levels::LogLevels;
pub(crate) use loops::loops;
pub(crate) use parts::risks;
use parts::{place, schedule, spawn_names};
pub use reload::{Occasion, ReloadError, Reloaded};
use retired::Retired;
pub use takeover::{Inheritance, TakeoverError};
use takeover::{Inherited, inherit};
pub use upgrades::Candidate;
use upgrades::Upgrades;
use view::View;

/// A gateway that holds its sockets, and has not started.
#[derive(Debug)]
pub struct Bound {
    config: Config,
    file: Option<PathBuf>,
    control: ControlSocket,
    listeners: Vec<BoundListener>,
    metrics: Option<MetricsSocket>,
    /// For what outlives the gateway.
    state: Option<PathBuf>,
    warnings: Vec<String>,
    kernel: KernelStage,
    acceptor: Option<Acceptor>,
    connectors: Connectors,
    /// What names its servers, where that is not the configuration.
    srv: Option<SrvServers>,
    /// From a process that this one is to take over from.
    inheritance: Option<Inheritance>,
}

/// A gateway that runs.
#[derive(Debug)]
pub struct Gateway {
    view: Arc<View>,
    listeners: Vec<Listener>,
    workers: Workers,
    /// Reloads that are asked for through the control socket.
    reloads: mpsc::Receiver<oneshot::Sender<ReloadAnswer>>,
    /// Processes that want to take over.
    candidates: mpsc::Receiver<Candidate>,
    control: ControlSocket,
    metrics: Option<MetricsServer>,
    /// What names its servers, where that is not the configuration.
    srv: Option<SrvServers>,
    /// Closes when the process has ended that this one took over from.
    predecessor: Option<oneshot::Receiver<()>>,
    /// That process's standard output and error.
    output: Option<[OwnedFd; 2]>,
}

/// What the gateway is asked for through the control socket.
#[derive(Debug)]
pub enum Asked {
    /// To read its configuration again, and to answer here.
    Reload(oneshot::Sender<ReloadAnswer>),
    /// To put its own configuration in force once more: DNS names other servers.
    Servers(Box<Config>),
    /// To hand over to another process.
    Upgrade(Candidate),
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
    /// TLS cannot be set up.
    #[error("{0}")]
    Certificates(certificates::Faults),
    /// The process that runs does not hand over, or not all.
    #[error(transparent)]
    Takeover(#[from] TakeoverError),
    /// The system has no more threads.
    #[error("cannot start worker threads: {0}; raise the limit of tasks or lower server.workers")]
    Threads(#[source] io::Error),
    /// The system has nothing to wait for an answer with.
    #[error("cannot look mail servers up: {0}")]
    LookUp(#[source] io::Error),
}

impl StartError {
    /// Whether starting again cannot mend it.
    pub fn is_of_the_configuration(&self) -> bool {
        match self {
            Self::Listener(error) => error.is_of_the_configuration(),
            Self::Certificates(_) => true,
            _ => false,
        }
    }
}

impl Bound {
    /// Takes the control socket and every listener's port, and puts the kernel side on its cards. What another process of this
    /// gateway hands over is taken as it is, and its cards are left to it for the time being.
    ///
    /// # Errors
    /// Certificates cannot be used, or a socket cannot be had; what was taken is given back. Without a kernel side, or a
    /// directory for bans, the gateway works: those are warnings.
    pub fn new(config: Config, mut inheritance: Option<Inheritance>) -> Result<Self, StartError> {
        let (config, srv) = servers::look_up(config).map_err(StartError::LookUp)?;
        // Before privileges go: only root may be able to read keys.
        let tickets = inheritance.as_ref().and_then(Inheritance::tickets);
        let acceptor = certificates::acceptor(&config, None, tickets).map_err(StartError::Certificates)?;
        let connectors = certificates::connectors(&config, None).map_err(StartError::Certificates)?;
        let control = match inheritance.as_mut().and_then(|inheritance| inheritance.control(&config)) {
            Some(socket) => ControlSocket::adopt(socket, &config.control)?,
            None => ControlSocket::bind(&config.control)?,
        };
        let all: Vec<_> = config.listeners.iter().map(|listener| listener.address).collect();
        let adopted = inheritance.as_mut().map(Inheritance::listeners).unwrap_or_default();
        let (listeners, warnings) = bind(&config.listeners, &all, config.server.workers, adopted)?;
        for warning in &warnings {
            warn!("{warning}");
        }
        let (state, warnings) = match journal::directory(config.server.state.as_deref()) {
            Ok(state) => (state, warnings),
            Err(error) => {
                let told = format!(
                    "`server.state` cannot be had ({error}), so bans end with the gateway; name a directory that it may write"
                );
                warn!("{told}");
                (None, warnings.into_iter().chain([told]).collect())
            }
        };
        let hostname = &config.server.hostname;
        let metrics = match inheritance.as_mut().and_then(|inheritance| inheritance.metrics(&config)) {
            Some(socket) => Some(MetricsSocket::adopt(socket, &config.metrics, hostname)?),
            None => MetricsSocket::bind(&config.metrics, hostname)?,
        };
        let ports: Vec<_> = listeners.iter().map(|listener| listener.address.port()).collect();
        let kernel = KernelStage::new(&config, &ports, inheritance.as_ref())?;
        Ok(Self {
            config,
            file: None,
            control,
            listeners,
            metrics,
            state,
            warnings,
            kernel,
            acceptor,
            connectors,
            srv,
            inheritance,
        })
    }

    /// Where its configuration came from, for `status`.
    pub fn of_file(mut self, file: &Path) -> Self {
        self.file = Some(file.to_owned());
        self
    }

    /// The configuration it is bound for.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What was made on the host's file system; it must stay the gateway's when it becomes another user.
    pub fn own_files(&self) -> Vec<PathBuf> {
        self.control.own_files()
    }

    /// The directory for what outlives the gateway.
    pub fn state(&self) -> Option<&Path> {
        self.state.as_deref()
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
    /// the first client already hears what they offer. A process that this one takes over from serves until then, and if this
    /// fails, goes on.
    ///
    /// # Errors
    /// The system has no more threads or files, or the process that serves does not hand over. A backend that does not answer
    /// is no error.
    pub async fn start(self) -> Result<Gateway, StartError> {
        let addresses = self.addresses();
        let Self {
            config,
            file,
            mut control,
            listeners,
            metrics,
            state,
            mut warnings,
            kernel,
            acceptor,
            connectors,
            srv,
            inheritance,
        } = self;
        let mut told = risks(&config);
        let names = spawn_names(&config, &mut told);
        for problem in &told {
            warn!("{problem}");
        }
        let mut backends = Backends::watch(&config, &connectors).await;
        let workers = Workers::start(config.server.workers).map_err(StartError::Threads)?;
        let verdicts = Arc::new(Verdicts::new(&config, &HostNetworks::read()));
        // The last set is this thread's own.
        let counters = CounterSet::new(config.server.workers + 1);
        let own_counters = counters.of(config.server.workers);

        let mut inherited = inherit(inheritance, (&verdicts, &counters), &mut backends, config.relay.on_open)?;
        let (kernel, kernel_problem) = steer(kernel, (&config, &addresses), &verdicts, inherited.as_ref());
        let journal = state.map(|directory| Journal::new(&directory));
        match &mut inherited {
            // The journal is as old as the book that was handed over, or older.
            Some(inherited) => inherited.inheritance.taken()?,
            // Behind the kernel side, which then hears of them.
            None => {
                let unusable = journal.as_ref().and_then(|journal| journal.restore(&verdicts, (now(), since_1970())));
                warnings.extend(unusable);
            }
        }
        if config.proof.enabled {
            backends.prove(&schedule(&config, &addresses, &backends, &names, own_counters.clone()));
        }
        let admission = Arc::new(Admission::new(&config.limits, workers.shortage().clone()));
        let origin = match &srv {
            Some(srv) => Origin::new(&srv.written(), file),
            None => Origin::new(&config, file),
        };
        let srv_problems = srv.as_ref().map(|srv| srv.problems().clone()).unwrap_or_default();
        let log_levels = LogLevels::new(config.log.level.clone());
        log_levels.adopt(inherited.as_mut().and_then(|inherited| inherited.log_level.take()));
        let (reload, reloads) = mpsc::channel(1);
        let (upgrades, candidates) = Upgrades::new();
        let view = Arc::new(View {
            started: Instant::now(),
            warnings,
            generation: ArcSwap::from_pointee(Generation::first(
                (config, origin),
                names,
                backends,
                addresses,
                (told, srv_problems),
            )),
            reloads: reload,
            counters,
            verdicts,
            acceptor: Mutex::new(acceptor.map(view::watched)),
            admission,
            kernel,
            kernel_problem,
            caller: workers.caller(),
            log_levels,
            draining: AtomicBool::new(false),
            journal: Mutex::new(journal),
            retired: Retired::default(),
            upgrades,
            handing_over: AtomicBool::new(false),
        });
        let Generation { config, names, backends, .. } = &*view.generation();
        let listeners = place(config, &view, names, backends, &workers, (Vec::new(), listeners));
        control.serve(view.clone()).map_err(StartError::Threads)?;
        let metrics = metrics.map(|metrics| metrics.serve(view.clone())).transpose().map_err(StartError::Threads)?;
        let (mut predecessor, mut output) = (None, None);
        if let Some(Inherited { inheritance, output: inherited, counts, .. }) = inherited {
            let (kernel, left) = (kernel_side::is_wanted(config), inheritance.left(config));
            let serving = Serving { control: true, kernel, left };
            let counters = (view.counters.clone(), own_counters, counts);
            predecessor = Some(inheritance.serving(serving, view.verdicts.clone(), counters)?);
            output = Some(inherited);
        }
        control.own_file();
        tokio::spawn(keep(view.clone()));
        events::emit(EventKind::Gateway, "gateway", concat!("started, version ", env!("CARGO_PKG_VERSION")));
        Ok(Gateway { view, listeners, workers, reloads, candidates, control, metrics, srv, predecessor, output })
    }
}

impl Gateway {
    /// What it is doing.
    pub fn status(&self) -> Status {
        self.view.status()
    }

    /// Asked again and again, tells whether every worker has gone round since the last time; they do so every second.
    pub fn all_beat(&self) -> impl FnMut() -> bool + Send + use<> {
        let mut pulse = self.workers.pulse();
        move || pulse.all_beat()
    }

    /// What it is asked for next through the control socket.
    pub async fn asked(&mut self) -> Option<Asked> {
        tokio::select! {
            reload = self.reloads.recv() => reload.map(Asked::Reload),
            candidate = self.candidates.recv() => candidate.map(Asked::Upgrade),
            config = servers::others(&mut self.srv) => Some(Asked::Servers(Box::new(config))),
        }
    }

    /// Standard output and error of the process that this one took over from; once.
    pub fn inherited_output(&mut self) -> Option<[OwnedFd; 2]> {
        self.output.take()
    }

    /// Stops accepting, lets transactions finish until the configured time or `hasten` is over, and ends.
    pub async fn drain(mut self, hasten: impl Future<Output = ()>) {
        info!(sessions = self.view.admission.sessions(), "draining");
        self.view.draining.store(true, Ordering::Relaxed);
        events::emit(EventKind::Gateway, "gateway", "draining");
        self.listeners.clear();
        self.see_out(hasten).await;
        self.view.keep_bans(true);
        self.view.tell_lost_bans();
        let totals = self.view.counters.totals();
        info!(
            sessions = totals.sessions_accepted_total,
            messages = totals.messages_total.of(MessageOutcome::Accepted),
            "stopped"
        );
    }

    /// Lets transactions finish until the configured time or `hasten` is over, and ends every session.
    async fn see_out(&mut self, hasten: impl Future<Output = ()>) {
        let drain_timeout = self.view.generation().config.timeouts.drain;
        self.workers.drain(Drain::Gently);
        tokio::select! {
            () = self.workers.ended() => {}
            () = hasten => {}
            () = tokio::time::sleep(drain_timeout) => {}
        }
        self.workers.drain(Drain::Now);
        self.workers.ended().await;
    }
}
