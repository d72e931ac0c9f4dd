//! The standing proof: the running gateway proves its backends at start, on a schedule, and when one comes back or greets
//! otherwise than before; what was found last stands in `status`, and what follows from it is done.
//!
//! One proof at a time, on the runtime that serves no clients. Whoever was found to relay stays held until a proof has shown
//! that it no longer does: a backend that cannot be asked is not forgiven.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, error, info, warn};

use crate::config::{Config, OnOpen};
use crate::observe::counters::Counters;
use crate::policy::relay_guard::Hold;

use super::probe::State;
use super::prove::Prover;
use super::report::BackendReport;

/// A backend that changes again and again is not proven more often than this.
const CHANGE_PAUSE: Duration = Duration::from_secs(15);
/// What could not be shown is tried again after this, if the schedule is no sooner.
const RETRY_PAUSE: Duration = Duration::from_secs(600);

/// What is known of one backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The last verdict.
    pub state: State,
    /// When, in seconds since 1970, UTC.
    pub checked_at: Option<u64>,
    /// What was found, a sentence each.
    pub findings: Vec<String>,
    /// Whether it was found to relay, and not yet found to have stopped.
    relays: bool,
}

/// What is known of all of them, in the configuration's order.
#[derive(Debug, Clone)]
pub struct Standing(Arc<[Mutex<Known>]>);

impl Known {
    fn nothing() -> Self {
        Self { state: State::NeverRun, checked_at: None, findings: Vec::new(), relays: false }
    }
}

impl Standing {
    /// Begins on the current runtime, if the configuration wants it.
    pub fn start(prover: Prover, config: &Config, counters: Arc<Counters>) -> Self {
        let known = prover.backends().iter().map(|_| Mutex::new(Known::nothing())).collect();
        let standing = Self(known);
        if !config.proof.enabled {
            return standing;
        }
        let prover = Arc::new(prover);
        let turn = Arc::new(Semaphore::new(1));
        for index in 0..prover.backends().len() {
            let guard = Guard {
                standing: standing.clone(),
                prover: prover.clone(),
                index,
                turn: turn.clone(),
                counters: counters.clone(),
                interval: config.proof.interval,
                on_open: config.relay.on_open,
            };
            tokio::spawn(guard.stand());
        }
        standing
    }

    /// What is known of the backend with this index.
    pub fn known(&self, index: usize) -> Known {
        self.0.get(index).map_or_else(Known::nothing, |known| lock(known).clone())
    }
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Stands before one backend.
struct Guard {
    standing: Standing,
    prover: Arc<Prover>,
    index: usize,
    turn: Arc<Semaphore>,
    counters: Arc<Counters>,
    interval: Duration,
    on_open: OnOpen,
}

impl Guard {
    async fn stand(self) {
        let backend = self.prover.backends()[self.index].clone();
        loop {
            let Ok(turn) = self.turn.acquire().await else { return };
            debug!(backend = backend.name, "relay proof begins");
            let report = self.prover.prove(self.index, &mut |_| {}).await;
            drop(turn);
            self.file(&report);
            let proven_at = Instant::now();
            let inconclusive = report.state == State::Inconclusive;
            let wait = if inconclusive { self.interval.min(RETRY_PAUSE) } else { self.interval };
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
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut findings = report.sentences();
        let Some(place) = self.standing.0.get(self.index) else { return };
        let mut known = lock(place);
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
        let hold = hold(self.on_open, relays);
        self.prover.backends()[self.index].set_hold(hold);
        *known = Known { state: report.state, checked_at: Some(now), findings: findings.clone(), relays };
        drop(known);
        self.count(report.state);
        say(&report.name, before, report.state, hold, &findings);
    }

    fn count(&self, state: State) {
        self.counters.proofs_run_total.increment();
        match state {
            State::Open | State::Latent => self.counters.proofs_found_total.increment(),
            State::Inconclusive | State::NeverRun => self.counters.proofs_inconclusive_total.increment(),
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
    match state {
        State::Open => {
            let consequence = match hold {
                Hold::None => "the relay guard stands before it",
                Hold::Plain => "the relay guard stands before it, and lets plain recipients pass only",
                Hold::Defer => "all mail is answered 451 until it is mended",
            };
            error!(backend, verdict, found, consequence, "OPEN RELAY: the backend relays for strangers");
        }
        State::Latent => warn!(backend, verdict, found, "the backend trusts the gateway's address"),
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
