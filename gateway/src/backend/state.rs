//! What is known of one backend, shared by every worker.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::net::{TcpStream, lookup_host};
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing::warn;

use crate::config::{Backend, HostPort, IdentityMode};
use crate::policy::relay_guard::Hold;
use crate::proof::server::fingerprint;
use crate::session::Dialect;

/// One backend.
#[derive(Debug)]
pub struct BackendState {
    /// Its name in the configuration.
    pub name: String,
    /// Where it listens.
    pub address: HostPort,
    /// How it is told who the client is.
    pub identity: IdentityMode,
    connect_timeout: Duration,
    dialect: RwLock<Arc<Dialect>>,
    health: Mutex<Health>,
    refresh: Notify,
    /// A [`Hold`], as a number.
    hold: AtomicU8,
    /// It is another than it was when it was last proven.
    changed: Notify,
}

/// What the last health check saw.
#[derive(Debug, Clone, Default)]
pub struct Health {
    /// Whether it answered as a mail server that the configured identity can be given to.
    pub healthy: bool,
    /// When it was asked last.
    pub checked_at: Option<Instant>,
    /// What is wrong, and what to do.
    pub problem: Option<String>,
    /// First line of its greeting.
    pub banner: String,
    /// Its EHLO keywords.
    pub keywords: Vec<String>,
}

impl BackendState {
    /// Nothing is known yet.
    pub fn new(backend: &Backend, hostname: &str, connect_timeout: Duration) -> Self {
        Self {
            name: backend.name.clone(),
            address: backend.address.clone(),
            identity: backend.identity,
            connect_timeout,
            dialect: RwLock::new(Arc::new(Dialect::unknown(hostname))),
            health: Mutex::default(),
            refresh: Notify::new(),
            hold: AtomicU8::new(0),
            changed: Notify::new(),
        }
    }

    /// What clients are told now.
    pub fn dialect(&self) -> Arc<Dialect> {
        self.dialect.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Something was learned.
    pub(super) fn set_dialect(&self, dialect: Dialect) {
        let mut known = self.dialect.write().unwrap_or_else(PoisonError::into_inner);
        if **known != dialect {
            *known = Arc::new(dialect);
        }
    }

    /// What the last health check saw.
    pub fn health(&self) -> Health {
        self.lock_health().clone()
    }

    /// Files what a check saw; a change is logged.
    pub(super) fn set_health(&self, health: Health) {
        let mut known = self.lock_health();
        if known.problem != health.problem {
            match &health.problem {
                Some(problem) => warn!(backend = self.name, problem, "backend is unhealthy"),
                None => tracing::info!(backend = self.name, "backend is healthy again"),
            }
        }
        // A check that did not get as far as the greeting says nothing about it.
        let came_back = known.checked_at.is_some() && !known.healthy && health.healthy;
        let print = |health: &Health| fingerprint(&health.banner, &health.keywords);
        let is_other = !known.banner.is_empty() && !health.banner.is_empty() && print(&known) != print(&health);
        let banner = std::mem::take(&mut known.banner);
        let keywords = std::mem::take(&mut known.keywords);
        *known = health;
        if known.banner.is_empty() {
            (known.banner, known.keywords) = (banner, keywords);
        }
        drop(known);
        if came_back || is_other {
            self.changed.notify_one();
        }
    }

    /// A session met a fault that a health check cannot see; logged when it is news.
    pub fn report_problem(&self, problem: &str) {
        let mut known = self.lock_health();
        if known.problem.as_deref() != Some(problem) {
            warn!(backend = self.name, problem, "the backend cannot be told who clients are");
            known.problem = Some(problem.to_owned());
        }
        known.healthy = false;
    }

    /// What it may be given.
    pub fn hold(&self) -> Hold {
        match self.hold.load(Ordering::Relaxed) {
            0 => Hold::None,
            1 => Hold::Plain,
            _ => Hold::Defer,
        }
    }

    /// What it may be given from now on, also in sessions that have begun.
    pub fn set_hold(&self, hold: Hold) {
        let number = match hold {
            Hold::None => 0,
            Hold::Plain => 1,
            Hold::Defer => 2,
        };
        self.hold.store(number, Ordering::Relaxed);
    }

    /// Waits until it came back, or greets otherwise than before. One waiter.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Asks for a health check now.
    pub fn ask_refresh(&self) {
        self.refresh.notify_one();
    }

    pub(super) async fn refresh_asked(&self) {
        self.refresh.notified().await;
    }

    /// Connects to the first address that answers; each gets its own timeout.
    pub async fn connect(&self) -> io::Result<TcpStream> {
        match &self.address {
            HostPort::Address(address) => self.connect_to(*address).await,
            HostPort::Name(name, port) => {
                let mut last = io::Error::new(io::ErrorKind::NotFound, format!("`{name}` has no address"));
                for address in lookup_host((name.as_str(), *port)).await? {
                    match self.connect_to(address).await {
                        Ok(stream) => return Ok(stream),
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
        }
    }

    async fn connect_to(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let stream = timeout(self.connect_timeout, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn lock_health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
