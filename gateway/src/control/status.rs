//! What `status` shows. Field names are a contract: monitoring reads them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::kernel::Mode;

use super::upgrade::UpgradeAnswer;

pub use crate::proof::State as ProofState;

use super::{BackendTlsStatus, CertificateStatus, LoginStatus, LoginTotals, TlsTotals};

/// The gateway at one moment. Fields that end in `_total` never go back while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Of the program.
    pub version: String,
    /// Its process; another one after an upgrade.
    #[serde(default)]
    pub process: u32,
    /// Since start.
    pub uptime_seconds: u64,
    /// What needs the administrator, the worst first.
    pub problems: Vec<Problem>,
    /// What an administrator should know or mend, a sentence each.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// The configuration in force.
    #[serde(default)]
    pub config: ConfigStatus,
    /// In the configuration's order.
    pub listeners: Vec<ListenerStatus>,
    /// Sessions with clients.
    pub sessions: SessionTotals,
    /// Messages by the answer their end of data got.
    pub messages: MessageTotals,
    /// What the gateway itself refused, by cause.
    pub refusals_total: BTreeMap<String, u64>,
    /// Clients' TLS, and what came without.
    #[serde(default)]
    pub tls: TlsTotals,
    /// Users' logins.
    #[serde(default)]
    pub logins: LoginTotals,
    /// Log lines that were lost because nobody read fast enough.
    pub log_lines_lost_total: u64,
    /// Relay proofs of all backends.
    pub proofs: ProofTotals,
    /// In the configuration's order.
    pub backends: Vec<BackendStatus>,
    /// In the configuration's order, the first hundred, and mail that no route fits behind them; none where there are none.
    #[serde(default)]
    pub routes: Vec<RouteStatus>,
    /// Routes that are not among them.
    #[serde(default)]
    pub more_routes: u64,
    /// In the configuration's order; the first is the default.
    #[serde(default)]
    pub certificates: Vec<CertificateStatus>,
    /// The kernel side.
    pub xdp: XdpStatus,
    /// Busiest sources as the kernel side counts them; while it is off, those with most sessions.
    pub top_sources: Vec<TopSource>,
    /// Domains that the relay guard refused recipients in most often since the start, the most often refused first: one of
    /// the administrator's own that `relay.local_domains` lacks stands out there.
    pub refused_domains: Vec<RefusedDomainStatus>,
}

/// A domain that the relay guard refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedDomainStatus {
    /// In lower case.
    pub domain: String,
    /// Recipients refused, at least.
    pub refused_total: u64,
    /// When the last was: seconds since 1970, UTC.
    pub last_at: u64,
}

/// Something that needs the administrator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in one sentence without its stop.
    pub what: String,
    /// What to do, in the same form.
    pub mend: Option<String>,
}

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Mail does not flow, or flows where it must not.
    Critical,
    /// It will, if nobody looks.
    Warning,
}

impl Severity {
    /// Every one, the worst first.
    pub const ALL: [Self; 2] = [Self::Critical, Self::Warning];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
        }
    }
}

/// Where the configuration in force came from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigStatus {
    /// `None`: from no file.
    pub file: Option<String>,
    /// When it was read, in seconds since 1970, UTC.
    pub loaded_at: u64,
    /// Tells configurations apart.
    pub digest: String,
}

/// What came of a reload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum ReloadAnswer {
    /// The new configuration is in force.
    Reloaded {
        /// Tells configurations apart.
        digest: String,
        /// What is not as the file says, and what to do, a sentence each.
        kept: Vec<String>,
    },
    /// The configuration is faulty; the old one is in force.
    Faulty {
        /// Its diagnostics.
        why: String,
    },
    /// It could not be done; the old configuration is in force.
    Failed {
        /// A sentence.
        why: String,
    },
    /// Nothing was done: whoever asked is another program, or an upgrade was asked for, and it is to be one.
    Upgrade(UpgradeAnswer),
}

/// One listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// Where it listens.
    pub address: SocketAddr,
    /// Name of its backend.
    pub backend: String,
    /// Whether it takes connections from load balancers with a PROXY header only.
    pub proxy_protocol: bool,
    /// `off`, `starttls` or `implicit`.
    #[serde(default)]
    pub tls: String,
}

/// Sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionTotals {
    /// Now.
    pub active: u64,
    /// As many as there may be.
    pub limit: u64,
    /// Connections that became sessions.
    pub accepted_total: u64,
    /// Connections turned away.
    pub refused_total: u64,
}

/// Messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageTotals {
    /// The backend answered 2xx.
    pub accepted_total: u64,
    /// 5xx.
    pub rejected_total: u64,
    /// 4xx.
    pub deferred_total: u64,
}

/// One backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendStatus {
    /// In the configuration.
    pub name: String,
    /// As in the configuration: `host:port`.
    pub address: String,
    /// Whether the last health check, and the sessions since, found it well.
    pub healthy: bool,
    /// Whether an administrator took it out.
    #[serde(default)]
    pub drained: bool,
    /// What is wrong, and what to do.
    pub problem: Option<String>,
    /// `xclient`, `proxy-v1`, `proxy-v2` or `none`.
    pub identity: String,
    /// TLS with it.
    #[serde(default)]
    pub tls: BackendTlsStatus,
    /// What users log in by; `None` where they do not.
    #[serde(default)]
    pub logins: Option<LoginStatus>,
    /// What it was learned to offer; `None` until it has answered.
    pub dialect: Option<DialectStatus>,
    /// The relay proof.
    pub proof: ProofStatus,
}

