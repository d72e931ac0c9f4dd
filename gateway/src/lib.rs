//! smtp-gateway: an SMTP gateway that tells the mail server behind it who the client is, and proves that it relays for
//! nobody.
//!
//! The library is the whole program; `main.rs` only turns arguments into an exit code. The rooms:
//!
//! | room | for | must not know |
//! | --- | --- | --- |
//! | [`time`] | milliseconds, the date, and the one clock | anything else |
//! | [`smtp`] | codecs: bytes to meaning and back | sessions, I/O, clocks |
//! | [`session`] | the state machines of one session | I/O, clocks, executors |
//! | [`policy`] | decisions: relay guard, loops, budgets, reputation, bans | I/O, clocks |
//! | [`identity`] | who the client is, and how the backend is told | SMTP transactions |
//! | [`drive`] | sockets and timers; does what `session` says | what SMTP means |
//! | [`accept`] | listeners, admission, drain | what is said on a connection |
//! | [`backend`] | addresses, health, learned dialect | clients |
//! | [`verdicts`] | findings to bans, and who is let in | sockets, sessions |
//! | [`tls`] | TLS on both sides, certificates; the one room that names rustls | SMTP, who asks |
//! | [`config`] | files to checked values, every fault at once | how values are used |
//! | [`proof`] | the relay self-test: plan, run, judge, report | who started it |
//! | [`control`] | the unix socket and its verbs | sessions |
//! | [`kernel`] | the XDP program: attach it, configure it, reach its maps | SMTP, why somebody is banned |
//! | [`observe`] | numbers, log and events, each name declared once | decisions, sessions |
//! | [`metrics`] | the HTTP listener: numbers for monitoring, the page | how a number comes about |
//! | [`service`] | the parts put together, in order, and taken apart | what any part does |
//! | [`cli`] | arguments to exit codes | everything else's inside |
//! | [`sink`] | a small development backend | the gateway |

pub mod accept;
pub mod backend;
pub mod cli;
pub mod config;
pub mod control;
pub mod drive;
pub mod identity;
pub mod kernel;
pub mod metrics;
pub mod observe;
pub mod policy;
pub mod proof;
pub mod service;
pub mod session;
pub mod sink;
pub mod smtp;
pub mod time;
pub mod tls;
pub mod verdicts;
