//! Configuration: a TOML file becomes checked values, or a list of every fault in it with its place and its mend.
//!
//! Nothing here opens a socket or starts anything. The rest of the program sees only [`Config`], in which no impossible
//! value exists: names are resolved to indices, networks and durations are parsed, limits are within bounds.
//!
//! A key is declared once (`declare`), in the file of its table; `config/gateway.toml` explains it to administrators, and
//! `tests/every-key.toml` gives it a value that is not its default. The tests miss whichever of the two is forgotten.
//! What a value leads to is other rooms' matter: they know this one, and it knows none of them but the codecs.

mod abuse;
mod addresses;
mod between;
mod declare;
mod diagnostics;
mod endpoints;
mod files;
mod filter;
mod join;
mod parse;
mod pool;
mod proof;
mod read;
mod read_route;
mod relay;
mod route;
mod route_file;
mod route_keys;
mod sections;
mod shadowed;
mod submission;
mod suggest;
mod syntax;
mod tls;
mod values;

pub use self::abuse::{Bans, Xdp, XdpMode};
pub use self::addresses::HostPort;
pub(crate) use self::addresses::SMTP_PORT;
pub use self::diagnostics::Fault;
pub use self::endpoints::{Backend, BackendTls, IdentityMode, Listener, ServerKind, Service};
pub use self::filter::{FilterError, LogFilter, LogLevel};
pub use self::parse::{LoadError, load, parse};
pub use self::pool::{Pool, SERVERS_MAX};
pub use self::proof::Proof;
pub use self::read_route::NO_ROUTE;
pub use self::relay::{OnOpen, Relay};
pub use self::route::{Line, ROUTES_MAX, Route, RouteKey};
pub use self::route_keys::{KeyForms, recipient_keys, user_keys};
pub use self::sections::{BareNewline, Control, Dns, EarlyTalk, Limits, Log, LogFormat, Metrics, Server, Timeouts};
pub use self::submission::Submission;
pub use self::tls::{CertificateFiles, ListenerTls, MinimumVersion, Tls, TlsVerify};
pub(crate) use self::values::parse_duration;

/// The whole configuration, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// `[[listener]]`, at least one.
    pub listeners: Vec<Listener>,
    /// `[[backend]]`, at least one.
    pub pools: Vec<Pool>,
    /// The servers of all of them, one pool's behind the other's.
    pub backends: Vec<Backend>,
    /// `[[route]]`, in the file's order.
    pub routes: Vec<Route>,
    /// `[relay]`
    pub relay: Relay,
    /// `[proof]`
    pub proof: Proof,
    /// `[submission]`
    pub submission: Submission,
    /// `[tls]`
    pub tls: Tls,
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
    /// `[metrics]`
    pub metrics: Metrics,
    /// `[log]`
    pub log: Log,
}

#[cfg(test)]
mod tests;
