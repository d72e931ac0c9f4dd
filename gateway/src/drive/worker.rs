//! What the sessions of one worker share, and how they are told to end.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::Waker;

use crate::backend::BackendState;
use crate::identity::names::Names;
use crate::observe::counters::Counters;
use crate::observe::refusals::{self, RefusalCause};
use crate::session::Settings;
use crate::verdicts::Verdicts;

/// Everything a session needs, for one listener on one worker.
#[derive(Debug)]
pub struct Worker {
    /// The listener's settings.
    pub settings: Arc<Settings>,
    /// The listener's backend.
    pub backend: Arc<BackendState>,
    /// Reverse DNS.
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
}

impl Worker {
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

/// How far the way down is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Drain {
    /// Not on it.
    No = 0,
    /// Transactions may finish.
    Gently = 1,
    /// Nothing may.
    Now = 2,
}

/// The way down, for all workers.
#[derive(Debug, Default)]
pub struct DrainState(AtomicU8);

impl DrainState {
    /// How far it is.
    pub fn stage(&self) -> Drain {
        match self.0.load(Ordering::Acquire) {
            0 => Drain::No,
            1 => Drain::Gently,
            _ => Drain::Now,
        }
    }

    /// One step on. Each worker must then call [`wake_sessions`].
    pub fn set(&self, stage: Drain) {
        self.0.store(stage as u8, Ordering::Release);
    }
}

thread_local! {
    static SESSIONS: RefCell<HashMap<u64, Waker>> = RefCell::new(HashMap::new());
}

/// Has every session of this thread look at the drain's stage.
pub fn wake_sessions() {
    SESSIONS.with(|sessions| {
        for waker in sessions.borrow().values() {
            waker.wake_by_ref();
        }
    });
}

pub(super) fn register(id: u64, waker: &Waker) {
    SESSIONS.with(|sessions| sessions.borrow_mut().insert(id, waker.clone()));
}

pub(super) fn unregister(id: u64) {
    // While the thread itself ends there may be nothing to unregister from.
    let _ = SESSIONS.try_with(|sessions| sessions.borrow_mut().remove(&id));
}
