//! smtp-gateway: an SMTP gateway that tells the mail server behind it who the client is, and proves that it relays for
//! nobody.
//!
//! The library is the whole program; `main.rs` only turns arguments into an exit code. This table of its rooms is law: tests
//! (`house/`) read it, every `use` and every path, and fail on an arrow that is not in it, and on any circle.
//!
//! | room | for | may name | must not know |
//! | --- | --- | --- | --- |
//! | [`time`] | milliseconds, the date, and the one clock | nobody | anything else |
//! | [`smtp`] | codecs: bytes to meaning and back | nobody | sessions, I/O, clocks |
//! | [`session`] | the state machines of one session | config, identity, opening, policy, route, smtp, time | I/O, clocks, executors |
//! | [`route`] | who sends what to whom, to one of a listener's backends | config, smtp | sessions, I/O, clocks |
//! | [`opening`] | from a connection to a backend's open session: TLS, identity, hello | config, identity, smtp | clocks, who drives it |
//! | [`policy`] | decisions: relay guard, loops, budgets, reputation, bans | config, identity, smtp, time | I/O, clocks |
//! | [`identity`] | who the client is, and how the backend is told | config, smtp | SMTP transactions |
//! | [`drive`] | sockets and timers; does what `session` says | backend, config, identity, observe, policy, session, smtp, time, tls, verdicts | what SMTP means |
//! | [`accept`] | listeners, admission, drain | backend, config, drive, identity, observe, policy, route, session, time, tls, verdicts | what is said on a connection |
//! | [`backend`] | addresses, health, learned dialect | config, identity, observe, opening, policy, session, smtp, time, tls | clients |
//! | [`verdicts`] | offences to bans, and who is let in | config, identity, observe, policy, time | sockets, sessions |
//! | [`tls`] | TLS on both sides, certificates; the one room that names rustls | nobody | SMTP, who asks |
//! | [`config`] | files to checked values, every fault at once | smtp | how values are used |
//! | [`proof`] | the relay self-test: plan, run, judge, report | accept, backend, config, identity, observe, opening, policy, route, session, smtp, time, tls, verdicts | who started it |
//! | [`control`] | the unix socket and its verbs | config, kernel, observe, proof, time | sessions |
//! | [`kernel`] | the XDP program: attach it, configure it, reach its maps | config, identity, policy, time, verdicts | SMTP, who deserves a ban |
//! | [`observe`] | numbers, log and events, each name declared once | config, identity, time | decisions, sessions |
//! | [`metrics`] | the HTTP listener: numbers for monitoring, the page | config, control, observe, time | how a number comes about |
//! | [`service`] | the parts put together, in order, and taken apart | accept, backend, config, control, drive, identity, kernel, metrics, observe, policy, proof, route, session, time, tls, verdicts | what any part does |
//! | [`cli`] | arguments to exit codes | config, control, identity, observe, proof, route, service, sink, time, tls | everything else's inside |
//! | [`sink`] | a small development backend | nobody | the gateway |

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
pub mod opening;
pub mod policy;
pub mod proof;
pub mod route;
pub mod service;
pub mod session;
pub mod sink;
pub mod smtp;
pub mod time;
pub mod tls;
pub mod verdicts;

#[cfg(test)]
mod house;
