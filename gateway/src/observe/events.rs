//! What happened lately: bans, refusals by cause, verdicts of the relay proof, backends that come and go.
//!
//! Whoever emits never waits: see [`Recent`]. The gateway's housekeeping gathers what came about once a second.

use std::fmt::Display;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::time::clock::since_1970;

use super::recent::{Numbered, Recent};
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
    /// Grows by one with each event since the gateway's start, upgrades included.
    pub number: u64,
    /// Milliseconds since 1970, UTC.
    pub at_ms: u64,
    /// By what it can be sorted and looked for.
    pub kind: EventKind,
    /// Whom it is about: an address, a network, a backend.
    pub subject: String,
    /// What happened, in words. Nothing in it steers a terminal.
    pub text: String,
}

impl Numbered for Event {
    fn number(&self) -> u64 {
        self.number
    }
}

static RECENT: LazyLock<Recent<Event>> = LazyLock::new(|| Recent::new(KEPT_MAX, QUEUE_MAX));

/// The process's own memory of them.
pub fn recent() -> &'static Recent<Event> {
    &RECENT
}

/// Notes that something happened. Never waits, and may be called from anywhere.
pub fn emit(kind: EventKind, subject: impl Display, text: impl Display) {
    RECENT.push(|number| Event::new(number, kind, &subject, &text));
}

/// Remembers what another process of this gateway remembered, before what happened here. To be called while nothing happens.
pub fn adopt(earlier: Vec<Event>) {
    RECENT.adopt(earlier, |event, number| event.number = number);
}

/// Notes what happened in another process of this gateway.
pub fn tell(event: Event) {
    RECENT.push(|number| Event { number, ..event });
}

impl Event {
    fn new(number: u64, kind: EventKind, subject: &dyn Display, text: &dyn Display) -> Self {
        Self {
            number,
            at_ms: u64::try_from(since_1970().as_millis()).unwrap_or(u64::MAX),
            kind,
            subject: bounded(&subject.to_string(), SUBJECT_MAX),
            text: bounded(&text.to_string(), TEXT_MAX),
        }
    }
}

/// So many characters at most, none of which steers a terminal.
pub(super) fn bounded(text: &str, max: usize) -> String {
    let end = text.char_indices().nth(max).map_or(text.len(), |(at, _)| at);
    printable(&text[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_bounded_and_steers_no_terminal() {
        let event = Event::new(1, EventKind::BackendDown, &"\u{202e}x".repeat(500), &"\x1b[2J".repeat(500));
        assert!(!format!("{}{}", event.subject, event.text).chars().any(crate::observe::show::is_hidden));
        assert!(event.text.len() < TEXT_MAX * 10);
    }
}
