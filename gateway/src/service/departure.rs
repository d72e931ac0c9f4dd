//! The process that another takes over from: what it hands over, when it stops, and what it still tells while its sessions end.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::{debug, info, warn};

use crate::control::Successor;
use crate::observe::counts::Counts;
use crate::observe::events::{self, EventKind};
use crate::time::Millis;
use crate::time::clock::{now, since_1970};

use super::Gateway;
use super::handover::{News, Offer, OfferedListener, Serving, State, VERSION, Word};
use super::journal::{Entry, millis};
use super::upgrades::Candidate;
use super::view::View;

/// How long a successor may take until it could serve: it asks its backends, and may wait for them.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long it may take then to take over what it is handed.
const TAKEN_TIMEOUT: Duration = Duration::from_secs(15);
/// Between two looks whether the last session has ended.
const EMPTY_INTERVAL: Duration = Duration::from_millis(100);
/// Between two times that it is told what sessions here still bring.
const NEWS_INTERVAL: Duration = Duration::from_secs(1);

/// Why nobody took over. The gateway goes on as before.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub struct HandoverError {
    step: &'static str,
    source: io::Error,
}

/// Another process serves; this one has only its sessions left.
#[derive(Debug)]
pub struct Departure {
    successor: Successor,
    serving: Serving,
    told: Told,
}

/// What the successor knows.
#[derive(Debug)]
struct Told {
    counts: Counts,
    bans: HashMap<IpNet, Millis>,
    revision: u64,
    /// The last event's number.
    event: u64,
}

impl Departure {
    /// The process that serves.
    pub fn process(&self) -> i32 {
        self.successor.process
    }

    /// Tells what is new. Whether the successor is still there is its own affair by now.
    async fn tell(&mut self, view: &View) {
        let news = self.told.news(view);
        if news.counts.is_empty() && news.bans.is_empty() && news.events.is_empty() {
            return;
        }
        if let Err(error) = self.successor.say(&news).await {
            debug!(%error, "the process that serves does not hear what this one still counts");
        }
    }
}

impl Told {
    fn news(&mut self, view: &View) -> News {
        let counts = view.counters.counts();
        let grown = counts.since(&self.counts);
        self.counts = counts;
        let events = events::recent().since(self.event, events::KEPT_MAX);
        self.event = events.last().map_or(self.event, |event| event.number);
        let revision = view.verdicts.revision();
        if std::mem::replace(&mut self.revision, revision) == revision {
            return News { counts: grown, bans: Vec::new(), events };
        }
        let (now, unix) = (now(), millis(since_1970()));
        let bans = view.verdicts.bans(now).into_iter();
        let bans: Vec<_> = bans.filter(|ban| self.bans.insert(ban.network, ban.until) != Some(ban.until)).collect();
        News { counts: grown, bans: bans.iter().map(|ban| Entry::new(ban, now, unix)).collect(), events }
    }
}

/// Neither maps nor journal are written as long as it lives, unless it was for good.
struct LaidDown<'v>(Option<&'v View>);

impl<'v> LaidDown<'v> {
    fn new(view: &'v View) -> Self {
        view.handing_over.store(true, Ordering::Release);
        // Waits for who is writing.
        drop(view.journal.lock());
        if let Some(kernel) = &view.kernel {
            kernel.lay_down();
        }
        Self(Some(view))
    }

    fn for_good(mut self) {
        self.0 = None;
    }
}

impl Drop for LaidDown<'_> {
    fn drop(&mut self) {
        let Some(view) = self.0 else { return };
        view.handing_over.store(false, Ordering::Release);
        if let Some(kernel) = &view.kernel {
            let generation = view.generation();
            let ports: Vec<_> = generation.listeners.iter().map(|listener| listener.address.port()).collect();
            if let Err(error) = kernel.take_up(&generation.config, &ports) {
                warn!(%error, "the kernel side cannot be taken back from the process that did not come to serve");
            }
        }
    }
}

