//! What the verbs show that follow a running gateway: events, sessions, a client's dialog, the log's level.

use mail_parser::DateTime;
use serde::{Deserialize, Serialize};

use crate::observe::events::Event;
use crate::observe::show::printable;
use crate::observe::trace::{Speaker, TraceLine};

use super::TlsStatus;

/// What `events` shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventList {
    /// The oldest first.
    pub events: Vec<Event>,
}

/// A session that goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// For `sessions kill`.
    pub id: u64,
    /// Who the gateway believes the client to be.
    pub client: String,
    /// Whoever holds the other end of the socket.
    pub peer: String,
    /// What the client called itself.
    pub helo: Option<String>,
    /// Name of the route that it took last, where a listener leads to several backends.
    #[serde(default)]
    pub route: Option<String>,
    /// Name of the backend.
    pub backend: String,
    /// What it is doing.
    pub state: String,
    /// Since it was accepted.
    pub age_seconds: u64,
    /// Octets read from the client.
    pub bytes_in: u64,
    /// Messages the backend accepted.
    pub accepted: u32,
    /// Code of the last reply to the client; 0 for none.
    pub last_reply: u16,
    /// TLS with the client; `None`: in clear text.
    #[serde(default)]
    pub tls: Option<TlsStatus>,
    /// TLS with the backend, as it was last agreed upon.
    #[serde(default)]
    pub backend_tls: Option<TlsStatus>,
}

/// What `sessions` shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionList {
    /// The oldest first.
    pub sessions: Vec<SessionStatus>,
    /// Sessions that are not among them.
    pub more: u64,
}

/// What `trace` shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceList {
    /// In their order.
    pub lines: Vec<TraceLine>,
    /// What to ask after next.
    pub last: u64,
}

/// How much is logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogStatus {
    /// As `log.level` writes it.
    pub level: String,
    /// Until it is as configured again; `None` for as long as the gateway runs.
    pub seconds: Option<u64>,
}

/// Servers that were taken out, or back in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainStatus {
    /// By name.
    pub servers: Vec<String>,
}

/// A line for a terminal or a file.
pub fn render_event(event: &Event) -> String {
    let Event { at_ms, kind, subject, text, .. } = event;
    format!("{}  {:<12}  {}  {}", moment(*at_ms), kind.as_str(), printable(subject), printable(text))
}

/// The same for where there is little room: the time of day only.
pub(crate) fn render_event_short(event: &Event) -> String {
    let Event { at_ms, kind, subject, text, .. } = event;
    let moment = moment(*at_ms);
    let time = moment.get(11..19).unwrap_or(&moment);
    format!("{time} {}  {}  {}", kind.as_str(), printable(subject), printable(text))
}

/// A line for a terminal or a file.
pub fn render_trace(line: &TraceLine) -> String {
    let TraceLine { at_ms, session, client, speaker, text, .. } = line;
    let mark = match speaker {
        Speaker::Client => "C:",
        Speaker::Gateway => "S:",
        Speaker::Event => "--",
    };
    format!("{}  {session}  {client}  {mark} {}", moment(*at_ms), printable(text))
}

/// In UTC, as RFC 3339 writes it.
fn moment(at_ms: u64) -> String {
    DateTime::from_timestamp(i64::try_from(at_ms / 1000).unwrap_or(i64::MAX)).to_rfc3339()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::events::EventKind;

    #[test]
    fn lines_show_when_and_what_and_steer_nothing() {
        let event = Event {
            number: 1,
            at_ms: 1_700_000_000_123,
            kind: EventKind::Ban,
            subject: "192.0.2.1".into(),
            text: "a\x1bb".into(),
        };
        assert_eq!(render_event(&event), "2023-11-14T22:13:20Z  ban           192.0.2.1  a\\u{1b}b");
        let line = TraceLine {
            number: 1,
            at_ms: 1_700_000_000_123,
            session: 7,
            client: [192, 0, 2, 1].into(),
            speaker: Speaker::Client,
            text: "EHLO x".into(),
        };
        assert_eq!(render_trace(&line), "2023-11-14T22:13:20Z  7  192.0.2.1  C: EHLO x");
    }
}
