//! What the sessions of one worker share, and how they are told to end.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::Waker;

use ipnet::IpNet;

use crate::backend::Pool;
use crate::identity::names::Names;
use crate::identity::{ClientAddr, Source};
use crate::observe::counters::Counters;
use crate::observe::refusals::{self, RefusalCause};
use crate::observe::routes::RouteTallies;
use crate::policy::handshakes::HandshakeLimit;
use crate::session::{Dialect, Settings, TlsOffer};
use crate::time::clock::now;
use crate::tls::Acceptor;
use crate::verdicts::Verdicts;

/// Everything a session needs, for one listener on one worker.
#[derive(Debug)]
pub struct Worker {
    /// Where its clients connect to.
    pub listener: SocketAddr,
    /// The backends that the listener leads to, its own first; at least one.
    pub pools: Box<[Arc<Pool>]>,
    /// What came by each route, where the listener leads to several backends; otherwise empty.
    pub routes: RouteTallies,
    /// TLS with clients, where they get it.
    pub tls: Option<ClientTls>,
    /// Looks names of clients up (reverse DNS).
    pub names: Names,
    /// Who is banned, and for what.
    pub verdicts: Arc<Verdicts>,
    /// This worker's counters.
    pub counters: Arc<Counters>,
    /// Whether to end.
    pub drain: Arc<DrainState>,
    /// Whether places are running out.
    pub shortage: Arc<Shortage>,
    /// Whether mailboxes are logged whole.
    pub log_mailboxes: bool,
    /// Whether what the relay proof made of the backend holds for these sessions; not for the proof's own.
    pub heeds_hold: bool,
    /// The listener's settings. Last, as in a session: whose settings nobody else holds, of those nothing else is held.
    pub settings: Arc<Settings>,
}

/// How the clients of a listener get TLS.
#[derive(Debug, Clone)]
pub struct ClientTls {
    /// What makes a connection's TLS.
    pub acceptor: Acceptor,
    /// From the first byte; otherwise by STARTTLS.
    pub implicit: bool,
    /// Networks whose clients are not told of STARTTLS.
    pub not_offered_to: Arc<[IpNet]>,
    /// How many handshakes a source may begin.
    pub handshakes: Arc<HandshakeLimit>,
}

impl Worker {
    /// What clients are told: what all backends offer.
    pub(super) fn dialect(&self) -> Arc<Dialect> {
        if let [only] = &*self.pools {
            return only.dialect();
        }
        let parts: Vec<_> = self.pools.iter().map(|pool| pool.dialect()).collect();
        self.settings.dialect(Dialect::common(&parts))
    }

    /// How this client may come to TLS.
    pub(super) fn tls_offer(&self, client: ClientAddr) -> TlsOffer {
        match &self.tls {
            None => TlsOffer::None,
            Some(ClientTls { implicit: true, .. }) => TlsOffer::Implicit,
            Some(tls) if tls.not_offered_to.iter().any(|network| network.contains(&client.ip())) => TlsOffer::None,
            // While there is no certificate, a client that may do without TLS does.
            Some(tls) if tls.acceptor.certificates().is_empty() => TlsOffer::None,
            Some(tls) if tls.handshakes.is_used_up(Source::of(client.ip()), now()) => TlsOffer::StartTlsLater,
            Some(_) => TlsOffer::StartTls,
        }
    }

    /// Counts what was refused to this source, and tells of it unless the relay proof had asked for it.
    pub fn refused(&self, cause: RefusalCause, source: IpAddr) {
        self.counters.refusals_total.increment(cause);
        if self.heeds_hold {
            refusals::tell(cause, source);
        }
    }

    /// A connection ended before it said who it is for; that is nothing to tell.
    pub fn turned_away_silently(&self) {
        self.counters.sessions_refused_total.increment();
    }

    /// A connection was turned away before a session began.
    pub fn turned_away(&self, cause: RefusalCause, source: IpAddr) {
        self.counters.sessions_refused_total.increment();
        self.refused(cause, source);
    }
}