impl Gateway {
    /// Hands everything over, up to the moment when the successor serves. To be dropped before: then all is as it was.
    ///
    /// # Errors
    /// The successor is gone, or is not ready in time; all is as it was.
    pub async fn hand_over(&self, candidate: Candidate) -> Result<Departure, HandoverError> {
        let Candidate { mut successor, _turn } = candidate;
        let failed = |step| move |source| HandoverError { step, source };
        let process = successor.process;
        info!(process, "another process takes over");
        let (offer, descriptors) = self.offer();
        let (stdout, stderr) = (io::stdout(), io::stderr());
        let descriptors: Vec<_> = [stdout.as_fd(), stderr.as_fd()].into_iter().chain(descriptors).collect();
        successor.offer(&descriptors, &offer).await.map_err(failed("it did not take the sockets"))?;
        hear(&mut successor, Word::Ready, READY_TIMEOUT).await.map_err(failed("it was not ready"))?;
        let laid_down = LaidDown::new(&self.view);
        let (state, told) = state(&self.view);
        successor.say(&state).await.map_err(failed("it did not take what is known"))?;
        hear(&mut successor, Word::Taken, TAKEN_TIMEOUT).await.map_err(failed("it did not take over"))?;
        successor.say(&Word::Go).await.map_err(failed("it did not hear that it may serve"))?;
        let serving = match successor.hear(TAKEN_TIMEOUT).await {
            Ok(Word::Serving(serving)) => serving,
            // It has been told to serve, and lives: its watchdog sees to the rest.
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                Serving { control: true, kernel: true, left: Vec::new() }
            }
            Err(error) => return Err(failed("it ended before it served")(error)),
            Ok(word) => return Err(failed("it did not come to serve")(unexpected(word))),
        };
        laid_down.for_good();
        Ok(Departure { successor, serving, told })
    }

    /// Another process serves: accepts nobody any more, and ends when its sessions have. Whoever is in one goes on in peace for
    /// the time of a drain, and is then drained; `hasten` goes on to the next step.
    pub async fn leave(mut self, mut departure: Departure, mut hasten: impl AsyncFnMut()) {
        let view = self.view.clone();
        let serving = departure.serving.clone();
        info!(process = departure.process(), sessions = view.admission.sessions(), "another process serves");
        view.draining.store(true, Ordering::Relaxed);
        self.control.stop();
        if serving.control {
            self.control.leave_file();
        }
        if let Some(metrics) = self.metrics.take() {
            metrics.stop();
        }
        for (place, listener) in self.listeners.drain(..).enumerate() {
            if serving.left.contains(&place) { drop(listener.close()) } else { listener.hand_over() }
        }
        view.generation().backends.stop_proving();
        if let Some(kernel) = view.kernel.as_ref().filter(|_| !serving.kernel)
            && let Err(error) = kernel.clear()
        {
            warn!(%error, "the kernel side stays on its cards, though the configuration has none any more");
        }
        let before = self.predecessor.take();
        let drain_timeout = view.generation().config.timeouts.drain;
        let end = async {
            tokio::select! {
                () = view.empty() => {}
                () = hasten() => {}
                () = sleep(drain_timeout) => {}
            }
            self.see_out(hasten()).await;
            if let Some(before) = before {
                // What that one still counts goes on through here. It has drained for longer already.
                let _ = timeout(drain_timeout, before).await;
            }
        };
        tokio::pin!(end);
        let mut tick = interval(NEWS_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = &mut end => break,
                _ = tick.tick() => departure.tell(&view).await,
            }
        }
        departure.tell(&view).await;
        info!("stopped; another process serves");
    }

    /// What there is to take over, but for standard output and error.
    fn offer(&self) -> (Offer, Vec<BorrowedFd<'_>>) {
        let generation = self.view.generation();
        let listeners = self.listeners.iter().map(|listener| OfferedListener {
            configured: listener.configured,
            address: listener.address,
            queues: listener.queues().len(),
        });
        let offer = Offer {
            version: VERSION,
            control: self.control.path().to_owned(),
            metrics: generation.config.metrics.address.filter(|_| self.metrics.is_some()),
            listeners: listeners.collect(),
            tickets: self.view.acceptor().map(|acceptor| acceptor.tickets().export()),
            kernel: self.view.kernel.is_some(),
        };
        let queues = self.listeners.iter().flat_map(|listener| listener.queues()).map(|queue| queue.as_fd());
        let metrics = self.metrics.iter().map(crate::metrics::MetricsServer::handle);
        (offer, std::iter::once(self.control.handle()).chain(metrics).chain(queues).collect())
    }
}

impl View {
    /// Until there is no session.
    async fn empty(&self) {
        while self.admission.sessions() > 0 {
            sleep(EMPTY_INTERVAL).await;
        }
    }
}

async fn hear(successor: &mut Successor, expected: Word, patience: Duration) -> io::Result<()> {
    match successor.hear(patience).await? {
        word if word == expected => Ok(()),
        word => Err(unexpected(word)),
    }
}

fn unexpected(word: Word) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{word:?} comes out of turn"))
}

/// What is known, and what the successor then knows.
fn state(view: &View) -> (State, Told) {
    let (now, unix) = (now(), millis(since_1970()));
    // The revision before the bans: what changes in between is told once more.
    let revision = view.verdicts.revision();
    let (counts, bans) = (view.counters.counts(), view.verdicts.bans(now));
    let proofs = view.generation();
    events::emit(EventKind::Gateway, "gateway", "hands over to another process");
    let events = events::recent().since(0, events::KEPT_MAX);
    let event = events.last().map_or(0, |event| event.number);
    let state = State {
        counts: counts.clone(),
        bans: bans.iter().map(|ban| Entry::new(ban, now, unix)).collect(),
        reputation: view.verdicts.reputation_state(now),
        proofs: proofs.backends.proofs(),
        lost_before_accept: view.overview().xdp.lost_before_accept_total,
        events,
        log_level: view.log_levels.other(),
    };
    let bans = bans.into_iter().map(|ban| (ban.network, ban.until)).collect();
    (state, Told { counts, bans, revision, event })
}
