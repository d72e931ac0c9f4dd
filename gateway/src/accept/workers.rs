//! Worker threads, and how they end.

use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::drive::{Alarm, Drain, DrainState, Roll, SessionQuery, Shortage, ask_sessions, wake_sessions};

use super::accepting::Accepting;
use super::pulse::{Beat, Pulse};

/// After the drain's time is up, how long the last replies may take to leave.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Every worker wakes this often. A runtime interrupts itself, with a write and a read of its own, whenever a timer is set
/// that comes before all others; before a tick that is always near, no session's timer does.
const TICK: Duration = Duration::from_secs(1);

/// The running workers. They accept on whatever [`Listener`](super::Listener)s are opened on them.
#[derive(Debug)]
pub struct Workers {
    drain: Arc<DrainState>,
    shortage: Arc<Shortage>,
    stage: watch::Sender<Drain>,
    inboxes: Vec<mpsc::UnboundedSender<Accepting>>,
    calls: Vec<mpsc::Sender<Call>>,
    ended: mpsc::Receiver<()>,
    threads: Vec<JoinHandle<()>>,
    beats: Vec<Beat>,
}

impl Workers {
    /// Starts so many threads, which have nothing to accept on yet.
    ///
    /// # Errors
    /// The system's, when it has no more threads or files.
    pub fn start(count: usize) -> io::Result<Self> {
        let (stage, _) = watch::channel(Drain::No);
        let (running, ended) = mpsc::channel(1);
        let mut workers = Self {
            drain: Arc::default(),
            shortage: Arc::default(),
            stage,
            inboxes: Vec::new(),
            calls: Vec::new(),
            ended,
            threads: Vec::new(),
            beats: Vec::new(),
        };
        for index in 0..count {
            let (inbox, arriving) = mpsc::unbounded_channel();
            let (calls, called) = mpsc::channel(1);
            let state = workers.drain.clone();
            let (stage, running) = (workers.stage.subscribe(), running.clone());
            let alarm = Alarm::new(workers.shortage.clone());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let beat = Beat::default();
            workers.beats.push(beat.clone());
            let thread = Builder::new().name(format!("worker-{index}")).spawn(move || {
                runtime.spawn(answer_calls(called, state));
                runtime.block_on(work(arriving, stage, beat.clone(), alarm));
                runtime.shutdown_background();
                beat.end();
                drop(running);
            })?;
            workers.inboxes.push(inbox);
            workers.calls.push(calls);
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// What tells whether one of them hangs.
    pub fn pulse(&self) -> Pulse {
        Pulse::new(self.beats.iter().cloned())
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.inboxes.len()
    }

    /// What tells sessions to end; every session of these workers must heed it.
    pub fn drain_state(&self) -> &Arc<DrainState> {
        &self.drain
    }

    /// What tells sessions that places run out; whoever counts places sets it.
    pub fn shortage(&self) -> &Arc<Shortage> {
        &self.shortage
    }

    /// Asks their sessions what they are doing.
    pub fn caller(&self) -> Caller {
        Caller(self.calls.clone())
    }

    /// Hands sockets to the workers, the first to the first, and round again where there are more.
    pub(super) fn hand_out(&self, accepting: impl IntoIterator<Item = Accepting>) {
        for (inbox, accepting) in self.inboxes.iter().cycle().zip(accepting) {
            // A worker that is on its way down accepts nothing more.
            let _ = inbox.send(accepting);
        }
    }

    /// Begins the way down, or hastens it.
    pub fn drain(&self, stage: Drain) {
        self.drain.set(stage);
        self.stage.send_replace(stage);
    }

    /// Waits until every worker has ended.
    pub async fn ended(&mut self) {
        // Nothing is ever sent: the channel closes when the last worker lets go of it.
        let _ = self.ended.recv().await;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker ended in panic");
            }
        }
    }
}

/// A question to all sessions of a worker, and where the answer goes.
type Call = (SessionQuery, oneshot::Sender<Roll>);

/// Asks the sessions of all workers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Caller(Vec<mpsc::Sender<Call>>);

impl Caller {
    /// Asks the sessions of all workers at once. Waits: not to be called on a runtime's own thread.
    pub fn ask(&self, question: SessionQuery) -> Roll {
        let asked = self.0.iter().filter_map(|calls| {
            let (sender, answer) = oneshot::channel();
            // A worker that has ended has no sessions.
            calls.blocking_send((question, sender)).ok().map(|()| answer)
        });
        let asked: Vec<_> = asked.collect();
        let mut all = Roll::default();
        for roll in asked.into_iter().filter_map(|answer| answer.blocking_recv().ok()) {
            all.lines.extend(roll.lines);
            all.more += roll.more;
        }
        all.lines.sort_unstable_by_key(|line| line.id);
        all
    }
}

/// Answers for as long as the worker lives.
async fn answer_calls(mut calls: mpsc::Receiver<Call>, state: Arc<DrainState>) {
    while let Some((question, answer)) = calls.recv().await {
        // Whoever asked may have gone.
        let _ = answer.send(ask_sessions(question, &state).await);
    }
}

/// A worker's life: accept until told to drain, then see its sessions out.
async fn work(
    mut arriving: mpsc::UnboundedReceiver<Accepting>,
    mut stage: watch::Receiver<Drain>,
    beat: Beat,
    mut alarm: Alarm,
) {
    let (alive, mut sessions) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(TICK).await;
            beat.beat();
            alarm.ring_if_short();
        }
    });
    let mut accepting = JoinSet::new();
    let mut draining = stage.clone();
    // If whoever could tell is gone, it is time to go.
    let draining = draining.wait_for(|stage| *stage >= Drain::Gently);
    tokio::pin!(draining);
    loop {
        tokio::select! {
            _ = &mut draining => break,
            Some(listener) = arriving.recv() => {
                accepting.spawn(listener.accept(alive.clone()));
            }
            // Listeners that were taken away are let go of.
            Some(_) = accepting.join_next() => {}
        }
    }
    drop(arriving);
    // Listeners were closed before: who has connected already is told of the end, and not reset.
    let closed = async { while accepting.join_next().await.is_some() {} };
    if tokio::time::timeout(LAST_WORDS, closed).await.is_err() {
        accepting.shutdown().await;
    }
    drop(alive);
    wake_sessions();
    tokio::select! {
        _ = sessions.recv() => return,
        _ = stage.wait_for(|stage| *stage >= Drain::Now) => {}
    }
    wake_sessions();
    // Sessions that are still there then are cut off.
    let _ = tokio::time::timeout(LAST_WORDS, sessions.recv()).await;
}
