//! The tables that stand alone, key by key: bounds and defaults are here and nowhere else.
//!
//! A value that is faulty is reported and its default goes on, so that one fault hides no other; what was put together
//! that way never leaves [`super::parse()`].

use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use super::addresses::{hostname, resolver_address};
use super::read::{Complaint, Read, Section};
use super::values::{boolean, duration, integer, size, size_or_none, text, word};
use super::{BareNewline, Control, Dns, EarlyTalk, Limits, Log, LogFormat, LogLevel, Server, Timeouts};

const MIB: u64 = 1 << 20;
const TENTH: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// What `sun_path` holds, its final NUL taken off.
const SOCKET_PATH_MAX: usize = 107;

pub(super) fn server(mut section: Section<'_, '_, '_>) -> Server {
    if section.header().is_none() {
        let help = "write `[server]`, and under it `hostname = \"mx.example.com\"`, the gateway's name in DNS";
        section.report().missing(("", "server"), None, "there is no `[server]`", help);
    }
    let server = Server {
        hostname: section
            .required("hostname", "\"mx.example.com\"", hostname)
            .map_or(String::new(), |hostname| hostname.value),
        workers: section.or("workers", None, workers).unwrap_or_else(workers_default),
        early_talk: section.or(
            "early_talk",
            EarlyTalk::Reject,
            word(&[("reject", EarlyTalk::Reject), ("log", EarlyTalk::Log)]),
        ),
        greet_delay: section.or("greet_delay", Duration::ZERO, duration(Duration::ZERO..=MINUTE)),
        bare_newline: section.or(
            "bare_newline",
            BareNewline::Normalize,
            word(&[("reject", BareNewline::Reject), ("normalize", BareNewline::Normalize)]),
        ),
    };
    section.finish();
    server
}

/// `"auto"`, or how many.
fn workers(value: &DeValue<'_>) -> Read<Option<usize>> {
    if value.as_str() == Some("auto") {
        return Ok(None);
    }
    integer(1..=1024)(value).map(Some).map_err(|complaint| {
        Complaint::new(complaint.message, "write `\"auto\"` for one a core, or a whole number from 1 to 1024")
    })
}

pub(super) fn workers_default() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

pub(super) fn limits(mut section: Section<'_, '_, '_>) -> Limits {
    let default = Limits::default();
    let limits = Limits {
        message_size: section.or("message_size", default.message_size, size(1024..=10 << 30)),
        header_size: section.or("header_size", default.header_size, size(1024..=16 * MIB)),
        // RFC 5321 section 4.5.3.1.6 promises every client lines of 1000 bytes.
        text_line: section.or("text_line", default.text_line, size_or_none(1000..=16 * MIB)),
        received_hops: section.or("received_hops", default.received_hops, integer(1..=1000)),
        recipients: section.or("recipients", default.recipients, integer(1..=100_000)),
        messages_per_session: section.or("messages_per_session", default.messages_per_session, integer(1..=1_000_000)),
        errors: section.or("errors", default.errors, integer(1..=10_000)),
        idle_commands: section.or("idle_commands", default.idle_commands, integer(1..=100_000)),
        minimum_rate: section.or("minimum_rate", default.minimum_rate, size(1..=MIB)),
        sessions: section.or("sessions", default.sessions, integer(1..=1_000_000)),
        sessions_per_client: section.or("sessions_per_client", default.sessions_per_client, integer(1..=1_000_000)),
    };
    section.finish();
    limits
}

pub(super) fn timeouts(mut section: Section<'_, '_, '_>) -> Timeouts {
    let default = Timeouts::default();
    let timeouts = Timeouts {
        // The PROXY specification: a receiver waits at least three seconds, or a lost packet loses the client.
        proxy_header: section.or("proxy_header", default.proxy_header, duration(3 * SECOND..=5 * MINUTE)),
        command: section.or("command", default.command, duration(TENTH..=HOUR)),
        body: section.or("body", default.body, duration(TENTH..=24 * HOUR)),
        connect: section.or("connect", default.connect, duration(TENTH..=5 * MINUTE)),
        handshake: section.or("handshake", default.handshake, duration(TENTH..=10 * MINUTE)),
        reply: section.or("reply", default.reply, duration(TENTH..=HOUR)),
        end_of_data: section.or("end_of_data", default.end_of_data, duration(TENTH..=HOUR)),
        drain: section.or("drain", default.drain, duration(Duration::ZERO..=24 * HOUR)),
        health_interval: section.or("health_interval", default.health_interval, duration(TENTH..=HOUR)),
    };
    section.finish();
    timeouts
}

pub(super) fn dns(mut section: Section<'_, '_, '_>) -> Dns {
    let default = Dns::default();
    let servers = section.list("servers", resolver_address).map(|servers| servers.value);
    let dns = Dns {
        enabled: section.or("enabled", default.enabled, boolean),
        servers: servers.unwrap_or_default().into_iter().map(|server| server.value).collect(),
        timeout: section.or("timeout", default.timeout, duration(TENTH..=MINUTE)),
        cache_entries: section.or("cache_entries", default.cache_entries, integer(1..=10_000_000)),
    };
    section.finish();
    dns
}

pub(super) fn control(mut section: Section<'_, '_, '_>) -> Control {
    let default = Control::default();
    let socket = section.or("socket", default.socket, socket_path);
    // The highest uid means "no change" to the system calls that take one.
    let uids = section.list("allowed_uids", integer(0..=u32::MAX - 1)).map(|uids| uids.value);
    let allowed_uids = uids.unwrap_or_default().into_iter().map(|uid| uid.value).collect();
    section.finish();
    Control { socket, allowed_uids }
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

pub(super) fn log(mut section: Section<'_, '_, '_>) -> Log {
    let default = Log::default();
    let levels = [
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ];
    let log = Log {
        format: section.or("format", default.format, word(&[("text", LogFormat::Text), ("json", LogFormat::Json)])),
        level: section.or("level", default.level, word(&levels)),
        mailboxes: section.or("mailboxes", default.mailboxes, boolean),
    };
    section.finish();
    log
}
