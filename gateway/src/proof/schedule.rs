//! Proofs on a schedule: the running gateway proves its backends at start, on a schedule, and when one comes back or greets
//! otherwise than before; what was found last stands in `status`, and what follows from it is done.
//!
//! One proof at a time, on the runtime that serves no clients. Whoever was found to relay stays held until a proof has shown
//! that it no longer does: a backend that cannot be asked is not forgiven.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, error, info, warn};

use crate::config::{Config, OnOpen};
use crate::observe::counters::Counters;
use crate::observe::events::{self, EventKind};
use crate::policy::relay_guard::Hold;
use crate::time::clock::since_1970;

use super::probe::State;
use super::prove::Prover;
use super::report::BackendReport;

/// A backend that changes again and again is not proven more often than this.
const CHANGE_PAUSE: Duration = Duration::from_secs(15);
/// What could not be shown is tried again after this, if the schedule is no sooner.
const RETRY_PAUSE: Duration = Duration::from_secs(600);

/// What the relay proof last found about one backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastProof {
    /// The last verdict.
    pub state: State,
    /// When, in seconds since 1970, UTC.
    pub checked_at: Option<u64>,
    /// What was found, a sentence each.
    pub findings: Vec<String>,
    /// Whether it was found to relay, and not yet found to have stopped.
    relays: bool,
}

/// The same, for whoever asks and for who proves. Cheap to clone: all clones see the same.
#[derive(Debug, Clone)]
pub struct ProofRecord(Arc<Mutex<LastProof>>);

/// When the backends of one configuration are proven, and what follows.
#[derive(Debug, Clone)]
pub struct Schedule {
    prover: Arc<Prover>,
    /// One at a time.
    turn: Arc<Semaphore>,
    counters: Arc<Counters>,
    interval: Duration,
    on_open: OnOpen,
}

impl LastProof {
    fn nothing() -> Self {
        Self { state: State::NeverRun, checked_at: None, findings: Vec::new(), relays: false }
    }

    /// What the backend may be given.
    pub fn hold(&self, on_open: OnOpen) -> Hold {
        hold(on_open, self.relays)
    }
}

impl Default for ProofRecord {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(LastProof::nothing())))
    }
}

impl ProofRecord {
    /// As it stands.
    pub fn last(&self) -> LastProof {
        lock(&self.0).clone()
    }

    /// Goes on from what another process of this gateway knew.
    pub fn adopt(&self, last: LastProof) {
        *lock(&self.0) = last;
    }
}

impl Schedule {
    /// By this prover, as `config` wants it; runs and verdicts are counted in `counters`.
    pub fn new(prover: Prover, config: &Config, counters: Arc<Counters>) -> Self {
        let turn = Arc::new(Semaphore::new(1));
        Self {
            prover: Arc::new(prover),
            turn,
            counters,
            interval: config.proof.interval,
            on_open: config.relay.on_open,
        }
    }

    /// Proves the backend with this index in the configuration for ever: at once, on schedule, and when it changes.
    pub fn follow(&self, index: usize, record: ProofRecord) -> impl Future<Output = ()> + Send + use<> {
        Proven { record, index, schedule: self.clone() }.follow()
    }
}

fn lock(known: &Mutex<LastProof>) -> MutexGuard<'_, LastProof> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One backend and its schedule.
struct Proven {
    record: ProofRecord,
    index: usize,
    schedule: Schedule,
}

impl Proven {
    async fn follow(self) {
        let Schedule { prover, turn, interval, .. } = &self.schedule;
        let backend = prover.backends()[self.index].clone();
        loop {
            let Ok(turn) = turn.acquire().await else { return };
            debug!(backend = backend.name, "relay proof begins");
            let mut proof = prover.begin(self.index).await;
            proof.ask(&mut |_| {}).await;
            let mut report = proof.report();
            self.file(&report);
            if !proof.is_complete() {
                // A slow server: the verdict stands already, and rests on more cases in the end.
                proof.ask_what_is_left(&mut |_| {}).await;
                report = proof.report();
                self.file(&report);
            }
            drop(turn);
            let proven_at = Instant::now();
            let inconclusive = report.state == State::Inconclusive;
            let retry = report.ask_again.unwrap_or(RETRY_PAUSE);
            let wait = if inconclusive { retry.min(*interval) } else { *interval };
            if timeout(jittered(wait), backend.changed()).await.is_ok() {
                info!(backend = backend.name, "the backend came back or changed; it is proven again");
                if !inconclusive {
                    sleep_until(proven_at + CHANGE_PAUSE).await;
                }
                // Whatever it changed to is complete by then.
                sleep(Duration::from_millis(200)).await;
            }
        }
    }

