//! The tables that stand alone, key by key.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use super::addresses::{hostname, listen_address, resolver_address};
use super::declare::{Each, Maybe, Required, table, words};
use super::diagnostics::quoted;
use super::filter::{FilterError, LogFilter, LogLevel};
use super::read::{Complaint, Read, Section};
use super::values::{
    DAY, HOUR, MIB, MINUTE, SECOND, TENTH, boolean, duration, integer, size, size_or_none, text, word,
};

/// What `sun_path` holds, its final NUL taken off.
const SOCKET_PATH_MAX: usize = 107;

table! {
    /// `[server]`
    pub struct Server {
        /// The name in greeting and EHLO reply, and towards the backend.
        hostname: String = String::new(), Required("\"mx.example.com\"", hostname);
        /// Whom a gateway that root started becomes once it listens; if not given, `smtp-gateway` or else `nobody`.
        user: Option<String> = None, Maybe(user);
        /// Where bans outlive the gateway; if not given, `/var/lib/smtp-gateway` if there is such a directory.
        state: Option<PathBuf> = None, Maybe(state_path);
        /// Threads that carry sessions; if not given, one per core.
        workers: usize = workers_default(), workers;
        /// What happens to a client that talks before it may.
        early_talk: EarlyTalk = EarlyTalk::Reject, word;
        /// How long the greeting is held back to catch early talkers.
        greet_delay: Duration = Duration::ZERO, duration(Duration::ZERO..=MINUTE);
        /// A bare CR or LF in a message that is text.
        bare_newline: BareNewline = BareNewline::Normalize, word;
    }
}

words! {
    /// `server.early_talk`
    pub enum EarlyTalk {
        /// 554 5.5.0 and close.
        Reject = "reject",
        /// Log it and go on.
        Log = "log",
    }
}

words! {
    /// `server.bare_newline`
    pub enum BareNewline {
        /// The message is refused.
        Reject = "reject",
        /// Each becomes CRLF.
        Normalize = "normalize",
    }
}

table! {
    /// `[limits]`: everything has one.
    pub struct Limits: Default {
        /// Largest message in bytes.
        message_size: u64 = 100 * MIB, size(1024..=10 << 30);
        /// Largest header section in bytes.
        header_size: usize = 256 << 10, size(1024..=16 * MIB);
        /// Longest text line in bytes, CRLF included. RFC 5321 section 4.5.3.1.6 promises every client lines of 1000.
        text_line: Option<usize> = None, size_or_none(1000..=16 * MIB);
        /// `Received:` fields before a message counts as looping.
        received_hops: usize = 100, integer(1..=1000);
        /// Recipients a transaction.
        recipients: u32 = 1000, integer(1..=100_000);
        /// Transactions a session.
        messages_per_session: u32 = 1000, integer(1..=1_000_000);
        /// Refused commands a session before 421.
        errors: u32 = 20, integer(1..=10_000);
        /// Refused passwords a session before 421.
        auth_failures: u32 = 5, integer(1..=100);
        /// Commands without a message (NOOP, RSET, EHLO, VRFY, HELP, unknown) a session before 421.
        idle_commands: u32 = 100, integer(1..=100_000);
        /// Bytes a second a client must average while it sends a body.
        minimum_rate: u64 = 100, size(1..=MIB);
        /// Bytes that all sessions hold together of what is on its way, before no message begins.
        buffered: usize = 256 * MIB as usize, size(MIB..=64 << 30);
        /// Sessions at once, all together.
        sessions: usize = 20_000, integer(1..=1_000_000);
        /// Sessions at once from one client address (IPv6: one /64).
        sessions_per_client: usize = 100, integer(1..=1_000_000);
        /// TLS handshakes that one client address (IPv6: one /64) may begin within a minute.
        handshakes_per_client: u32 = 600, integer(1..=1_000_000);
    }
}

table! {
    /// `[timeouts]`
    pub struct Timeouts: Default {
        /// A client's PROXY header. The PROXY specification: a receiver waits at least three seconds, or a lost packet
        /// loses the client.
        proxy_header: Duration = 5 * SECOND, duration(3 * SECOND..=5 * MINUTE);
        /// From one command's answer to the next whole command.
        command: Duration = 5 * MINUTE, duration(TENTH..=HOUR);
        /// A whole body.
        body: Duration = HOUR, duration(TENTH..=DAY);
        /// TCP connect to a backend address.
        connect: Duration = 10 * SECOND, duration(TENTH..=5 * MINUTE);
        /// Greeting, EHLO and identity of a backend, together.
        handshake: Duration = MINUTE, duration(TENTH..=10 * MINUTE);
        /// A client's TLS handshake.
        tls_handshake: Duration = 30 * SECOND, duration(SECOND..=5 * MINUTE);
        /// A backend's reply to a command.
        reply: Duration = 5 * MINUTE, duration(TENTH..=HOUR);
        /// A backend's reply to the end of data.
        end_of_data: Duration = 10 * MINUTE, duration(TENTH..=HOUR);
        /// After SIGTERM, how long transactions may still take.
        drain: Duration = 30 * SECOND, duration(Duration::ZERO..=DAY);
        /// Between health checks of a backend.
        health_interval: Duration = 30 * SECOND, duration(TENTH..=HOUR);
    }
}

