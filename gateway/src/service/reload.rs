//! A reload: another configuration in place of the one in force, whole or not at all.
//!
//! First everything that can fail is done, and nothing that is in force is touched: sockets are bound, backends asked. Then the
//! new takes the old one's place, in steps of which none can fail. Sessions go on by what they began with.
//!
//! Whatever is made from the configuration (gates, and with them all that a session reads) is made anew here, so that what a
//! file holds that the configuration names is read again, too.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::oneshot::Receiver;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::accept::{BindError, BoundListener, Listener, bind};
use crate::backend::SrvServers;
use crate::config::{self, Config};
use crate::metrics::{BindError as MetricsBindError, MetricsServer, MetricsSocket};
use crate::observe::events::{self, EventKind};

use super::Gateway;
use super::backends::Backends;
use super::certificates;
use super::generation::{Generation, keep_unchangeable, listener_statuses};
use super::memory;
use super::parts::{place, risks, schedule, spawn_names};

/// How often, and after what time, a port is tried again that the process before may still have.
const BIND_ATTEMPTS: u32 = 20;
const BIND_INTERVAL: Duration = Duration::from_millis(50);

/// Why a reload did not happen. The old configuration is in force as before.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// A new listener cannot listen.
    #[error(
        "{0}; a running gateway has given its privileges up, so a new port below 1024 takes `smtp-gateway upgrade`"
    )]
    Listener(#[from] BindError),
    /// TLS with a backend cannot be set up.
    #[error("{0}")]
    Certificates(#[from] certificates::Faults),
    /// Numbers cannot be served where they are to be.
    #[error(transparent)]
    Metrics(#[from] MetricsBindError),
}

impl ReloadError {
    /// Whether it is the configuration that must be mended.
    pub fn is_of_the_configuration(&self) -> bool {
        match self {
            Self::Listener(error) => error.is_of_the_configuration(),
            Self::Certificates(_) => true,
            Self::Metrics(_) => false,
        }
    }
}

/// Why a configuration is put in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// Somebody wants it.
    Wanted,
    /// DNS names other servers; everything else is as it was.
    Servers,
}

/// What came of a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    /// Tells configurations apart.
    pub digest: String,
    /// What is not as the file says, and what to do, a sentence each.
    pub kept: Vec<String>,
}

impl Gateway {
    /// Puts this configuration in place of the one in force.
    ///
    /// # Errors
    /// A new listener cannot listen, or TLS with a backend cannot be set up; nothing has changed then.
    pub async fn reload(&mut self, config: Config, occasion: Occasion) -> Result<Reloaded, ReloadError> {
        let old = self.view.generation();
        let origin = match occasion {
            Occasion::Wanted => old.origin.again(&config),
            Occasion::Servers => old.origin.clone(),
        };
        let (mut config, srv) = SrvServers::find(config, self.srv.as_ref()).await;
        let mut kept = keep_unchangeable(&old.config, &mut config);
        let is_new = |listener: &&config::Listener| self.listeners.iter().all(|l| l.configured != listener.address);
        let added: Vec<_> = config.listeners.iter().filter(is_new).cloned().collect();
        let all: Vec<_> = config.listeners.iter().map(|listener| listener.address).collect();
        let connectors = certificates::connectors(&config, Some(&old.backends))?;
        let (bound, told) = self.bind_added(&added, &all).await?;
        let metrics = self.metrics_socket(&old.config, &config)?;
        kept.extend(told);
        kept.extend(risks(&config));
        let names = if config.dns == old.config.dns { old.names.clone() } else { spawn_names(&config, &mut kept) };
        let mut backends = Backends::replace(&old.backends, &old.config, &config, &connectors).await;
        let addresses = addresses(&config, &self.listeners, &bound);
        let counters = &self.view.counters;
        if config.proof.enabled {
            let counters = counters.of(self.workers.count());
            backends.prove(&schedule(&config, &addresses, &backends, &names, counters));
        }

        self.view.verdicts.configure(&config);
        self.view.admission.set_limits(&config.limits);
        if let Err(error) = self.view.log_levels.configure(&config.log.level) {
            warn!(%error, "the log's level stays as it was");
        }
        if let Some(kernel) = &self.view.kernel {
            let ports: Vec<_> = addresses.iter().map(SocketAddr::port).collect();
            if let Err(error) = kernel.configure(&config, &ports) {
                kept.push(format!("the kernel side goes on by its old settings: {error}"));
            }
        }
        if config.tls != old.config.tls {
            let known = self.view.acceptor();
            let (certificates, tickets) = (
                known.as_ref().map(|known| &**known.certificates()),
                known.as_ref().map(|known| known.tickets().clone()),
            );
            match certificates::acceptor(&config, certificates, tickets) {
                Ok(acceptor) => self.view.set_acceptor(acceptor),
                Err(faults) => kept.push(format!("clients are shown the certificates that they were: {faults}")),
            }
        }
        if let Some(socket) = metrics {
            let serving = socket.map(|socket| socket.serve(self.view.clone())).transpose();
            let before = match serving {
                Ok(serving) => std::mem::replace(&mut self.metrics, serving),
                Err(error) => {
                    kept.push(format!("numbers are not served as the file says: {error}; run `smtp-gateway upgrade`"));
                    None
                }
            };
            before.into_iter().for_each(MetricsServer::stop);
        }
        let listeners = std::mem::take(&mut self.listeners);
        self.listeners = place(&config, &self.view, &names, &backends, &self.workers, (listeners, bound));
        let reloaded = Reloaded { digest: origin.digest.clone(), kept: kept.clone() };
        let news: Vec<_> = match occasion {
            Occasion::Wanted => kept.clone(),
            Occasion::Servers => kept.iter().filter(|sentence| !old.kept.contains(sentence)).cloned().collect(),
        };
        let servers = servers_by_dns(&config);
        let listeners = listener_statuses(&config, addresses);
        let srv_problems = srv.as_ref().map(|srv| srv.problems().clone()).unwrap_or_default();
        self.srv = srv;
        self.view.set_generation(Generation { config, origin, names, backends, listeners, kept, srv_problems });
        drop(old);
        let view = self.view.clone();
        // Nobody waits for it.
        drop(tokio::task::spawn_blocking(move || {
            if view.retired.sweep() {
                memory::give_back();
            }
        }));
        match occasion {
            Occasion::Wanted => {
                info!(digest = reloaded.digest, "reloaded");
                events::emit(EventKind::Reload, "configuration", format_args!("in force, digest {}", reloaded.digest));
            }
            Occasion::Servers => {
                info!(servers, "DNS names other servers, which new sessions get");
                events::emit(EventKind::Gateway, "servers", format_args!("DNS names others: {servers}"));
            }
        }
        for sentence in &news {
            warn!("{sentence}");
        }
        Ok(reloaded)
    }
}

