//! The client's side of a session: what its next bytes mean, and what must come before they are taken.

use std::time::Duration;

use crate::config::Timeouts;
use crate::policy::relay_guard::Hold;
use crate::time::Millis;

use super::chunks::ChunkState;
use super::end::End;
use super::exchange::Exchange;
use super::message::DataState;
use super::question::Ticket;
use super::words::Words;

/// How long a client that has brought no mail may take for a command while places for sessions run out.
pub(super) const HURRIED_COMMAND: Duration = Duration::from_secs(30);

/// How long a client may be silent behind a line, or what looks like the end of its message, that ends in LF or CR but not in
/// CRLF: most that speak so wait for an answer.
pub(super) const UNENDED_WAIT: Duration = Duration::from_secs(5);

/// How a client may come to TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsOffer {
    /// Not at all.
    #[default]
    None,
    /// By STARTTLS (RFC 3207).
    StartTls,
    /// By STARTTLS, but later: it has begun as many handshakes lately as it may. It is not told to do without.
    StartTlsLater,
    /// From the first byte on (RFC 8314 section 3): it is greeted behind it.
    Implicit,
}

/// The client half.
#[derive(Debug)]
pub(super) struct ClientHalf {
    pub(super) state: Client,
    pub(super) hello: Option<Hello>,
    pub(super) wait: Wait,
    pub(super) tls: TlsOffer,
    /// TLS stands.
    pub(super) secured: bool,
    /// When its present phase must be over.
    pub(super) deadline: Millis,
    /// The client sent its last byte; what is owed is still delivered.
    pub(super) half_closed: bool,
    /// The client cannot be written to any more.
    pub(super) gone: bool,
    /// The gateway is going down: no further transaction begins.
    pub(super) draining: bool,
    /// What was read last of a command ends as no line does; if no more comes, that is said.
    pub(super) unended: bool,
    /// A line that is too long, and being skipped, is an AUTH.
    pub(super) skips_auth: bool,
    /// Places for sessions run out, so that slow ones must make room.
    pub(super) hurried: bool,
    /// All sessions together hold as much as they may: no message begins.
    pub(super) crammed: bool,
    /// What is restricted of what the backend gets, as of the bytes that were handed in last.
    pub(super) hold: Hold,
}

/// The client half's state: what its next bytes mean.
#[derive(Debug)]
pub(super) enum Client {
    /// The next bytes are commands. `skipping`: they still belong to a line that was too long.
    Commands { skipping: usize },
    /// DATA was sent on; nothing may come before the backend's 354. `early`: something did, and was let pass.
    AwaitGoAhead { early: bool },
    /// The next bytes are a message, dot-stuffed.
    Data(Box<DataState>),
    /// The next bytes are counted octets.
    Chunk(Box<ChunkState>),
    /// AUTH was sent on, or a response to a challenge; the next bytes are another, once the backend has asked for it.
    Auth(Box<Exchange>),
    /// TLS is being begun; the next bytes are its own.
    Securing,
    /// Nothing is read before the greeting, which is sent at this time; who talks before it talks too early.
    Greeting(Millis),
    /// Nothing more is read, but the verdict on a message is still owed; then these words end the session.
    Ending(End, Words),
    /// Nothing more is read.
    Closed,
}

impl ClientHalf {
    pub(super) fn new(tls: TlsOffer, timeouts: &Timeouts, now: Millis) -> Self {
        let (state, deadline) = match tls {
            TlsOffer::Implicit => (Client::Securing, timeouts.tls_handshake),
            TlsOffer::None | TlsOffer::StartTls | TlsOffer::StartTlsLater => {
                (Client::Commands { skipping: 0 }, timeouts.command)
            }
        };
        Self {
            state,
            hello: None,
            wait: Wait::Nothing,
            tls,
            secured: false,
            deadline: now.after(deadline),
            half_closed: false,
            gone: false,
            draining: false,
            unended: false,
            skips_auth: false,
            hurried: false,
            crammed: false,
            hold: Hold::None,
        }
    }
}

/// The name a client gave.
#[derive(Debug, Clone)]
pub(super) struct Hello {
    pub(super) name: Box<str>,
    pub(super) esmtp: bool,
}

/// What must come before the client's next command is taken.
#[derive(Debug, Default)]
pub(super) enum Wait {
    /// Nothing.
    #[default]
    Nothing,
    /// The backend, which owes replies or is not open yet.
    Backend,
    /// An answer about a recipient, whose reply comes next.
    Recipient(Box<Asked>),
}

/// A recipient that was asked about.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) ticket: Ticket,
    /// Until when; then it passes.
    pub(super) until: Millis,
    /// RCPT as the backend is to get it.
    pub(super) command: Vec<u8>,
}

impl Wait {
    pub(super) fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    /// The backend has spoken, or is gone.
    pub(super) fn end_for_backend(&mut self) {
        if let Self::Backend = self {
            *self = Self::Nothing;
        }
    }

    /// When whatever is waited for is waited for no longer.
    pub(super) fn until(&self) -> Option<Millis> {
        match self {
            Self::Recipient(asked) => Some(asked.until),
            Self::Nothing | Self::Backend => None,
        }
    }
}
