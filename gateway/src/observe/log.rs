//! Logs: one line a session, one line a message, and what an administrator must mend.
//!
//! Client address, HELO name and Message-ID stand at INFO: they are what an administrator searches for. Mailboxes and the
//! From field are personal: at INFO a mailbox shows only its domain, unless `log.mailboxes` says otherwise; all of them
//! show at DEBUG. Whatever came from elsewhere is quoted, so that it cannot pose as a field of the line.

use std::fmt::Display;
use std::io::{self, IsTerminal as _};
use std::os::linux::fs::MetadataExt as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::level_filters::LevelFilter;
use tracing::{Level, debug, enabled, info};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry, fmt, reload};

use crate::config::{Log, LogFilter, LogFormat, LogLevel};

use super::counters::MessageOutcome;
use super::show::Escape;
use super::writer::{Outlet, Target, queue};

/// What logs of the running gateway hang on: one, like standard error.
static OUTLET: OnceLock<Outlet> = OnceLock::new();
static FILTER: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();
/// Sessions that brought nothing since that was last told.
static EMPTY_SESSIONS: AtomicU64 = AtomicU64::new(0);

/// The log has been begun, and is to be ended: dropped, it waits a moment for the last lines.
#[derive(Debug)]
pub struct Logging(());

/// The log cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Somebody has begun it.
    #[error("the log was begun twice")]
    Twice,
    /// The thread that writes.
    #[error("cannot start the thread that writes the log: {0}")]
    Thread(#[from] io::Error),
    /// The level cannot be changed.
    #[error("the level cannot be changed: {0}")]
    Level(#[from] reload::Error),
    /// There is none.
    #[error("this program keeps no log")]
    None,
}

/// Begins to log. Until [`Logging::start`], lines wait.
///
/// # Errors
/// If it was called before.
pub fn init(log: &Log) -> Result<Logging, LogError> {
    let target = target();
    let (format, escape) = match log.format {
        LogFormat::Text => (fmt::layer().with_ansi(false).with_target(false), Escape::Braces),
        LogFormat::Json => (fmt::layer().with_ansi(false).with_target(false), Escape::Json),
    };
    let (lines, outlet) = queue(target, escape);
    let format = format.with_writer(lines);
    let layer = match (log.format, target) {
        (LogFormat::Json, _) => format.json().flatten_event(true).boxed(),
        // The journal keeps the time itself.
        (LogFormat::Text, Target::Journal) => format.without_time().boxed(),
        (LogFormat::Text, _) => format.boxed(),
    };
    let (filter, handle) = reload::Layer::new(targets(&log.level));
    tracing_subscriber::registry().with(filter).with(layer).try_init().map_err(|_| LogError::Twice)?;
    OUTLET.set(outlet).map_err(|_| LogError::Twice)?;
    FILTER.set(handle).map_err(|_| LogError::Twice)?;
    Ok(Logging(()))
}

impl Logging {
    /// Begins to write, in a thread of its own.
    ///
    /// # Errors
    /// If there can be no thread.
    pub fn start(&self) -> Result<(), LogError> {
        OUTLET.get().map_or(Ok(()), |outlet| Ok(outlet.start(io::stderr())?))
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        if let Some(outlet) = OUTLET.get() {
            outlet.flush(io::stderr());
        }
    }
}

/// Logs as much as this from now on.
///
/// # Errors
/// If the program keeps no log.
pub fn set_filter(filter: &LogFilter) -> Result<(), LogError> {
    let handle = FILTER.get().ok_or(LogError::None)?;
    handle.reload(targets(filter))?;
    Ok(())
}

/// Lines that were lost because nobody read fast enough.
pub fn lost_lines() -> u64 {
    OUTLET.get().map_or(0, Outlet::lost)
}

/// Where standard error goes.
fn target() -> Target {
    if is_journal() {
        Target::Journal
    } else if io::stderr().is_terminal() {
        Target::Terminal
    } else {
        Target::Plain
    }
}

/// systemd tells the device and the inode of the journal's stream; whoever redirected standard error since has another.
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let metadata = std::fs::metadata("/proc/self/fd/2");
    metadata.is_ok_and(|stderr| stream == format!("{}:{}", stderr.st_dev(), stderr.st_ino()))
}

