//! How much the running gateway logs: as configured, or otherwise for a time.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::config::LogFilter;
use crate::control::{LogStatus, NotDone};
use crate::observe::events::{self, EventKind};
use crate::observe::log::{self, LogError};

/// The log's level as configured, and what stands in for it.
#[derive(Debug)]
pub(super) struct LogLevels {
    configured: Mutex<LogFilter>,
    other: Mutex<Option<Other>>,
}

/// A level that was asked for.
#[derive(Debug)]
struct Other {
    level: LogFilter,
    /// When it is to be as configured again; `None`: when that changes.
    until: Option<Instant>,
}

/// The same, for another process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct OtherLevel {
    level: String,
    seconds: Option<u64>,
}

impl LogLevels {
    pub(super) fn new(configured: LogFilter) -> Self {
        Self { configured: Mutex::new(configured), other: Mutex::new(None) }
    }

    /// Another configuration's level is the one to come back to. Unless another one was asked for meanwhile, it is logged by at
    /// once.
    pub(super) fn configure(&self, level: &LogFilter) -> Result<(), LogError> {
        let changed = std::mem::replace(&mut *lock(&self.configured), level.clone()) != *level;
        let mut other = lock(&self.other);
        if !changed || other.as_ref().is_some_and(|other| other.until.is_some()) {
            return Ok(());
        }
        *other = None;
        log::set_filter(level)
    }

    /// Logs as much as this; `length` says for how long.
    pub(super) fn set(&self, level: &str, length: Option<Duration>) -> Result<LogStatus, NotDone> {
        let is_other = level != "configured";
        let filter = if is_other {
            level.parse::<LogFilter>().map_err(|error| NotDone::new(format!("the level {error}")))?
        } else {
            lock(&self.configured).clone()
        };
        let mut other = lock(&self.other);
        log::set_filter(&filter).map_err(NotDone::new)?;
        *other = is_other.then(|| Other::new(filter.clone(), length));
        events::emit(EventKind::Log, "log", format_args!("the level is {filter}"));
        Ok(LogStatus { level: filter.to_string(), seconds: length.map(|length| length.as_secs()) })
    }

    /// Goes back to what is configured when the time is over. To be called about once a second.
    pub(super) fn check(&self) {
        let mut other = lock(&self.other);
        if other.as_ref().and_then(|other| other.until).is_some_and(|until| Instant::now() >= until) {
            *other = None;
            // Nothing could be done about it here; it was set once before.
            let configured = lock(&self.configured).clone();
            if log::set_filter(&configured).is_ok() {
                events::emit(EventKind::Log, "log", format_args!("the level is {configured} again"));
            }
        }
    }
}

impl LogLevels {
    /// What stands in for the configured level, for a process that takes over.
    pub(super) fn other(&self) -> Option<OtherLevel> {
        let other = lock(&self.other);
        let left = |until: Instant| until.saturating_duration_since(Instant::now()).as_secs();
        other.as_ref().map(|Other { level, until }| OtherLevel { level: level.to_string(), seconds: until.map(left) })
    }

    /// Goes on as the process before did.
    pub(super) fn adopt(&self, other: Option<OtherLevel>) {
        let Some(OtherLevel { level, seconds }) = other else { return };
        let adopted = level.parse::<LogFilter>().map_err(|error| error.to_string()).and_then(|level| {
            log::set_filter(&level).map_err(|error| error.to_string())?;
            *lock(&self.other) = Some(Other::new(level, seconds.map(Duration::from_secs)));
            Ok(())
        });
        if let Err(error) = adopted {
            warn!(level, error, "the log's level is as configured again");
        }
    }
}

impl Other {
    fn new(level: LogFilter, length: Option<Duration>) -> Self {
        // Later than any clock shows is for ever.
        Self { level, until: length.and_then(|length| Instant::now().checked_add(length)) }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
