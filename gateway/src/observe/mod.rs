//! What the gateway says about itself: numbers, log, events. Each name is declared once, here, and whoever shows it (status,
//! metrics, page, live view) reads it from here.
//!
//! Nothing here decides anything, and nothing here makes mail wait: numbers are relaxed atomics of one set a worker, lines
//! and events go into bounded queues that lose what does not fit, and count it.
//!
//! Must not know: sessions, sockets of clients, decisions. Whoever has something to tell hands in records of this room's own.
//!
//! Invariant: no address, domain or mailbox is ever a label of a number.

pub mod counters;
pub mod counts;
pub mod declare;
pub mod events;
pub mod gauges;
pub mod handshakes;
pub mod log;
pub mod logins;
pub mod numbers;
mod outcome;
pub mod recent;
pub mod refusals;
pub mod routes;
pub mod show;
pub mod table;
pub mod trace;
mod writer;
