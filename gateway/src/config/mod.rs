//! Configuration: a TOML file becomes checked values, or a list of every fault in it with its place and its mend.
//!
//! Nothing here opens a socket or starts anything. The rest of the program sees only [`Config`], in which no impossible
//! value exists: names are resolved to indices, networks and durations are parsed, limits are within bounds.

mod abuse;
mod addresses;
mod diagnostics;
mod endpoints;
mod files;
mod parse;
mod proof;
mod read;
mod relay;
mod sections;
mod suggest;
mod syntax;
mod values;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::policy::relay_guard::RelayGuard;

pub use self::diagnostics::Fault;
pub use self::endpoints::ServerKind;
pub use self::parse::{LoadError, load, parse};
pub use self::proof::{OnOpen, Proof};
pub(crate) use self::values::parse_duration;

/// The whole configuration, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// `[[listener]]`, at least one.
    pub listeners: Vec<Listener>,
    /// `[[backend]]`, at least one.
    pub backends: Vec<Backend>,
    /// `[relay]`
    pub relay: RelayGuard,
    /// `relay.on_open`
    pub on_open: OnOpen,
    /// `[proof]`
    pub proof: Proof,
    /// `[limits]`
    pub limits: Limits,
    /// `[timeouts]`
    pub timeouts: Timeouts,
    /// `[bans]`
    pub bans: Bans,
    /// `[dns]`
    pub dns: Dns,
    /// `[xdp]`
    pub xdp: Xdp,
    /// `[control]`
    pub control: Control,
    /// `[log]`
    pub log: Log,
}

/// `[server]`
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    /// The name in greeting and EHLO reply, and towards the backend.
    pub hostname: String,
    /// Threads that carry sessions; default: one per core.
    pub workers: usize,
    /// What happens to a client that talks before it may. Default `reject`.
    pub early_talk: EarlyTalk,
    /// How long the greeting is held back to catch early talkers. Default `0s`.
    pub greet_delay: Duration,
    /// A bare CR or LF in a message that is text. Default `normalize`.
    pub bare_newline: BareNewline,
}

/// `server.early_talk`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EarlyTalk {
    /// 554 5.5.0 and close.
    Reject,
    /// Log it and go on.
    Log,
}

/// `server.bare_newline`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BareNewline {
    /// The message is refused.
    Reject,
    /// Each becomes CRLF.
    Normalize,
}

/// `[[listener]]`
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// Where it listens.
    pub address: SocketAddr,
    /// Index into `Config::backends`; the key is the backend's name, the default the first backend.
    pub backend: usize,
    /// `proxy_protocol_from`: if not empty, a PROXY header is required, and only from these.
    pub proxy_protocol_from: Vec<IpNet>,
}

/// `[[backend]]`
#[derive(Debug, Clone, PartialEq)]
pub struct Backend {
    /// Its name in `status` and logs; unique.
    pub name: String,
    /// Where it listens.
    pub address: HostPort,
    /// How it is told who the client is.
    pub identity: IdentityMode,
    /// What it is, where it should not be guessed from its greeting.
    pub kind: Option<ServerKind>,
}

/// `host:port`, `192.0.2.1:25`, `[2001:db8::1]:25`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPort {
    /// An address.
    Address(SocketAddr),
    /// A name to resolve, all its addresses tried in turn.
    Name(String, u16),
}

/// `backend.identity`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityMode {
    /// XCLIENT after EHLO.
    Xclient,
    /// PROXY protocol version 1.
    ProxyV1,
    /// PROXY protocol version 2.
    ProxyV2,
    /// The connection comes from the client's own address.
    Transparent,
    /// A `Received:` field above the message; only allowed while the relay guard has local domains.
    TraceHeader,
    /// Nothing: only allowed while the relay guard has local domains.
    None,
}

