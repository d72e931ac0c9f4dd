//! The control socket: how a running gateway is asked what it is doing.
//!
//! One unix socket; a request is one line of JSON (`{"verb":"status"}`), the answer is one line of JSON, then the gateway
//! closes. Whoever asks is judged by the uid the kernel vouches for, not by the permissions of the file alone. This room
//! knows nothing of sessions: what it shows is a snapshot that it is given. One request is no question but the beginning of a
//! handover, by which another process takes this one's place; it is root's, and that of the gateway's own user.

mod certificates;
mod client;
mod handover;
mod live;
mod logins;
mod not_done;
mod problems;
mod request;
mod routes;
mod server;
mod status;
mod status_page;
mod tables;
mod tls;
mod upgrade;

use std::time::Duration;

pub use certificates::{
    CertificateFacts, CertificateList, CertificateStatus, RenewAnswer, Renewal, Secret, render_certificates,
};
pub use client::{
    AskError, ask_ban, ask_bans, ask_drain, ask_events, ask_kill, ask_log, ask_reload, ask_renew, ask_sessions,
    ask_status, ask_top, ask_trace, ask_unban, ask_upgrade,
};
pub use handover::{Predecessor, Successor};
pub(crate) use live::render_event_short;
pub use live::{DrainStatus, EventList, LogStatus, SessionList, SessionStatus, TraceList, render_event, render_trace};
pub use logins::{LoginStatus, LoginTotals};
pub use not_done::NotDone;
pub use problems::{find_problems, recent_refusals};
pub use request::{Request, RequestError, RequestFault};
pub use server::{Answers, ControlSocket, SocketError};
pub use status::{
    BackendStatus, BanList, BanStatus, BannedBy, ConfigStatus, DialectStatus, InterfaceStatus, ListenerStatus,
    MessageTotals, Problem, ProofState, ProofStatus, ProofTotals, RefusedDomainStatus, ReloadAnswer, RouteStatus,
    SessionTotals, Severity, Status, TopList, TopSource, XdpStatus,
};
pub use status_page::render;
#[cfg(test)]
pub(crate) use status_page::tests::status as sample_status;
pub use tables::{render_bans, render_sessions, render_top};
pub use tls::{BackendTlsStatus, TlsStatus, TlsTotals};
pub use upgrade::{ProgramId, UpgradeAnswer, own_unit};

/// Sources that `top` may ask for.
pub const TOP_MAX: usize = 1000;
/// How long a reload may take: backends that are new are asked first.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Sessions that `sessions` may ask for.
pub const SESSIONS_MAX: usize = 10_000;
/// Longest ban by hand.
pub const BAN_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
/// Longest reason of a ban in bytes.
pub const REASON_MAX: usize = 500;
/// Longest request line in bytes.
const REQUEST_MAX: usize = 4096;
/// Longest request line in bytes of whoever may hand a certificate over: two PEM files of a size that any has.
const RENEWAL_MAX: usize = 3 << 20;
