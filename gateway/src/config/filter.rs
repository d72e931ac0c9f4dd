//! How much is logged: a level for all, and one for each room that shall say more or less (`"info,proof=debug"`).

use std::fmt;
use std::str::FromStr;

use super::declare::words;
use super::suggest::nearest;

/// The program's rooms, whose names are those of its modules.
const ROOMS: &[&str] = &[
    "accept", "backend", "cli", "config", "control", "drive", "identity", "kernel", "metrics", "observe", "opening",
    "policy", "proof", "route", "service", "session", "sink", "smtp", "time", "tls", "verdicts",
];

words! {
    /// How much is logged.
    #[expect(missing_docs, reason = "the names are tracing's own")]
    pub enum LogLevel {
        Error = "error",
        Warn = "warn",
        Info = "info",
        Debug = "debug",
        Trace = "trace",
    }
}

/// `log.level`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter {
    /// For whatever has none of its own.
    pub level: LogLevel,
    /// Rooms with a level of their own, each once.
    pub rooms: Vec<(&'static str, LogLevel)>,
}

/// What is wrong with a filter: a part of it, and what to write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}; {help}")]
pub struct FilterError {
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: String,
}

impl From<LogLevel> for LogFilter {
    fn from(level: LogLevel) -> Self {
        Self { level, rooms: Vec::new() }
    }
}

impl FromStr for LogFilter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let mut filter = Self::from(LogLevel::Info);
        let mut named = false;
        for part in text.split(',').map(str::trim) {
            match part.split_once('=') {
                None if named => return Err(error(format!("has two levels for all rooms, the second `{part}`"))),
                None => {
                    filter.level = level(part)?;
                    named = true;
                }
                Some((room, part)) => {
                    let room = known(room.trim())?;
                    if filter.rooms.iter().any(|(other, _)| *other == room) {
                        return Err(error(format!("names the room `{room}` twice")));
                    }
                    filter.rooms.push((room, level(part.trim())?));
                }
            }
        }
        Ok(filter)
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.level.as_str())?;
        self.rooms.iter().try_for_each(|(room, level)| write!(f, ",{room}={}", level.as_str()))
    }
}

fn level(word: &str) -> Result<LogLevel, FilterError> {
    let found = LogLevel::ALL.into_iter().find(|level| level.as_str() == word);
    found.ok_or_else(|| error(format!("cannot be `{word}`")))
}

fn known(room: &str) -> Result<&'static str, FilterError> {
    let found = ROOMS.iter().find(|name| **name == room);
    found.copied().ok_or_else(|| {
        let meant = nearest(room, ROOMS.iter().copied()).map(|name| format!("did you mean `{name}`? "));
        let help = format!("{}the rooms are {}", meant.unwrap_or_default(), ROOMS.join(", "));
        FilterError { message: format!("names a room that is not there, `{room}`"), help }
    })
}

fn error(message: String) -> FilterError {
    let help = "write `\"error\"`, `\"warn\"`, `\"info\"`, `\"debug\"` or `\"trace\"`; a room of the program may have a level \
                of its own, as in `\"info,proof=debug\"`";
    FilterError { message, help: help.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        for (text, expected) in [
            ("info", Ok("info")),
            (" debug ", Ok("debug")),
            ("warn, proof = debug,drive=trace", Ok("warn,proof=debug,drive=trace")),
            ("proof=debug", Ok("info,proof=debug")),
            ("", Err("cannot be ``")),
            ("verbose", Err("cannot be `verbose`")),
            ("info,debug", Err("has two levels for all rooms, the second `debug`")),
            ("info,prof=debug", Err("names a room that is not there, `prof`")),
            ("info,proof=debug,proof=warn", Err("names the room `proof` twice")),
            ("info,proof=loud", Err("cannot be `loud`")),
            ("info,", Err("has two levels for all rooms, the second ``")),
        ] {
            let read = text.parse::<LogFilter>().map(|filter| filter.to_string()).map_err(|error| error.message);
            assert_eq!(read, expected.map(str::to_owned).map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn the_rooms_are_those_of_the_program() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
        for entry in std::fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let room = name.trim_end_matches(".rs");
            assert!(matches!(room, "lib" | "main" | "house") || ROOMS.contains(&room), "{room} is missing");
        }
    }
}