/// `[limits]`: everything has one.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Largest message in bytes. Default `100MiB`.
    pub message_size: u64,
    /// Largest header section in bytes. Default `256KiB`.
    pub header_size: usize,
    /// Longest text line in bytes, CRLF included. Default `none`: as long as the message may be.
    pub text_line: Option<usize>,
    /// `Received:` fields before a message counts as looping. Default 100.
    pub received_hops: usize,
    /// Recipients a transaction. Default 1000.
    pub recipients: u32,
    /// Transactions a session. Default 1000.
    pub messages_per_session: u32,
    /// Refused commands a session before 421. Default 20.
    pub errors: u32,
    /// Commands without a message (NOOP, RSET, EHLO, VRFY, HELP, unknown) a session before 421. Default 100.
    pub idle_commands: u32,
    /// Bytes a second a client must average while it sends a body. Default 100.
    pub minimum_rate: u64,
    /// Sessions at once, all together. Default 20000.
    pub sessions: usize,
    /// Sessions at once from one client address (IPv6: one /64). Default 100.
    pub sessions_per_client: usize,
}

/// `[timeouts]`
#[derive(Debug, Clone, PartialEq)]
pub struct Timeouts {
    /// A client's PROXY header. Default `5s`, at least `3s`.
    pub proxy_header: Duration,
    /// From one command's answer to the next whole command. Default `5m`.
    pub command: Duration,
    /// A whole body. Default `1h`.
    pub body: Duration,
    /// TCP connect to a backend address. Default `10s`.
    pub connect: Duration,
    /// Greeting, EHLO and identity of a backend, together. Default `60s`.
    pub handshake: Duration,
    /// A backend's reply to a command. Default `5m`.
    pub reply: Duration,
    /// A backend's reply to the end of data. Default `10m`.
    pub end_of_data: Duration,
    /// After SIGTERM, how long transactions may still take. Default `30s`.
    pub drain: Duration,
    /// Between health checks of a backend. Default `30s`.
    pub health_interval: Duration,
}

/// `[bans]`: what sources are banned for, and for how long.
#[derive(Debug, Clone, PartialEq)]
pub struct Bans {
    /// Whether what sessions find leads to bans. Default true; bans by hand work without.
    pub enabled: bool,
    /// Points at which a source is banned. Default 100.
    pub threshold: u32,
    /// In which `threshold` points are forgotten, steadily. Default `1h`.
    pub memory: Duration,
    /// A source's first ban; each further one lasts four times as long as the last. Default `10m`.
    pub first: Duration,
    /// The longest ban, and how long a source must behave behind one to begin anew. Default `24h`.
    pub maximum: Duration,
    /// Sources whose behaviour is remembered. Default 65536.
    pub sources: usize,
    /// Never banned by anybody. Default none.
    pub allow: Vec<IpNet>,
}

/// `[dns]`: the reverse look-up for XCLIENT's NAME.
#[derive(Debug, Clone, PartialEq)]
pub struct Dns {
    /// Whether names are looked up at all. Default true.
    pub enabled: bool,
    /// Resolvers; empty: those of /etc/resolv.conf. Written as `192.0.2.53` or `192.0.2.53:53`.
    pub servers: Vec<SocketAddr>,
    /// PTR and its confirmation together. Default `3s`.
    pub timeout: Duration,
    /// Names kept. Default 10000.
    pub cache_entries: usize,
}

/// `[xdp]`: the kernel side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xdp {
    /// Network cards to attach to; none (default): the kernel side is off.
    pub interfaces: Vec<String>,
    /// How it is attached. Default `auto`.
    pub mode: XdpMode,
    /// Whether packets are only counted that would have been dropped. Default false.
    pub monitor_only: bool,
    /// Whether a program of somebody else's is taken off a card. Default false.
    pub force: bool,
    /// New connections a second that one source may try, over time. Default 50.
    pub syn_rate: u32,
    /// How many it may try at once. Default 200.
    pub syn_burst: u32,
    /// Never limited nor dropped by the kernel side. Default none.
    pub allow: Vec<IpNet>,
    /// Those of `interfaces` behind which there is only the Internet. Default none.
    pub outside: Vec<String>,
    /// Where program, bans and counters outlive the gateway. Default `/sys/fs/bpf/smtp-gateway`.
    pub pins: PathBuf,
}

