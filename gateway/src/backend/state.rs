//! What is known of one backend, shared by every worker.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tracing::warn;

use crate::config::{Backend, BackendTls, HostPort, IdentityMode};
use crate::identity::xclient::Ipv6Form;
use crate::observe::events::{self, EventKind};
use crate::policy::relay_guard::Hold;
use crate::session::{Blame, Dialect};
use crate::time::Millis;
use crate::time::clock::now;
use crate::tls::{Connector, TlsFacts};

use super::busy;
use super::load::Load;
use super::recognise::{Greeting, fingerprint};

/// Clients in a row that a transparent backend does not answer before it is thought to answer none.
pub(super) const UNHEARD_MAX: u32 = 5;

/// How long it is told of that a session was turned away.
const BUSY_SHOWN: Duration = Duration::from_secs(600);

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
    pub(super) connector: Option<Connector>,
    pub(super) connect_timeout: Duration,
    dialect: RwLock<Arc<Dialect>>,
    /// What it bears; of interest where there are others beside it.
    pub(super) load: Load,
    health: Mutex<Health>,
    refresh: Notify,
    /// Where it is: as configured, or as its name was last resolved.
    pub(super) addresses: RwLock<Arc<[SocketAddr]>>,
    /// Where the gateway itself listens.
    pub(super) own_listeners: RwLock<Arc<[SocketAddr]>>,
    /// A session's identity was refused, and none was accepted since. A health check cannot see that.
    identity_refused: AtomicBool,
    /// The last health check itself went badly, whatever sessions have found.
    check_failed: AtomicBool,
    /// Clients in a row, by their own address, to whom no answer came back. One may be out of reach; all are not.
    pub(super) unheard: AtomicU32,
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
    /// What was agreed upon, over TLS.
    pub tls: Option<TlsFacts>,
    /// Why it is spoken to in clear text, though TLS was tried.
    pub clear_text: Option<String>,
    /// When it turned a session away last, for it was busy, and what to raise. Checks may find a place, and do not know of it.
    pub busy: Option<(Instant, String)>,
}

impl Health {
    /// Whether it was well when it was last seen, or was not seen yet.
    pub(super) fn was_well(&self) -> bool {
        self.healthy || self.checked_at.is_none()
    }

    /// What is wrong, and what to do: what the last check found, or what sessions have been told lately.
    pub fn trouble(&self) -> Option<&str> {
        self.problem.as_deref().or_else(|| self.busy_lately())
    }

    fn busy_lately(&self) -> Option<&str> {
        self.busy.as_ref().filter(|(at, _)| at.elapsed() < BUSY_SHOWN).map(|(_, sentence)| sentence.as_str())
    }
}

impl BackendState {
    /// Nothing is known yet.
    pub fn new(backend: &Backend, connector: Option<Connector>, hostname: &str, connect_timeout: Duration) -> Self {
        Self {
            name: backend.name.clone(),
            address: backend.address.clone(),
            identity: backend.identity,
            tls: backend.tls,
            connector,
            connect_timeout,
            dialect: RwLock::new(Arc::new(Dialect::unknown(hostname))),
            load: Load::default(),
            health: Mutex::default(),
            refresh: Notify::new(),
            addresses: RwLock::new(match &backend.address {
                HostPort::Address(address) => Arc::new([*address]),
                HostPort::Name(..) => Arc::default(),
            }),
            own_listeners: RwLock::default(),
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

    /// What the last health check saw; or that the present one hears nothing, long before it gives up.
    pub fn health(&self) -> Health {
        let mut health = self.lock_health().clone();
        if self.is_silent(now()) && health.was_well() {
            health.healthy = false;
            health.problem = Some(format!("no answer from {} so far", self.address));
        }
        health
    }

    /// Whether it is on this machine, so that nobody else hears what is said to it in clear text.
    pub fn is_on_this_host(&self) -> bool {
        let addresses = self.addresses.read().unwrap_or_else(PoisonError::into_inner);
        !addresses.is_empty() && addresses.iter().all(|address| address.ip().to_canonical().is_loopback())
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
        self.load.set_down(!health.healthy, now());
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
        health.busy = known.busy.take();
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
        self.load.is_unfit(now());
        self.ask_refresh();
    }

    /// It turned a session away, for it is busy; logged when it is news.
    pub fn turned_away(&self, code: u16, text: &str, knows_client: bool) {
        // What it says of a client that it knows is that client's affair.
        if self.identity.is_transparent() || knows_client && !busy::is_of_the_connection(text) {
            return;
        }
        let mut known = self.lock_health();
        let problem = busy::sentence(&self.address, code, text);
        if known.trouble().is_none() {
            warn!(backend = self.name, problem, "backend is busy");
        }
        known.busy = Some((Instant::now(), problem));
    }

    /// A session could not be encrypted, which it must be; logged when it is news. Health checks see that too.
    pub fn tls_failed(&self, why: &str) {
        let mut known = self.lock_health();
        if known.problem.as_deref() != Some(why) {
            warn!(backend = self.name, problem = why, "the backend cannot be spoken to over TLS");
            known.problem = Some(why.to_owned());
        }
        known.healthy = false;
        self.load.is_unfit(now());
        self.ask_refresh();
    }

    /// TLS failed in a session, which went on in clear text; logged when it is news. Health checks see that too.
    pub fn spoken_to_in_clear_text(&self, why: &str) {
        let mut known = self.lock_health();
        if known.clear_text.is_none() {
            warn!(backend = self.name, why, "TLS with the backend fails, so mail goes to it in clear text");
        }
        known.clear_text = Some(why.to_owned());
    }

    /// A session could.
    pub fn identity_accepted(&self) {
        // Read first: this is said of every session, by every core.
        if self.unheard.load(Ordering::Relaxed) != 0 {
            self.unheard.store(0, Ordering::Relaxed);
        }
        if self.load.has_failed() {
            self.load.succeeded(now());
        }
        if self.identity_refused.load(Ordering::Relaxed) {
            self.identity_refused.store(false, Ordering::Relaxed);
            self.ask_refresh();
        }
    }

    /// A session with it did not open, and another server is tried. What a client's bytes may have brought about is nobody's
    /// fault here.
    pub fn opening_failed(&self, blame: Blame) {
        match blame {
            Blame::Nobody => {}
            Blame::Busy => self.load.is_busy(now()),
            Blame::Server => {
                self.load.failed(now());
                self.ask_refresh();
            }
        }
    }

    /// Whether health checks find that it opens no sessions; or one asks it, and waits for longer than sessions would. What
    /// sessions find counts less: a server that is slow fails those that could have another.
    pub fn is_found_down(&self, now: Millis) -> bool {
        self.load.is_down() || self.is_silent(now)
    }

    /// Whether a health check waits for its first word, and for longer than sessions would and than it takes by all that is
    /// known of it.
    pub fn is_silent(&self, now: Millis) -> bool {
        self.load.is_silent(now, self.connect_timeout / 2)
    }

    /// The same, or sessions have found so again and again.
    pub fn is_known_down(&self, now: Millis) -> bool {
        self.load.fails_sessions() || self.is_found_down(now)
    }

    /// Whether an administrator takes it out: no session begins with it then, and those it has go on.
    pub fn is_draining(&self) -> bool {
        self.load.is_draining()
    }

    /// It is taken out, or is back.
    pub fn set_draining(&self, draining: bool) {
        if self.load.set_draining(draining) != draining {
            let what = if draining { "drained: it gets no more sessions" } else { "no longer drained" };
            tracing::info!(backend = self.name, "{what}");
            events::emit(EventKind::Gateway, &self.name, what);
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

    fn lock_health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