    /// Writes down what was found, says it, and does what follows.
    fn file(&self, report: &BackendReport) {
        let now = since_1970().as_secs();
        let mut findings = report.sentences();
        let mut known = lock(&self.record.0);
        let before = known.state;
        let relays = match report.state {
            State::Open => true,
            State::Inconclusive | State::NeverRun => known.relays,
            State::Proven | State::SafeUnproven | State::Latent => false,
        };
        if relays && report.state != State::Open {
            findings
                .push("it relayed for strangers when it last could be asked; what follows from that stays".to_owned());
        }
        let hold = hold(self.schedule.on_open, relays);
        self.schedule.prover.backends()[self.index].set_hold(hold);
        *known = LastProof { state: report.state, checked_at: Some(now), findings: findings.clone(), relays };
        drop(known);
        self.count(report.state);
        say(&report.name, before, report.state, hold, &findings);
    }

    fn count(&self, state: State) {
        let counters = &self.schedule.counters;
        counters.proofs_run_total.increment();
        match state {
            State::Open | State::Latent => counters.proofs_found_total.increment(),
            State::Inconclusive | State::NeverRun => counters.proofs_inconclusive_total.increment(),
            State::Proven | State::SafeUnproven => {}
        }
    }
}

/// What the backend may be given.
fn hold(on_open: OnOpen, relays: bool) -> Hold {
    match on_open {
        OnOpen::Guard if relays => Hold::Plain,
        OnOpen::Defer if relays => Hold::Defer,
        OnOpen::Warn | OnOpen::Guard | OnOpen::Defer => Hold::None,
    }
}

/// A verdict that did not change is said again if somebody must act on it.
fn say(backend: &str, before: State, state: State, hold: Hold, findings: &[String]) {
    let (verdict, found) = (state.as_str(), findings.join("; "));
    if before != state {
        let text = if findings.is_empty() { verdict.to_owned() } else { format!("{verdict}: {found}") };
        events::emit(EventKind::Proof, backend, text);
    }
    match state {
        State::Open => {
            let consequence = match hold {
                Hold::None => "the relay guard stands before it",
                Hold::Plain => "the relay guard stands before it, and lets plain recipients pass only",
                Hold::Defer => "all mail is answered 451 until it is mended",
            };
            error!(backend, verdict, found, consequence, "OPEN RELAY: the backend relays for strangers");
        }
        State::Latent => warn!(backend, verdict, found, "the relay proof finds trust that must not be"),
        State::Inconclusive | State::NeverRun => warn!(backend, verdict, found, "the relay proof shows nothing"),
        State::Proven | State::SafeUnproven if before == state => debug!(backend, verdict, found, "relay proof"),
        State::Proven | State::SafeUnproven => info!(backend, verdict, found, "relay proof: strangers cannot relay"),
    }
}

/// A tenth more or less, so that many gateways do not ask at once.
fn jittered(wait: Duration) -> Duration {
    let random = u32::try_from(RandomState::new().hash_one(()) % 2001).unwrap_or(1000);
    wait * (9000 + random) / 10_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_is_a_tenth() {
        let hour = Duration::from_secs(3600);
        for _ in 0..100 {
            let wait = jittered(hour);
            assert!((hour * 9 / 10..=hour * 11 / 10 + Duration::from_secs(1)).contains(&wait), "{wait:?}");
        }
    }

    #[test]
    fn what_follows_from_an_open_relay() {
        for (on_open, relays, expected) in [
            (OnOpen::Warn, true, Hold::None),
            (OnOpen::Guard, true, Hold::Plain),
            (OnOpen::Defer, true, Hold::Defer),
            (OnOpen::Warn, false, Hold::None),
            (OnOpen::Guard, false, Hold::None),
            (OnOpen::Defer, false, Hold::None),
        ] {
            assert_eq!(hold(on_open, relays), expected);
        }
    }
}