table! {
    /// `[dns]`: the reverse look-up for XCLIENT's NAME.
    pub struct Dns: Default {
        /// Whether names are looked up at all.
        enabled: bool = true, boolean;
        /// Resolvers; none: those of /etc/resolv.conf.
        servers: Vec<SocketAddr> = Vec::new(), Each(resolver_address);
        /// PTR and its confirmation together.
        timeout: Duration = 3 * SECOND, duration(TENTH..=MINUTE);
        /// Names kept.
        cache_entries: usize = 10_000, integer(1..=10_000_000);
    }
}

table! {
    /// `[control]`
    pub struct Control: Default {
        /// The unix socket.
        socket: PathBuf = "/run/smtp-gateway/control.sock".into(), socket_path;
        /// Uids besides root and the gateway's own that may speak to it. The highest uid means "no change" to the system
        /// calls that take one.
        allowed_uids: Vec<u32> = Vec::new(), Each(integer(0..=u32::MAX - 1));
    }
}

table! {
    /// `[metrics]`
    pub struct Metrics: Default {
        /// Where numbers, answers for probes and the page are served; nowhere unless it is given.
        address: Option<SocketAddr> = None, Maybe(metrics_address);
        /// Names besides `localhost` and `server.hostname` by which it may be asked.
        hosts: Vec<String> = Vec::new(), Each(hostname);
    }
}

table! {
    /// `[log]`
    pub struct Log: Default {
        /// How an event is written.
        format: LogFormat = LogFormat::Text, word;
        /// The least that is logged; a room may have its own level.
        level: LogFilter = LogLevel::Info.into(), log_filter;
        /// Whether addresses of mailboxes appear at INFO, and not only their domains.
        mailboxes: bool = false, boolean;
    }
}

words! {
    /// `log.format`
    pub enum LogFormat {
        /// One line of text an event.
        Text = "text",
        /// One JSON object an event.
        Json = "json",
    }
}

pub(super) fn server(mut section: Section<'_, '_, '_>) -> Server {
    if section.header().is_none() {
        let help = "write `[server]`, and under it `hostname = \"mx.example.com\"`, the gateway's name in DNS";
        section.report().missing(("", "server"), None, "there is no `[server]`", help);
    }
    let server = Server::read(&mut section);
    section.finish();
    server
}

/// A name as useradd(8) takes it.
fn user(value: &DeValue<'_>) -> Read<String> {
    let name = text(value, "smtp-gateway")?;
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if name.is_empty() || name.len() > 32 || !is_plain || name.starts_with('-') {
        let message = format!("is {}, which is no name of a user", quoted(name));
        return Err(Complaint::new(message, "write a user of this host, such as `\"smtp-gateway\"`"));
    }
    if name == "root" {
        let help = "write a user that owns nothing else, such as `\"smtp-gateway\"`, or delete the key";
        return Err(Complaint::new("is `root`, which the gateway is not to stay", help));
    }
    Ok(name.to_owned())
}

/// `"auto"`, or how many.
fn workers(value: &DeValue<'_>) -> Read<usize> {
    if value.as_str() == Some("auto") {
        return Ok(workers_default());
    }
    integer(1..=1024)(value).map_err(|complaint| {
        Complaint::new(complaint.message, "write `\"auto\"` for one a core, or a whole number from 1 to 1024")
    })
}

pub(super) fn workers_default() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn metrics_address(value: &DeValue<'_>) -> Read<SocketAddr> {
    let example = "127.0.0.1:9525";
    listen_address(value).map_err(|complaint| Complaint::new(complaint.message, format!("write `\"{example}\"`")))
}

fn log_filter(value: &DeValue<'_>) -> Read<LogFilter> {
    text(value, "info")?.parse().map_err(|FilterError { message, help }| Complaint::new(message, help))
}

fn state_path(value: &DeValue<'_>) -> Read<PathBuf> {
    let example = "/var/lib/smtp-gateway";
    let path = text(value, example)?;
    if path.is_empty() || path.contains('\0') {
        return Err(Complaint::new("names no directory", format!("write a path such as `\"{example}\"`")));
    }
    Ok(path.into())
}

fn socket_path(value: &DeValue<'_>) -> Read<PathBuf> {
    let example = "/run/smtp-gateway/control.sock";
    let path = text(value, example)?;
    let complaint = |message: String| Complaint::new(message, format!("write a path such as `\"{example}\"`"));
    if path.is_empty() || path.ends_with('/') {
        return Err(complaint("names no file".to_owned()));
    }
    if path.contains('\0') {
        return Err(complaint("has a NUL in it, which no path can have".to_owned()));
    }
    if path.len() > SOCKET_PATH_MAX {
        let message = format!("is {} bytes long, and the path of a socket has at most {SOCKET_PATH_MAX}", path.len());
        return Err(complaint(message));
    }
    Ok(path.into())
}
