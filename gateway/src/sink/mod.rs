//! The sink: a small backend for development, tests and measurements. It takes mail, says who it believes the client is,
//! and throws the mail away or keeps it in a Maildir.
//!
//! It is the independent other side of the gateway, so it must not know the gateway: it shares no code with [`session`],
//! [`smtp`], [`identity`] or [`policy`], and reads SMTP, XCLIENT and the PROXY protocol a second time, strictly. A fault in
//! a shared codec would otherwise agree with itself. Where servers differ it does as Postfix does. It also errs on demand,
//! by [`Fault`]s, because a gateway is judged by what it makes of a backend that fails.
//!
//! Shape: as many threads as asked, each with its own listener (`SO_REUSEPORT`) and runtime, because it is the backend of
//! the benches and must cost less than what it measures. `session` is the protocol without I/O, `connection` drives it.
//!
//! [`session`]: crate::session
//! [`smtp`]: crate::smtp
//! [`identity`]: crate::identity
//! [`policy`]: crate::policy

mod connection;
mod dots;
mod event;
mod fault;
mod maildir;
mod message;
mod options;
mod path;
mod proxy;
mod server;
mod session;
mod shared;
#[cfg(test)]
mod tests;
mod xclient;

pub use event::{By, Client, ClientName, Denied, Event, Message, Observer};
pub use fault::{Action, Fault, Point};
pub use message::digest;
pub use options::{Options, SinkIdentity, network};
pub use server::{Sink, Totals, start};