/// Whether places for sessions are running out. Sessions read it when they judge how long a client may take: while places are
/// short, deadlines are shorter, and who has brought no mail goes first.
#[derive(Debug, Default)]
pub struct Shortage(AtomicBool);

impl Shortage {
    /// Whether they are.
    pub fn is_short(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// They are, or no longer.
    pub fn set(&self, short: bool) {
        self.0.store(short, Ordering::Relaxed);
    }
}

/// Wakes the sessions of one thread when places begin to run out: one that sleeps until a far deadline would not notice.
#[derive(Debug)]
pub struct Alarm {
    shortage: Arc<Shortage>,
    rang: bool,
}

impl Alarm {
    /// For whichever thread looks.
    pub fn new(shortage: Arc<Shortage>) -> Self {
        Self { shortage, rang: false }
    }

    /// Wakes this thread's sessions, once a shortage. To be called every second or so.
    pub fn ring_if_short(&mut self) {
        let short = self.shortage.is_short();
        if short && !self.rang {
            wake_sessions();
        }
        self.rang = short;
    }
}

/// How far the way down is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Drain {
    /// The gateway runs.
    No = 0,
    /// Transactions may finish.
    Gently = 1,
    /// Whatever goes on is broken off.
    Now = 3,
}

/// What every session must heed, in one number that each compares whenever it is polled: how far the way down is, and how
/// often sessions were called.
#[derive(Debug, Default)]
pub struct DrainState(AtomicU32);

/// What a session has heeded last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Notice(u32);

/// Bits of the drain's stage; above them calls are counted.
const STAGE_BITS: u32 = 2;

impl DrainState {
    /// How far it is, and how often sessions were called.
    pub(super) fn notice(&self) -> Notice {
        Notice(self.0.load(Ordering::Acquire))
    }

    /// One step on. Each worker must then call [`wake_sessions`].
    pub fn set(&self, stage: Drain) {
        // The stage only ever rises, and its numbers hold each lower one's bits.
        self.0.fetch_or(stage as u32, Ordering::Release);
    }

    /// Calls every session once more. The worker must then wake them.
    pub(super) fn call(&self) {
        self.0.fetch_add(1 << STAGE_BITS, Ordering::AcqRel);
    }
}

impl Notice {
    pub(super) fn stage(self) -> Drain {
        match self.0 & ((1 << STAGE_BITS) - 1) {
            0 => Drain::No,
            1 => Drain::Gently,
            _ => Drain::Now,
        }
    }
}

thread_local! {
    static SESSIONS: RefCell<HashMap<u64, Waker>> = RefCell::new(HashMap::new());
}

/// Has every session of this thread look at what it must heed.
pub fn wake_sessions() {
    for waker in wakers() {
        waker.wake();
    }
}

/// Of every session of this thread.
pub(super) fn wakers() -> Vec<Waker> {
    SESSIONS.with(|sessions| sessions.borrow().values().cloned().collect())
}

pub(super) fn register(id: u64, waker: &Waker) {
    SESSIONS.with(|sessions| sessions.borrow_mut().insert(id, waker.clone()));
}

pub(super) fn unregister(id: u64) {
    // While the thread itself ends there may be nothing to unregister from.
    let _ = SESSIONS.try_with(|sessions| sessions.borrow_mut().remove(&id));
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn sessions_are_woken_once_each_time_that_places_run_out() {
        let (woken, shortage) = (Arc::new(Woken::default()), Arc::new(Shortage::default()));
        register(1, &woken.clone().into());
        let mut alarm = Alarm::new(shortage.clone());
        for (short, expected) in [(false, 0), (true, 1), (true, 1), (false, 1), (true, 2)] {
            shortage.set(short);
            alarm.ring_if_short();
            assert_eq!(woken.0.load(Ordering::Relaxed), expected);
        }
        unregister(1);
    }
}
