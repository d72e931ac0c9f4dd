//! What comes out of a session: bytes for either side, and what its driver shall do.

use std::ops::Range;

use crate::opening::IdentityFault;
use crate::policy::offences::Offence;
use crate::route::RouteId;
use crate::smtp::starttls::NothingBuffered;

use super::question::{Question, Ticket};
use super::report::{LoginReport, MessageReport};

/// What the driver shall do, in order, after it has written what [`Output`] holds.
#[derive(Debug)]
pub enum Action {
    /// Connect to the backend, then call [`Session::backend_connected`](super::Session::backend_connected) or [`Session::backend_unreachable`](super::Session::backend_unreachable).
    Dial,
    /// The backend's session did not open with the server that was connected to: connect to another, if there is one, then
    /// call the same.
    DialAnother(Blame),
    /// The session with the server was open, and is lost: connect to another, or to the same if there is none, then call the
    /// same.
    DialInstead,
    /// The server is silent for a while: find out whether it answers others, for [`Session::tick`](super::Session::tick).
    AskServer,
    /// Give the connection up, and connect to the same server once more.
    DialAgain,
    /// Begin TLS with the client, once what is left for it was written, then call [`Session::client_secured`](super::Session::client_secured) or
    /// [`Session::client_not_secured`](super::Session::client_not_secured).
    SecureClient(NothingBuffered),
    /// Find this out, then call [`Session::answer`](super::Session::answer) with the same ticket.
    Ask(Ticket, Question),
    /// Close the backend's connection; what was written before may still be delivered.
    CloseBackend,
    /// Write what is left for the client, then close its connection.
    CloseClient,
    /// A message is over, one way or another: for the log and the counters.
    Message(Box<MessageReport>),
    /// An exchange of AUTH is over: for the log, the counters and the client's reputation.
    Login(Box<LoginReport>),
    /// The gateway refused a client for this: for the counters and the log.
    Refused(Refused),
    /// A recipient was not taken, where a listener leads to several backends: for the counters.
    NotTaken(RouteId, NotTaken),
    /// A client did something that speaks against it.
    Offence(Offence),
    /// Begin TLS with the backend once what was written before has left, then call [`Session::backend_secured`](super::Session::backend_secured) or
    /// [`Session::backend_not_secured`](super::Session::backend_not_secured).
    SecureBackend(NothingBuffered),
    /// The backend is busy: it said so, with this code and text; perhaps of the client alone, where it knows of one.
    BackendBusy {
        /// Of its reply.
        code: u16,
        /// The same.
        text: String,
        /// Whether it was told of the client before.
        knows_client: bool,
    },
    /// The backend did not accept the client's identity, or does not know how to: what an administrator must mend.
    IdentityFailed(IdentityFault),
    /// The backend cannot be spoken to over TLS, which it must be: what an administrator must mend.
    BackendTlsFailed(String),
    /// TLS with the backend failed, for this reason; its session goes on in clear text, on another connection.
    BackendInClearText(String),
    /// The backend took the client's identity, and offers it XCLIENT as if it had not.
    IdentityDoubted,
    /// The backend took the client's identity, and its session is open.
    IdentityAccepted,
    /// The backend's session does not offer what clients were told: learn it anew.
    DialectStale,
}

/// Whose fault it is that a session did not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// Perhaps the client's, or it was told already.
    Nobody,
    /// The server said that it is busy.
    Busy,
    /// The server did not greet as a mail server does.
    Server,
}

/// Why a recipient was not taken, by whom its route leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTaken {
    /// The backend said so.
    Refused,
    /// It is to come in a message of its own.
    Parted,
    /// The backend is held.
    Held,
    /// The backend could not be asked.
    Unavailable,
}

/// Why a client was refused, where the reply alone does not say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// By the relay guard: a recipient in this domain.
    Relay(Box<str>),
    /// It talked before it was asked.
    EarlyTalk,
    /// A PROXY header came where none is taken: perhaps a load balancer's that is not listed. No offence.
    ProxyHeader,
    /// A TLS handshake began where a command was due. No offence.
    TlsUnasked,
    /// It has begun as many TLS handshakes lately as it may. No offence.
    TooManyHandshakes,
}

/// What one call produced. The driver owns it, empties it by writing, and hands it in again.
#[derive(Debug, Default)]
pub struct Output {
    /// Bytes for the client.
    pub to_client: Vec<u8>,
    /// Bytes for the backend; they precede the forwarded range of the same call.
    pub to_backend: Vec<u8>,
    /// In order.
    pub actions: Vec<Action>,
    /// Secrets came in: whoever read them wipes what it read them into, and what was made of them.
    pub secret: bool,
    /// While somebody follows the client: its command lines, as they came, one behind the other.
    pub heard: Option<Vec<u8>>,
}

/// How much of the client's bytes a call used up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Taken {
    /// Bytes consumed from the head of the input. The rest must be handed in again, with more behind it.
    pub used: usize,
    /// Part of the consumed input that goes to the backend as it now stands in the buffer, behind `to_backend`.
    pub forward: Range<usize>,
}
