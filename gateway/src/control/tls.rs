//! TLS as it is shown: of one connection, and of all clients together.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What was agreed upon on one connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsStatus {
    /// `TLS 1.3`
    pub version: String,
    /// Its registered name.
    pub cipher: String,
    /// The key exchange; empty where an earlier session was taken up without one.
    pub group: String,
    /// Whether the peer's certificate was found to be that of whom we wanted. Clients have none.
    pub verified: bool,
}

impl fmt::Display for TlsStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, cipher, group, .. } = self;
        write!(f, "{version} {cipher}{}{group}", if group.is_empty() { "" } else { " " })
    }
}

impl TlsStatus {
    /// The version, and whether the peer is known.
    pub(super) fn short(&self) -> String {
        format!("{}, {}", self.version, if self.verified { "verified" } else { "not verified" })
    }
}

/// Clients' TLS since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsTotals {
    /// Sessions over TLS, by version.
    pub sessions_total: BTreeMap<String, u64>,
    /// The same by cipher suite.
    pub ciphers_total: BTreeMap<String, u64>,
    /// The same by key exchange.
    pub groups_total: BTreeMap<String, u64>,
    /// Those among them that took an earlier session up.
    pub resumed_total: u64,
    /// Messages accepted over TLS.
    pub messages_total: u64,
    /// Sessions in clear text.
    pub clear_sessions_total: u64,
    /// Messages accepted in clear text.
    pub clear_messages_total: u64,
    /// Handshakes that did not come about, by cause.
    pub faults_total: BTreeMap<String, u64>,
}

impl TlsTotals {
    /// Lines for a page, each with its name.
    pub(super) fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = Vec::new();
        let sessions: u64 = self.sessions_total.values().sum();
        if sessions > 0 {
            let Self { messages_total, resumed_total, .. } = self;
            let versions = counted(&self.sessions_total);
            lines.push((
                "tls",
                format!("{sessions} sessions, {messages_total} messages; {versions}; {resumed_total} resumed"),
            ));
            lines.push(("", format!("{}; {}", counted(&self.ciphers_total), counted(&self.groups_total))));
        }
        let Self { clear_sessions_total, clear_messages_total, .. } = self;
        lines.push(("clear text", format!("{clear_sessions_total} sessions, {clear_messages_total} messages")));
        let faults = counted(&self.faults_total);
        if !faults.is_empty() {
            lines.push(("tls faults", faults));
        }
        lines
    }
}

/// The most frequent first.
pub(super) fn counted(counts: &BTreeMap<String, u64>) -> String {
    let mut counts: Vec<_> = counts.iter().filter(|(_, count)| **count > 0).collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    counts.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
}

/// TLS with one backend.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendTlsStatus {
    /// `off`, `opportunistic`, `required` or `implicit`.
    pub mode: String,
    /// `roots`, `ca`, `pin` or `none`.
    pub verify: String,
    /// What the last health check agreed upon.
    pub agreed: Option<TlsStatus>,
    /// Why mail goes to it in clear text, though TLS was tried.
    pub clear_text: Option<String>,
}

impl fmt::Display for BackendTlsStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&*self.mode, &self.agreed) {
            ("off" | "", _) => f.write_str("off"),
            (_, Some(agreed)) => f.write_str(&agreed.short()),
            ("opportunistic", None) => f.write_str("clear text"),
            (_, None) => f.write_str("none yet"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(counts: &[(&str, u64)]) -> BTreeMap<String, u64> {
        counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn only_what_there_was_is_said() {
        let clear = TlsTotals { clear_sessions_total: 7, clear_messages_total: 3, ..TlsTotals::default() };
        assert_eq!(clear.lines(), [("clear text", "7 sessions, 3 messages".to_owned())]);
        let totals = TlsTotals {
            sessions_total: counts(&[("TLS 1.2", 1), ("TLS 1.3", 4)]),
            ciphers_total: counts(&[("A", 4), ("B", 1), ("C", 0)]),
            groups_total: counts(&[("X25519", 5)]),
            resumed_total: 2,
            messages_total: 6,
            faults_total: counts(&[("given-up", 1), ("alert", 0)]),
            ..clear
        };
        let expected = [
            ("tls", "5 sessions, 6 messages; 4 TLS 1.3, 1 TLS 1.2; 2 resumed"),
            ("", "4 A, 1 B; 5 X25519"),
            ("clear text", "7 sessions, 3 messages"),
            ("tls faults", "1 given-up"),
        ];
        assert_eq!(totals.lines(), expected.map(|(name, line)| (name, line.to_owned())));
    }
}