fn targets(LogFilter { level, rooms }: &LogFilter) -> Targets {
    // A target is a module's path; a room is a module.
    let program = module_path!().split("::").next().unwrap_or_default();
    let rooms = rooms.iter().map(|(room, level)| (format!("{program}::{room}"), filter(*level)));
    Targets::new().with_default(filter(*level)).with_targets(rooms)
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// Whether lines about messages would be written, so that envelopes are worth keeping. One relaxed load.
pub fn records_messages() -> bool {
    enabled!(Level::INFO)
}

/// A session that is over.
#[derive(Debug)]
pub struct SessionRecord<'a, C, P> {
    /// Unique while the gateway runs.
    pub id: u64,
    /// Who the gateway believes the client to be.
    pub client: C,
    /// Whoever held the other end of the socket.
    pub peer: P,
    /// What the client called itself.
    pub helo: Option<&'a str>,
    /// Name of the route, where there are several ways.
    pub route: Option<&'a str>,
    /// Name of the backend.
    pub backend: &'a str,
    /// Messages the backend accepted.
    pub accepted: u32,
    /// Messages refused for good.
    pub rejected: u32,
    /// Messages answered 4xx.
    pub deferred: u32,
    /// Recipients refused by the relay guard.
    pub relay_denied: u32,
    /// Commands the gateway refused.
    pub errors: u32,
    /// Octets read from the client.
    pub bytes_in: u64,
    /// From accept to close.
    pub duration_ms: u64,
    /// Why it ended.
    pub end: &'a str,
    /// What was agreed upon with the client, over TLS.
    pub tls: Option<String>,
    /// The same with the backend, whose certificate may be verified.
    pub backend_tls: Option<String>,
}

impl<C, P> SessionRecord<'_, C, P> {
    /// Whether it brought nothing that an administrator would look for: no mail, no refusal. Health checks and scanners.
    pub fn is_empty(&self) -> bool {
        let Self { accepted, rejected, deferred, relay_denied, errors, .. } = self;
        [accepted, rejected, deferred, relay_denied, errors].into_iter().all(|number| *number == 0)
    }
}

/// One line for a session; at DEBUG if it brought nothing, which [`sum_up`] tells once a minute.
pub fn session_closed<C: Display, P: Display>(record: &SessionRecord<'_, C, P>) {
    /// The level must be known to the compiler.
    macro_rules! line {
        ($level:ident) => {{
            let SessionRecord { id, client, peer, helo, route, backend, accepted, rejected, deferred, .. } = record;
            let SessionRecord { relay_denied, errors, bytes_in, duration_ms, end, tls, backend_tls, .. } = record;
            // Fields that only sessions over TLS have.
            let (tls, backend_tls) = (tls.as_deref(), backend_tls.as_deref());
            $level!(
                session = id, %client, %peer, helo = helo.unwrap_or("-"), route, backend, accepted, rejected, deferred,
                relay_denied, errors, bytes_in, duration_ms, end, tls, backend_tls, "session"
            )
        }};
    }
    if record.is_empty() {
        EMPTY_SESSIONS.fetch_add(1, Ordering::Relaxed);
        line!(debug);
    } else {
        line!(info);
    }
}

/// One line for all sessions that brought nothing since the last call. To be called about once a minute.
pub fn sum_up() {
    let count = EMPTY_SESSIONS.swap(0, Ordering::Relaxed);
    if count > 0 {
        info!(count, "sessions that brought nothing");
    }
}

/// A message that is over.
#[derive(Debug)]
pub struct MessageRecord<'a, C> {
    /// The session's id.
    pub session: u64,
    /// Who the gateway believes the client to be.
    pub client: C,
    /// What the client called itself.
    pub helo: Option<&'a str>,
    /// Name of the route, where there are several ways.
    pub route: Option<&'a str>,
    /// Name of the backend.
    pub backend: &'a str,
    /// Whether mailboxes show whole.
    pub mailboxes: bool,
    /// Reverse-path, without brackets.
    pub from: &'a str,
    /// The first few that the guard let pass.
    pub recipients: &'a [Box<str>],
    /// Recipients the backend accepted.
    pub recipients_accepted: u32,
    /// Octets of content, as they came from the client.
    pub size: u64,
    /// From the header.
    pub message_id: Option<&'a str>,
    /// From the header: the address only.
    pub header_from: Option<&'a str>,
    /// How it ended.
    pub outcome: MessageOutcome,
    /// Of the reply that the client got; 0 if none.
    pub code: u16,
    /// That reply's first line.
    pub reply: &'a str,
    /// From MAIL to the last octet.
    pub transfer_ms: u64,
    /// From there to the reply.
    pub verdict_ms: u64,
}