impl Gateway {
    /// Binds new listeners. The process before may still be about to close one that this one did not take over.
    async fn bind_added(
        &mut self,
        added: &[config::Listener],
        all: &[SocketAddr],
    ) -> Result<(Vec<BoundListener>, Vec<String>), BindError> {
        let mut attempts = BIND_ATTEMPTS;
        loop {
            let bound = bind(added, all, self.workers.count(), Vec::new());
            attempts -= 1;
            let may_close = |before: &mut Receiver<()>| before.try_recv() == Err(TryRecvError::Empty);
            match bound {
                Err(error) if error.is_in_use() && attempts > 0 && self.predecessor.as_mut().is_some_and(may_close) => {
                    sleep(BIND_INTERVAL).await;
                }
                done => return done,
            }
        }
    }

    /// Where numbers are to be served from now on, and by which names; `None`: as before.
    fn metrics_socket(&self, old: &Config, new: &Config) -> Result<Option<Option<MetricsSocket>>, MetricsBindError> {
        let (hostname, metrics) = (&new.server.hostname, &new.metrics);
        if *metrics == old.metrics && *hostname == old.server.hostname {
            return Ok(None);
        }
        let same = self.metrics.as_ref().filter(|_| metrics.address == old.metrics.address);
        match same.map(MetricsServer::handle).map(|handle| handle.try_clone_to_owned()) {
            Some(Ok(handle)) => MetricsSocket::adopt(handle.into(), metrics, hostname).map(Some).map(Some),
            _ => MetricsSocket::bind(metrics, hostname).map(Some),
        }
    }
}

/// The servers that DNS names, with their backends.
fn servers_by_dns(config: &Config) -> String {
    let of = |pool: &config::Pool| {
        let servers = config.backends[pool.servers.clone()].iter().map(|server| server.address.to_string());
        format!("backend `{}`: {}", pool.name, servers.collect::<Vec<_>>().join(" "))
    };
    config.pools.iter().filter(|pool| pool.srv.is_some()).map(of).collect::<Vec<_>>().join("; ")
}

/// Where each listener of the configuration listens, in its order.
fn addresses(config: &Config, old: &[Listener], bound: &[BoundListener]) -> Vec<SocketAddr> {
    let address = |listener: &config::Listener| {
        let kept = old.iter().find(|old| old.configured == listener.address).map(|old| old.address);
        let new = || bound.iter().find(|new| new.configured == listener.address).map(|new| new.address);
        kept.or_else(new).unwrap_or(listener.address)
    };
    config.listeners.iter().map(address).collect()
}
