//! Logs: one line a session, one line a message, and what an administrator must mend.
//!
//! Client address and HELO name stand at INFO: they are what this product is about, and what an administrator searches
//! for. Mailboxes, Message-ID and the From field are personal: at INFO a mailbox shows only its domain, unless
//! `log.mailboxes` says otherwise; all of them show at DEBUG.

use std::io::{self, IsTerminal as _};

use tracing::{Level, debug, enabled, info};
use tracing_subscriber::fmt::time::SystemTime;

use crate::config::{Log, LogFormat, LogLevel};
use crate::identity::{ClientAddr, PeerAddr};
use crate::session::{MessageOutcome, MessageReport, SessionTotals};

/// Begins to log to standard error. Called once; a second call is an error that changes nothing.
pub fn init(log: &Log) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let builder = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_max_level(level(log.level))
        .with_target(false)
        .with_timer(SystemTime);
    match log.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    }
}

fn level(level: LogLevel) -> Level {
    match level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Trace => Level::TRACE,
    }
}

/// Whether lines about messages would be written, so that envelopes are worth keeping.
pub fn records_messages() -> bool {
    enabled!(Level::INFO)
}

/// A session that is over.
#[derive(Debug)]
pub struct SessionRecord<'a> {
    /// Unique while the gateway runs.
    pub id: u64,
    /// Who the gateway believes the client to be.
    pub client: ClientAddr,
    /// Whoever held the other end of the socket.
    pub peer: PeerAddr,
    /// What the client called itself.
    pub helo: Option<&'a str>,
    /// Name of the backend.
    pub backend: &'a str,
    /// Numbers.
    pub totals: SessionTotals,
    /// Octets read from the client.
    pub bytes_in: u64,
    /// From accept to close.
    pub duration_ms: u64,
    /// Why it ended.
    pub end: &'a str,
}

/// One line for a session.
pub fn session_closed(record: &SessionRecord<'_>) {
    let SessionRecord { id, client, peer, helo, backend, totals, bytes_in, duration_ms, end } = record;
    info!(
        session = id, %client, %peer, helo = helo.unwrap_or("-"), backend, accepted = totals.accepted,
        rejected = totals.rejected, deferred = totals.deferred, relay_denied = totals.relay_denied, errors = totals.errors,
        bytes_in, duration_ms, end, "session"
    );
}

/// One line for a message.
pub fn message_done(
    session: u64,
    client: ClientAddr,
    helo: Option<&str>,
    backend: &str,
    mailboxes: bool,
    report: &MessageReport,
) {
    if !enabled!(Level::INFO) {
        return;
    }
    let shown = |mailbox: &str| if mailboxes { mailbox.to_owned() } else { domain_only(mailbox) };
    let from = report.from.as_deref().map(shown).unwrap_or_default();
    let to = report.recipients.iter().map(|mailbox| shown(mailbox)).collect::<Vec<_>>().join(",");
    info!(
        session, %client, helo = helo.unwrap_or("-"), backend, from = format_args!("<{from}>"), to = format_args!("<{to}>"),
        recipients = report.recipients_accepted, size = report.size, outcome = outcome(report.outcome), code = report.code,
        reply = report.reply, transfer_ms = report.ended.since(report.started),
        verdict_ms = report.answered.since(report.ended), "message"
    );
    debug!(
        session,
        from = report.from.as_deref().unwrap_or_default(),
        to = report.recipients.join(","),
        message_id = report.message_id.as_deref().unwrap_or("-"),
        header_from = report.header_from.as_deref().unwrap_or("-"),
        "message details"
    );
}

fn outcome(outcome: MessageOutcome) -> &'static str {
    match outcome {
        MessageOutcome::Accepted => "accepted",
        MessageOutcome::Rejected => "rejected",
        MessageOutcome::Deferred => "deferred",
        MessageOutcome::Aborted => "aborted",
    }
}

/// `@example.com` of `user@example.com`.
fn domain_only(mailbox: &str) -> String {
    match mailbox.rfind('@') {
        Some(at) => mailbox[at..].to_owned(),
        None if mailbox.is_empty() => String::new(),
        None => "*".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mailboxes_show_their_domain_only() {
        for (mailbox, shown) in
            [("user@example.com", "@example.com"), ("\"a@b\"@c.example", "@c.example"), ("", ""), ("postmaster", "*")]
        {
            assert_eq!(domain_only(mailbox), shown);
        }
    }
}
