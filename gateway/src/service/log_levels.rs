//! How much the running gateway logs: as configured, or otherwise for a time.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::LogFilter;
use crate::control::{LogStatus, NotDone};
use crate::observe::events::{self, EventKind};
use crate::observe::log::{self, LogError};

/// The log's level for a time, and what comes after it.
#[derive(Debug)]
pub(super) struct LogLevels {
    /// As configured.
    configured: Mutex<LogFilter>,
    /// When it is to be so again.
    until: Mutex<Option<Instant>>,
}

impl LogLevels {
    pub(super) fn new(configured: LogFilter) -> Self {
        Self { configured: Mutex::new(configured), until: Mutex::new(None) }
    }

    /// Another configuration's level is the one to come back to. Unless another one was asked for meanwhile, it is logged by at
    /// once.
    pub(super) fn configure(&self, level: &LogFilter) -> Result<(), LogError> {
        let changed = std::mem::replace(&mut *lock(&self.configured), level.clone()) != *level;
        if changed && lock(&self.until).is_none() { log::set_filter(level) } else { Ok(()) }
    }

    /// Logs as much as this; `length` says for how long.
    pub(super) fn set(&self, level: &str, length: Option<Duration>) -> Result<LogStatus, NotDone> {
        let filter = if level == "configured" {
            lock(&self.configured).clone()
        } else {
            level.parse::<LogFilter>().map_err(|error| NotDone::new(format!("the level {error}")))?
        };
        // Later than any clock shows is for ever.
        let until = length.and_then(|length| Instant::now().checked_add(length));
        let mut ends = lock(&self.until);
        log::set_filter(&filter).map_err(NotDone::new)?;
        *ends = until;
        events::emit(EventKind::Log, "log", format_args!("the level is {filter}"));
        Ok(LogStatus { level: filter.to_string(), seconds: length.map(|length| length.as_secs()) })
    }

    /// Goes back to what is configured when the time is over. To be called about once a second.
    pub(super) fn check(&self) {
        let mut until = lock(&self.until);
        if until.is_some_and(|until| Instant::now() >= until) {
            *until = None;
            // Nothing could be done about it here; it was set once before.
            let configured = lock(&self.configured).clone();
            if log::set_filter(&configured).is_ok() {
                events::emit(EventKind::Log, "log", format_args!("the level is {configured} again"));
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
