//! What the live view knows: the last state, what became of numbers over time, and where the user is.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::time::Instant;

use crate::control::{Status, TopSource};
use crate::observe::events::Event;

/// Seconds of history.
const HISTORY: usize = 120;
/// Events kept for showing.
const EVENTS_MAX: usize = 200;

/// By what sources are sorted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Sort {
    #[default]
    Sessions,
    Packets,
    Syns,
    Dropped,
}

/// What the user is asked or told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Asked {
    #[default]
    Nothing,
    /// Whether to ban this source.
    Ban(String),
    Told(String),
}

/// A number over time.
#[derive(Debug, Default)]
pub(super) struct History {
    before: Option<u64>,
    values: VecDeque<u64>,
}

#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) status: Option<Status>,
    /// Why what is shown is not fresh.
    pub(super) error: Option<String>,
    /// Sorted.
    pub(super) sources: Vec<TopSource>,
    pub(super) events: VecDeque<Event>,
    pub(super) sort: Sort,
    /// Index into `sources`.
    pub(super) selected: usize,
    pub(super) asked: Asked,
    /// Now, and new ones, messages and refusals a minute.
    pub(super) sessions: History,
    pub(super) messages: History,
    pub(super) refusals: History,
    updated: Option<Instant>,
}

impl Sort {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::Packets => "packets",
            Self::Syns => "SYNs",
            Self::Dropped => "dropped",
        }
    }

    fn key(self, source: &TopSource) -> u64 {
        match self {
            Self::Sessions => source.active,
            Self::Packets => source.packets,
            Self::Syns => source.syn,
            Self::Dropped => source.dropped,
        }
    }

    fn next(self) -> Self {
        match self {
            Self::Sessions => Self::Packets,
            Self::Packets => Self::Syns,
            Self::Syns => Self::Dropped,
            Self::Dropped => Self::Sessions,
        }
    }
}

impl History {
    /// A number as it is.
    fn level(&mut self, value: u64) {
        if self.values.len() == HISTORY {
            self.values.pop_front();
        }
        self.values.push_back(value);
    }

    /// A number that only grows, as so many a minute.
    fn rate(&mut self, total: u64, elapsed_ms: u64) {
        if let Some(before) = self.before.replace(total) {
            // After a restart it begins anew.
            self.level(total.saturating_sub(before).saturating_mul(60_000) / elapsed_ms.max(1));
        }
    }

    /// The latest value.
    pub(super) fn last(&self) -> u64 {
        self.values.back().copied().unwrap_or(0)
    }

    /// The last so many, the oldest first.
    pub(super) fn latest(&self, count: usize) -> Vec<u64> {
        self.values.iter().skip(self.values.len().saturating_sub(count)).copied().collect()
    }
}

impl Model {
    /// What was just learned.
    pub(super) fn update(&mut self, now: Instant, status: Status, sources: Vec<TopSource>, events: Vec<Event>) {
        let elapsed = self.updated.replace(now).map_or(0, |before| (now - before).as_millis());
        let elapsed_ms = u64::try_from(elapsed).unwrap_or(u64::MAX);
        let messages = &status.messages;
        self.sessions.level(status.sessions.active);
        let finished = messages.accepted_total + messages.rejected_total + messages.deferred_total;
        self.messages.rate(finished, elapsed_ms);
        self.refusals.rate(status.refusals_total.values().sum(), elapsed_ms);
        // One that begins anew counts its events anew.
        if self.status.as_ref().is_some_and(|before| before.uptime_seconds > status.uptime_seconds) {
            self.events.clear();
        }
        self.events.extend(events);
        while self.events.len() > EVENTS_MAX {
            self.events.pop_front();
        }
        let chosen = self.sources.get(self.selected).map(|source| source.address.clone());
        self.sources = sources;
        self.sort();
        // The selection stays with its source, wherever that is now.
        let place = chosen.filter(|_| self.selected > 0);
        let place = place.and_then(|address| self.sources.iter().position(|source| source.address == address));
        self.selected = place.unwrap_or(self.selected).min(self.sources.len().saturating_sub(1));
        self.status = Some(status);
    }

    /// The number of the last event that is known.
    pub(super) fn last_event(&self) -> u64 {
        self.events.back().map_or(0, |event| event.number)
    }

    pub(super) fn sort_next(&mut self) {
        self.sort = self.sort.next();
        self.selected = 0;
        self.sort();
    }

    fn sort(&mut self) {
        let sort = self.sort;
        self.sources.sort_by_key(|source| Reverse(sort.key(source)));
    }

    pub(super) fn select(&mut self, step: isize) {
        self.selected = self.selected.saturating_add_signed(step).min(self.sources.len().saturating_sub(1));
    }

    pub(super) fn ask_to_ban(&mut self) {
        if let Some(source) = self.sources.get(self.selected) {
            self.asked = Asked::Ban(source.address.clone());
        }
    }
}
