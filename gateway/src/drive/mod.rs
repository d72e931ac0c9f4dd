//! The only async session code: sockets and timers, doing what the session core says.
//!
//! A session is one task on the worker that accepted it, one hand-written future: it owns two sockets and the core, and
//! holds a buffer only while bytes are in flight. Reads go through a scratch buffer of the worker; what the core leaves
//! over, or a socket does not take, is kept in a buffer of exactly that need. This room knows when bytes may move, and
//! nothing of what they mean.
//!
//! Invariant: no byte goes from one socket to the other but through the core.

mod actions;
mod backend_side;
mod buffers;
mod client_side;
mod client_tls;
mod closing;
mod dialing;
mod encrypted;
mod heed;
mod held;
mod holding;
mod last_words;
mod logins;
mod questions;
mod roll;
mod sending;
mod serve;
mod shown;
mod spans;
mod task;
mod timer;
mod turns;
mod worker;

pub use roll::{Roll, SessionLine, SessionQuery, ask_sessions};
pub use worker::{Alarm, ClientTls, Drain, DrainState, Shortage, Worker, wake_sessions};

pub(crate) use serve::{Balancer, serve_direct, serve_proxied};