/// `xdp.mode`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XdpMode {
    /// Native, or else generic, or else off.
    Auto,
    /// Native or off.
    Native,
    /// Generic or off.
    Generic,
    /// Off.
    Off,
}

/// `[control]`
#[derive(Debug, Clone, PartialEq)]
pub struct Control {
    /// The unix socket. Default `/run/smtp-gateway/control.sock`.
    pub socket: PathBuf,
    /// Uids besides root and the gateway's own that may speak to it. Default none.
    pub allowed_uids: Vec<u32>,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// `text` (default) or `json`.
    pub format: LogFormat,
    /// `error`, `warn`, `info` (default), `debug`, `trace`.
    pub level: LogLevel,
    /// Whether addresses of mailboxes appear at INFO. Default false: only their domains do.
    pub mailboxes: bool,
}

/// `log.format`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One line of text an event.
    Text,
    /// One JSON object an event.
    Json,
}

/// `log.level`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are tracing's own")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl IdentityMode {
    /// Every one, as the documentation has them.
    pub const ALL: [Self; 6] =
        [Self::Xclient, Self::ProxyV1, Self::ProxyV2, Self::Transparent, Self::TraceHeader, Self::None];

    /// As it is written in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Xclient => "xclient",
            Self::ProxyV1 => "proxy-v1",
            Self::ProxyV2 => "proxy-v2",
            Self::Transparent => "transparent",
            Self::TraceHeader => "trace-header",
            Self::None => "none",
        }
    }

    /// Whether the backend can decide by who the client is. If not, it takes every client for the gateway.
    pub fn tells(self) -> bool {
        !matches!(self, Self::TraceHeader | Self::None)
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_size: 100 << 20,
            header_size: 256 << 10,
            text_line: None,
            received_hops: 100,
            recipients: 1000,
            messages_per_session: 1000,
            errors: 20,
            idle_commands: 100,
            minimum_rate: 100,
            sessions: 20_000,
            sessions_per_client: 100,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            proxy_header: Duration::from_secs(5),
            command: Duration::from_secs(300),
            body: Duration::from_secs(3600),
            connect: Duration::from_secs(10),
            handshake: Duration::from_secs(60),
            reply: Duration::from_secs(300),
            end_of_data: Duration::from_secs(600),
            drain: Duration::from_secs(30),
            health_interval: Duration::from_secs(30),
        }
    }
}

impl Default for Bans {
    fn default() -> Self {
        Self {
            enabled: true,
            threshold: 100,
            memory: Duration::from_secs(3600),
            first: Duration::from_secs(600),
            maximum: Duration::from_secs(24 * 3600),
            sources: 65_536,
            allow: Vec::new(),
        }
    }
}

impl Default for Dns {
    fn default() -> Self {
        Self { enabled: true, servers: Vec::new(), timeout: Duration::from_secs(3), cache_entries: 10_000 }
    }
}

impl Default for Xdp {
    fn default() -> Self {
        Self {
            interfaces: Vec::new(),
            mode: XdpMode::Auto,
            monitor_only: false,
            force: false,
            syn_rate: 50,
            syn_burst: 200,
            allow: Vec::new(),
            outside: Vec::new(),
            pins: "/sys/fs/bpf/smtp-gateway".into(),
        }
    }
}

impl Default for Control {
    fn default() -> Self {
        Self { socket: "/run/smtp-gateway/control.sock".into(), allowed_uids: Vec::new() }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: LogLevel::Info, mailboxes: false }
    }
}

#[cfg(test)]
mod tests;
