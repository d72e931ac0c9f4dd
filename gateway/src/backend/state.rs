//! What is known of one backend, shared by every worker.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::net::{TcpStream, lookup_host};
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing::warn;

use crate::config::{Backend, BackendTls, HostPort, IdentityMode, TlsVerify};
use crate::identity::xclient::Ipv6Form;
use crate::identity::{ClientAddr, transparent};
use crate::observe::events::{self, EventKind};
use crate::policy::relay_guard::Hold;
use crate::session::Dialect;
use crate::tls::{Connector, ConnectorFault, Pin, SecuredStream, TlsStream, Verify};

use super::recognise::{Greeting, fingerprint};

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 64;
/// Clients in a row that a transparent backend does not answer before it is thought to answer none.
const UNHEARD_MAX: u32 = 5;

/// One backend.
#[derive(Debug)]
pub struct BackendState {
    /// Its name in the configuration.
    pub name: String,
    /// Where it listens.
    pub address: HostPort,
    /// How it is told who the client is.
    pub identity: IdentityMode,
    /// Whether the connection to it is encrypted.
    pub tls: BackendTls,
    /// Begins TLS with it, or why it cannot.
    connector: Option<Result<Connector, ConnectorFault>>,
    connect_timeout: Duration,
    dialect: RwLock<Arc<Dialect>>,
    health: Mutex<Health>,
    refresh: Notify,
    /// Where it is: as configured, or as its name was last resolved.
    addresses: RwLock<Arc<[SocketAddr]>>,
    /// A session's identity was refused, and none was accepted since. A health check cannot see that.
    identity_refused: AtomicBool,
    /// The last health check itself went badly, whatever sessions have found.
    check_failed: AtomicBool,
    /// Clients in a row, by their own address, to whom no answer came back. One may be out of reach; all are not.
    unheard: AtomicU32,
    /// A [`Hold`], as a number.
    hold: AtomicU8,
    /// It is another than it was when it was last proven.
    changed: Notify,
    /// A session has seen a sign that it ignores who clients are.
    identity_doubted: AtomicBool,
    /// Known when it was tried.
    ipv6_form: RwLock<Option<Ipv6Form>>,
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

impl Health {
    /// Whether it was well when it was last seen, or was not seen yet.
    pub(super) fn was_well(&self) -> bool {
        self.healthy || self.checked_at.is_none()
    }
}

impl BackendState {
    /// Nothing is known yet.
    pub fn new(backend: &Backend, hostname: &str, connect_timeout: Duration) -> Self {
        Self {
            name: backend.name.clone(),
            address: backend.address.clone(),
            identity: backend.identity,
            tls: backend.tls,
            connector: connector(backend),
            connect_timeout,
            dialect: RwLock::new(Arc::new(Dialect::unknown(hostname))),
            health: Mutex::default(),
            refresh: Notify::new(),
            addresses: RwLock::new(match &backend.address {
                HostPort::Address(address) => Arc::new([*address]),
                HostPort::Name(..) => Arc::default(),
            }),
            identity_refused: AtomicBool::new(false),
            check_failed: AtomicBool::new(false),
            // The first client of all counts at once.
            unheard: AtomicU32::new(UNHEARD_MAX),
            hold: AtomicU8::new(0),
            changed: Notify::new(),
            identity_doubted: AtomicBool::new(false),
            ipv6_form: RwLock::new(None),
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

    /// How it greets, as far as it has; by this it can be recognised.
    pub fn greeting(&self) -> Greeting {
        let health = self.lock_health();
        let hello = std::iter::once(String::new()).chain(health.keywords.iter().cloned()).collect();
        Greeting { banner: health.banner.clone(), hello }
    }

    /// Files what a check saw; a change is logged.
    pub(super) fn set_health(&self, mut health: Health) {
        let mut known = self.lock_health();
        // Only what checks have seen counts: what sessions find, their clients may have brought about.
        let came_back = self.check_failed.swap(!health.healthy, Ordering::Relaxed) && health.healthy;
        if health.healthy && self.identity_refused.load(Ordering::Relaxed) {
            health.healthy = false;
            health.problem.clone_from(&known.problem);
        }
        if known.problem != health.problem {
            match &health.problem {
                Some(problem) if health.healthy => warn!(backend = self.name, problem, "backend is busy"),
                Some(problem) => {
                    warn!(backend = self.name, problem, "backend is unhealthy");
                    events::emit(EventKind::BackendDown, &self.name, problem);
                }
                None => {
                    tracing::info!(backend = self.name, "backend is healthy again");
                    events::emit(EventKind::BackendUp, &self.name, "healthy again");
                }
            }
        }
        // A check that did not get as far as the greeting says nothing about it.
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

    /// A session could not tell it who the client is; logged when it is news.
    pub fn identity_refused(&self, why: &str) {
        let mut known = self.lock_health();
        if known.problem.as_deref() != Some(why) {
            warn!(backend = self.name, problem = why, "the backend cannot be told who clients are");
            events::emit(EventKind::BackendDown, &self.name, why);
            known.problem = Some(why.to_owned());
        }
        known.healthy = false;
        self.identity_refused.store(true, Ordering::Relaxed);
        self.ask_refresh();
    }

    /// A session could not be encrypted, which it must be; logged when it is news. Health checks see that too.
    pub fn tls_failed(&self, why: &str) {
        let mut known = self.lock_health();
        if known.problem.as_deref() != Some(why) {
            warn!(backend = self.name, problem = why, "the backend cannot be spoken to over TLS");
            known.problem = Some(why.to_owned());
        }
        known.healthy = false;
        self.ask_refresh();
    }

    /// A session could.
    pub fn identity_accepted(&self) {
        // Read first: this is said of every session, by every core.
        if self.unheard.load(Ordering::Relaxed) != 0 {
            self.unheard.store(0, Ordering::Relaxed);
        }
        if self.identity_refused.load(Ordering::Relaxed) {
            self.identity_refused.store(false, Ordering::Relaxed);
            self.ask_refresh();
        }
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

    /// A session has seen a sign that it ignores who clients are; the proof is to look into it. Said once.
    pub fn identity_doubted(&self) {
        if !self.identity_doubted.load(Ordering::Relaxed) && !self.identity_doubted.swap(true, Ordering::Relaxed) {
            warn!(
                backend = self.name,
                "the backend offers XCLIENT to a client that XCLIENT has named: it may ignore the address"
            );
            self.changed.notify_one();
        }
    }

    /// How it wants IPv6 addresses written in XCLIENT.
    pub fn ipv6_form(&self) -> Ipv6Form {
        self.learned_ipv6_form().unwrap_or_default()
    }

    /// The same, if it was tried.
    pub fn learned_ipv6_form(&self) -> Option<Ipv6Form> {
        *self.ipv6_form.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// It was tried.
    pub fn set_ipv6_form(&self, form: Ipv6Form) {
        *self.ipv6_form.write().unwrap_or_else(PoisonError::into_inner) = Some(form);
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

    /// Connects for this client: from its own address, where that is how the backend is told.
    ///
    /// # Errors
    /// Those of [`connect`](Self::connect). Where the backend is told by the address: a client that has none to show, or whose
    /// address is not of the backend's family or is this host's own. Five clients in a row whom the backend did not answer
    /// make it unhealthy.
    pub async fn connect_for(&self, client: ClientAddr) -> io::Result<TcpStream> {
        if !self.identity.is_transparent() {
            return self.connect().await;
        }
        let Some(told) = client.told() else {
            return Err(io::Error::other("the load balancer does not say who the client is"));
        };
        let connected = self.connect_from(Some(told.ip())).await;
        // Other errors are about this client, or would befall the gateway too.
        if connected.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            let unheard = self.unheard.fetch_add(1, Ordering::Relaxed).saturating_add(1);
            if unheard >= UNHEARD_MAX && self.health().healthy {
                self.identity_refused(&unshown(&self.address));
            }
        }
        connected
    }

    /// Connects to the first address that answers; each gets its own timeout.
    ///
    /// # Errors
    /// No address is known and none was found, or none answered: the last one's error, `TimedOut` after the timeout.
    pub async fn connect(&self) -> io::Result<TcpStream> {
        self.connect_from(None).await
    }

    async fn connect_from(&self, source: Option<IpAddr>) -> io::Result<TcpStream> {
        let mut addresses = self.known_addresses();
        if addresses.is_empty() {
            addresses = self.resolve().await?;
        }
        let mut last = match source {
            None => no_address(format!("`{}` has no address", self.address)),
            Some(source) => no_address(format!("`{}` has no address of the same family as {source}", self.address)),
        };
        let fits = |address: &&SocketAddr| source.is_none_or(|source| source.is_ipv4() == address.is_ipv4());
        for &address in addresses.iter().filter(fits) {
            match self.connect_to(address, source).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn connect_to(&self, address: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
        let connecting = async {
            match source {
                None => TcpStream::connect(address).await,
                Some(source) => transparent::socket(source, address)?.connect(address).await,
            }
        };
        let silence = |_| io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
        let stream = timeout(self.connect_timeout, connecting).await.map_err(silence)??;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// What begins TLS with it, if that can be had.
    pub fn connector(&self) -> Option<&Connector> {
        self.connector.as_ref().and_then(|made| made.as_ref().ok())
    }

    /// Begins TLS on a connection to it.
    ///
    /// # Errors
    /// The socket's, or the handshake's.
    pub async fn secure(&self, socket: TcpStream) -> io::Result<SecuredStream> {
        let mut stream = TlsStream::plain(socket);
        self.secure_stream(&mut stream).await?;
        Ok(stream.into_parts())
    }

    /// The same, for whoever goes on with the stream.
    ///
    /// # Errors
    /// The socket's, or the handshake's.
    pub async fn secure_stream(&self, stream: &mut TlsStream) -> io::Result<()> {
        match &self.connector {
            Some(Ok(connector)) => stream.secure(connector).await,
            Some(Err(fault)) => Err(io::Error::other(fault.to_string())),
            None => Err(io::Error::other("TLS was not asked for")),
        }
    }

    /// Looks its name up anew, if it has one. Health checks do, so that sessions need not wait for a resolver.
    pub(super) async fn resolve(&self) -> io::Result<Arc<[SocketAddr]>> {
        let HostPort::Name(name, port) = &self.address else { return Ok(self.known_addresses()) };
        let found = timeout(self.connect_timeout, lookup_host((name.as_str(), *port))).await??;
        let found: Arc<[SocketAddr]> = found.take(ADDRESSES_MAX).collect();
        *self.addresses.write().unwrap_or_else(PoisonError::into_inner) = found.clone();
        Ok(found)
    }

    fn known_addresses(&self) -> Arc<[SocketAddr]> {
        self.addresses.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where it is, as far as that is known. One with a name may have other addresses tomorrow.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.known_addresses().iter().map(SocketAddr::ip).collect()
    }

    fn lock_health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What begins TLS with a backend; `None` where it is spoken to in clear.
///
/// # Errors
/// Its authorities' file is no good, or it has no name that a certificate could have.
pub fn connector(backend: &Backend) -> Option<Result<Connector, ConnectorFault>> {
    if backend.tls == BackendTls::Off {
        return None;
    }
    let name = match (&backend.tls_name, &backend.address) {
        (Some(name), _) => name.clone(),
        (None, HostPort::Name(name, _)) => name.clone(),
        (None, HostPort::Address(address)) => address.ip().to_string(),
    };
    let verify = match (backend.verifies(), &backend.tls_ca) {
        (TlsVerify::Ca, Some(path)) => Verify::Ca(path.clone()),
        (TlsVerify::Roots | TlsVerify::Ca, _) => Verify::Roots,
        (TlsVerify::Pin, _) => Verify::Pins(backend.tls_pins.iter().map(|digest| Pin(*digest)).collect()),
        (TlsVerify::None, _) => Verify::Nothing,
    };
    Some(Connector::new(&name, &verify, backend.tls != BackendTls::Opportunistic, None))
}

fn no_address(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, message)
}

/// A backend that answers the gateway, and not a client's address.
fn unshown(address: &HostPort) -> String {
    format!(
        "{address} answers the gateway, but no answer comes back to clients' addresses, so mail is answered 451; `smtp-gateway \
         network show` says what routing that takes"
    )
}