/// One route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteStatus {
    /// In the configuration; `none` for mail that no route fits.
    pub name: String,
    /// What it is for, in short.
    pub matches: String,
    /// Where it leads.
    pub backends: Vec<String>,
    /// Servers of these.
    pub servers: u64,
    /// Those of them that are well.
    pub healthy: u64,
    /// What the relay proof has brought about, as `relay.on_open` has it; `None`: nothing.
    pub hold: Option<String>,
    /// What came by it.
    pub messages: MessageTotals,
}

/// What a backend was learned to offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DialectStatus {
    /// What it is, and what told.
    pub server: String,
    /// The first line of its greeting.
    pub banner: String,
    /// Its EHLO keywords, as sent.
    pub extensions: Vec<String>,
    /// The attributes behind XCLIENT.
    pub xclient: Vec<String>,
    /// How it takes IPv6 addresses in XCLIENT: `prefixed` or `bare`, once the proof has tried.
    pub ipv6_form: Option<String>,
}

/// What the relay proof found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofStatus {
    /// The verdict.
    pub state: ProofState,
    /// Seconds since 1970, UTC.
    pub checked_at: Option<u64>,
    /// What was found, a sentence each.
    pub findings: Vec<String>,
}

/// The kernel side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct XdpStatus {
    /// What is really attached.
    pub mode: Mode,
    /// Where.
    pub interfaces: Vec<InterfaceStatus>,
    /// What of the configuration could not be had, and what to do.
    pub problem: Option<String>,
    /// Packets to the listeners' ports.
    pub packets_total: u64,
    /// SYNs among them.
    pub syn_total: u64,
    /// Drops by cause.
    pub dropped_total: BTreeMap<String, u64>,
    /// Whether packets are only counted that would be dropped, under `would_drop_total`.
    pub monitor_only: bool,
    /// What would have been dropped, by cause.
    pub would_drop_total: BTreeMap<String, u64>,
    /// Connections that the system handed over to the gateway, since it started.
    pub accepted_total: u64,
    /// SYNs, since the gateway started, that were neither dropped here nor became a connection: lost to a full queue,
    /// forged, repeated, or given up. SYNs are what was dropped, accepted and lost.
    pub lost_before_accept_total: u64,
    /// Every counter of the program, those above among them.
    pub counters_total: BTreeMap<String, u64>,
    /// Verdicts that could not be written.
    pub failed_writes_total: u64,
    /// Sources with an account.
    pub tracked_sources: u64,
    /// Bans in force.
    pub bans: u64,
}

/// One interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: String,
    /// How the program is attached there, now.
    pub mode: Mode,
    /// What is not as it was asked for, and what to do.
    pub problem: Option<String>,
}

/// One source of packets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopSource {
    /// IPv4 address or IPv6 /64.
    pub address: String,
    /// SYNs.
    pub syn: u64,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// Sessions now.
    pub active: u64,
    /// Packets dropped.
    pub dropped: u64,
}

/// One ban in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanStatus {
    /// An IPv4 address, or a network.
    pub address: String,
    /// Why.
    pub reason: String,
    /// Whose word it is.
    pub by: BannedBy,
    /// Seconds since 1970, UTC.
    pub since: u64,
    /// Seconds since 1970, UTC.
    pub until: u64,
    /// Connections that the gateway itself refused for it.
    pub connections_refused: u64,
    /// Packets that the kernel side dropped for it.
    pub packets_dropped: u64,
    /// What an administrator should know of it: that it will not be kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Whose word a ban is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BannedBy {
    /// The source's own doing.
    Offences,
    /// An administrator's.
    Administrator,
}

/// What `bans` shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanList {
    /// Seconds since 1970, UTC.
    pub now: u64,
    /// The newest first.
    pub bans: Vec<BanStatus>,
}

/// What `top` shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopList {
    /// What is really attached; while it is `off`, only `active` is counted.
    pub mode: Mode,
    /// The busiest first.
    pub sources: Vec<TopSource>,
}

impl XdpStatus {
    /// Nothing is attached.
    pub fn off() -> Self {
        Self {
            mode: Mode::Off,
            interfaces: Vec::new(),
            problem: None,
            packets_total: 0,
            syn_total: 0,
            dropped_total: BTreeMap::new(),
            monitor_only: false,
            would_drop_total: BTreeMap::new(),
            accepted_total: 0,
            lost_before_accept_total: 0,
            counters_total: BTreeMap::new(),
            failed_writes_total: 0,
            tracked_sources: 0,
            bans: 0,
        }
    }
}

/// Proofs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofTotals {
    /// Have run.
    pub run_total: u64,
    /// Found a relay, or trust in the gateway's address.
    pub found_total: u64,
    /// Showed nothing.
    pub inconclusive_total: u64,
}