/// One line for a message.
pub fn message_done<C: Display>(record: &MessageRecord<'_, C>) {
    use super::declare::Label as _;

    if !enabled!(Level::INFO) {
        return;
    }
    let MessageRecord { session, client, helo, route, backend, mailboxes, recipients, header_from, .. } = record;
    let shown = |mailbox: &str| if *mailboxes { mailbox.to_owned() } else { domain_only(mailbox) };
    let to = recipients.iter().map(|mailbox| shown(mailbox)).collect::<Vec<_>>().join(",");
    info!(
        session, %client, helo = helo.unwrap_or("-"), route, backend, from = format!("<{}>", shown(record.from)),
        to = format!("<{to}>"), recipients = record.recipients_accepted, size = record.size,
        message_id = record.message_id.unwrap_or("-"), outcome = record.outcome.as_str(), code = record.code,
        reply = record.reply, transfer_ms = record.transfer_ms, verdict_ms = record.verdict_ms, "message"
    );
    debug!(
        session,
        from = record.from,
        to = recipients.join(","),
        header_from = header_from.unwrap_or("-"),
        "message details"
    );
}

/// `@example.com` of `user@example.com`.
pub(super) fn domain_only(mailbox: &str) -> String {
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

    #[test]
    fn a_room_has_its_own_level() {
        let targets = targets(&"warn,proof=debug".parse().unwrap());
        assert!(targets.would_enable("smtp_gateway::proof::run", &Level::DEBUG));
        assert!(!targets.would_enable("smtp_gateway::drive::task", &Level::INFO));
        assert!(targets.would_enable("hyper", &Level::WARN));
    }

    /// A layer that writes into memory, in the format of the log.
    fn written(log: impl FnOnce()) -> String {
        let (lines, outlet) = queue(Target::Plain, Escape::Braces);
        let layer = fmt::layer().with_ansi(false).with_target(false).without_time().with_writer(lines);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        let mut out = Vec::new();
        outlet.flush(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_a_client_writes_is_quoted_and_steers_nothing() {
        let recipients = ["a\u{202e}\u{9b}@example.com".into()];
        let record = MessageRecord {
            session: 7,
            client: "192.0.2.1",
            helo: Some("x\" outcome=accepted \u{2028}"),
            route: None,
            backend: "backend",
            mailboxes: true,
            from: "\"x> outcome=accepted\"@example.org",
            recipients: &recipients,
            recipients_accepted: 1,
            size: 5,
            message_id: Some("id@example.org"),
            header_from: None,
            outcome: MessageOutcome::Rejected,
            code: 550,
            reply: "5.7.1 no\x1b[2J",
            transfer_ms: 1,
            verdict_ms: 2,
        };
        let text = written(|| message_done(&record));
        let line = text.lines().find(|line| line.contains("transfer_ms")).unwrap();
        assert!(line.contains(r#"from="<\"x> outcome=accepted\"@example.org>""#), "{line}");
        assert!(line.contains(r#"message_id="id@example.org" outcome="rejected""#), "{line}");
        assert!(line.contains(r#"helo="x\" outcome=accepted \u{2028}""#), "{line}");
        assert!(!line.chars().any(crate::observe::show::is_hidden), "{line}");
    }

    #[test]
    fn a_session_that_brought_nothing_is_summed_up() {
        let record = SessionRecord {
            id: 1,
            client: "192.0.2.1",
            peer: "192.0.2.1",
            helo: None,
            route: None,
            backend: "backend",
            accepted: 0,
            rejected: 0,
            deferred: 0,
            relay_denied: 0,
            errors: 0,
            bytes_in: 6,
            duration_ms: 1,
            end: "quit",
            tls: None,
            backend_tls: None,
        };
        let text = written(|| {
            session_closed(&record);
            session_closed(&SessionRecord { errors: 1, ..record });
            sum_up();
        });
        let levels: Vec<_> = text.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
        assert_eq!(levels, ["DEBUG", "INFO", "INFO"], "{text}");
        assert!(text.contains("sessions that brought nothing count="), "{text}");
    }
}
