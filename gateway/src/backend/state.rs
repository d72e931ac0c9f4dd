//! What is known of one backend, shared by every worker.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::net::{TcpStream, lookup_host};
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing::warn;

use crate::config::{Backend, HostPort, IdentityMode};
use crate::session::Dialect;

/// Addresses of one backend that are remembered.
const ADDRESSES_MAX: usize = 64;

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
    found_at: Mutex<Vec<IpAddr>>,
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
            found_at: Mutex::default(),
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
        *known = health;
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
        self.found_at(address.ip());
        Ok(stream)
    }

    /// Where it was found so far. One with a name may have several addresses, and others tomorrow.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.found_at.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn found_at(&self, ip: IpAddr) {
        let mut known = self.found_at.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.contains(&ip) {
            if known.len() >= ADDRESSES_MAX {
                known.remove(0);
            }
            known.push(ip);
        }
    }

    fn lock_health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
