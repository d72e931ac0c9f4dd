//! What happened lately: bans, refusals by cause, verdicts of the relay proof, backends that come and go.
//!
//! Whoever emits never waits: an event goes into a bounded queue, and is counted as lost if that is full. Readers take the
//! queue's content over into the ring of the last events; the gateway's housekeeping does so too, about once a second.

use std::collections::VecDeque;
use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::show::printable;

/// Events that are remembered.
pub const KEPT_MAX: usize = 1000;
/// Events that may wait to be taken over.
const QUEUE_MAX: usize = 1024;
/// Longest subject and text in characters.
const SUBJECT_MAX: usize = 120;
const TEXT_MAX: usize = 400;

/// What kind of thing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// A source is banned.
    Ban,
    /// A ban was taken back.
    Unban,
    /// The gateway refused something.
    Refusal,
    /// The relay proof has a new verdict.
    Proof,
    /// The configuration was read anew.
    Reload,
    /// A backend is well again.
    BackendUp,
    /// A backend is not well.
    BackendDown,
    /// The kernel side changed.
    Kernel,
    /// The log's level was changed, or lines were lost.
    Log,
    /// The gateway began or ended.
    Gateway,
}

impl EventKind {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ban => "ban",
            Self::Unban => "unban",
            Self::Refusal => "refusal",
            Self::Proof => "proof",
            Self::Reload => "reload",
            Self::BackendUp => "backend-up",
            Self::BackendDown => "backend-down",
            Self::Kernel => "kernel",
            Self::Log => "log",
            Self::Gateway => "gateway",
        }
    }
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Grows by one with each event since the gateway's start.
    pub number: u64,
    /// Milliseconds since 1970, UTC.
    pub at_ms: u64,
    /// What kind.
    pub kind: EventKind,
    /// Whom it is about: an address, a network, a backend.
    pub subject: String,
    /// What happened, in words. Nothing in it steers a terminal.
    pub text: String,
}

/// The queue and the ring.
#[derive(Debug)]
pub struct Journal {
    queue: SyncSender<Event>,
    kept: Mutex<Kept>,
    number: AtomicU64,
    lost: AtomicU64,
}

#[derive(Debug)]
struct Kept {
    queue: Receiver<Event>,
    events: VecDeque<Event>,
}

static JOURNAL: LazyLock<Journal> = LazyLock::new(Journal::new);

/// The process's own journal.
pub fn journal() -> &'static Journal {
    &JOURNAL
}

/// Notes that something happened. Never waits, and may be called from anywhere.
pub fn emit(kind: EventKind, subject: impl Display, text: impl Display) {
    JOURNAL.push(kind, &subject, &text);
}

impl Journal {
    fn new() -> Self {
        let (sender, receiver) = sync_channel(QUEUE_MAX);
        let kept = Mutex::new(Kept { queue: receiver, events: VecDeque::new() });
        Self { queue: sender, kept, number: AtomicU64::new(1), lost: AtomicU64::new(0) }
    }

    fn push(&self, kind: EventKind, subject: &dyn Display, text: &dyn Display) {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let event = Event {
            number: self.number.fetch_add(1, Ordering::Relaxed),
            at_ms: u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
            kind,
            subject: bounded(&subject.to_string(), SUBJECT_MAX),
            text: bounded(&text.to_string(), TEXT_MAX),
        };
        if self.queue.try_send(event).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes over what waits in the queue.
    pub fn gather(&self) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).gather();
    }

    /// At most `limit` events with higher numbers than `after`, the latest, in the order in which they came.
    pub fn since(&self, after: u64, limit: usize) -> Vec<Event> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.gather();
        let events = kept.events.iter().filter(|event| event.number > after);
        let skipped = events.clone().count().saturating_sub(limit);
        events.skip(skipped).cloned().collect()
    }

    /// Events that came faster than they were taken over.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Kept {
    fn gather(&mut self) {
        for event in self.queue.try_iter() {
            if self.events.len() == KEPT_MAX {
                self.events.pop_front();
            }
            self.events.push_back(event);
        }
    }
}

fn bounded(text: &str, max: usize) -> String {
    let end = text.char_indices().nth(max).map_or(text.len(), |(at, _)| at);
    printable(&text[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_thousand_are_kept_in_order() {
        let journal = Journal::new();
        for index in 0..KEPT_MAX + 5 {
            journal.push(EventKind::Ban, &"192.0.2.1", &index);
            if index % 100 == 0 {
                journal.gather();
            }
        }
        let events = journal.since(0, usize::MAX);
        assert_eq!((events.len(), events[0].number), (KEPT_MAX, 6));
        assert!(events.is_sorted_by_key(|event| event.number));
        let last: Vec<_> = journal.since(KEPT_MAX as u64, 3).into_iter().map(|event| event.text).collect();
        assert_eq!(last, ["1002", "1003", "1004"]);
        assert!(journal.since(KEPT_MAX as u64 + 5, 3).is_empty());
    }

    #[test]
    fn who_emits_never_waits_and_what_is_lost_is_counted() {
        let journal = Journal::new();
        for index in 0..QUEUE_MAX + 7 {
            journal.push(EventKind::Refusal, &"192.0.2.1", &index);
        }
        assert_eq!(journal.lost(), 7);
        assert_eq!(journal.since(0, usize::MAX).len(), KEPT_MAX);
    }

    #[test]
    fn an_event_is_bounded_and_steers_no_terminal() {
        let journal = Journal::new();
        journal.push(EventKind::BackendDown, &"\u{202e}x".repeat(500), &"\x1b[2J".repeat(500));
        let event = journal.since(0, 1).remove(0);
        assert!(!format!("{}{}", event.subject, event.text).chars().any(crate::observe::show::is_hidden));
        assert!(event.text.len() < TEXT_MAX * 10);
    }
}
