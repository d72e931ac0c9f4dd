//! One SMTP session as a state machine without I/O: bytes and events with the time as an argument go in, bytes and
//! actions come out.
//!
//! The room knows SMTP and nothing else: no socket, no clock, no executor, so a whole session with a dying backend is a
//! text fixture that runs in microseconds. Two halves, joined by a queue of owed replies:
//!
//! - the **client half** (`client`; `commands`, `envelope`, `routed`, `body`, `chunk`, `starttls`, `auth`) reads commands and bodies, answers what is
//!   the gateway's to answer, and sends on what is the backend's;
//! - the **backend half** (`backend`; `handshake`, `replies`, `failover`) opens the backend's session with the client's identity,
//!   reads its replies, and opens another where a server is lost;
//! - the **pipeline** between them holds, in the client's order, every reply still owed to it.
//!
//! `machine` puts them together. The files that are named second do things with the session, those named first are what it
//! is made of and know nothing of it.
//!
//! Invariant: no positive reply of our own takes responsibility; those to recipients and messages exist only as the encoding of
//! a reply that was read from the backend.
//! Invariant: nothing of the client's reaches the backend before the identity was delivered and accepted.

mod action;
mod auth;
mod backend;
mod body;
mod chunk;
mod chunks;
mod client;
mod commands;
mod conduct;
mod deadlines;
mod end;
mod ending;
mod envelope;
mod exchange;
mod failover;
mod handshake;
mod kept_envelope;
mod machine;
mod message;
mod pipeline;
mod question;
mod replies;
mod report;
mod routed;
mod settings;
mod starttls;
mod trace_header;
mod transaction;
mod words;

pub use action::{Action, Blame, NotTaken, Output, Refused, Taken};
pub use backend::Connected;
pub use client::TlsOffer;
pub use deadlines::ServerSeen;
pub use end::End;
pub use machine::{Session, Start};
pub use question::{Answer, Question, RecipientVerdict, Ticket};
pub use report::{LoginOutcome, LoginReport, MessageOutcome, MessageReport, SessionTotals};
pub use settings::{Dialect, Settings, Sizes};
