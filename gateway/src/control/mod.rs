//! The control socket: how a running gateway is asked what it is doing.
//!
//! One unix socket; a request is one line of JSON (`{"verb":"status"}`), the answer is one line of JSON, then the gateway
//! closes. Whoever asks is judged by the uid the kernel vouches for, not by the permissions of the file alone. This room
//! knows nothing of sessions: what it shows is a snapshot that it is given.

mod client;
mod server;
mod status;
mod table;

pub use client::{AskError, ask_status};
pub use server::{ControlSocket, SocketError};
pub use status::{
    BackendStatus, DialectStatus, ListenerStatus, MessageTotals, Proof, ProofState, ProofTotals, SessionTotals, Status,
    XdpMode, XdpStatus,
};
pub use table::render;

/// Longest request line in bytes.
const REQUEST_MAX: usize = 4096;
