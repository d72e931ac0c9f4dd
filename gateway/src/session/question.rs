//! Questions that a session puts to whoever can wait for an answer: the one way in which it waits for anything but its
//! client and its backend.
//!
//! A question has a ticket, and the answer comes back with it: one that comes too late, or to a question that was dropped,
//! finds nobody and changes nothing. Each has a deadline of its own, past which the session goes on without: a look-up may
//! delay a client, but never hold it. Who drops a session drops its questions.

use crate::identity::xclient::ClientName;
use crate::smtp::reply::EnhancedCode;
use crate::time::Millis;

/// What an answer is to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(u32);

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// The client's name; the answer is [`Answer::ClientName`].
    ClientName,
    /// Whether mail from the client is taken for this recipient; the answer is [`Answer::Recipient`].
    Recipient(Box<str>),
}

/// What was found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To [`Question::ClientName`].
    ClientName(ClientName),
    /// To [`Question::Recipient`].
    Recipient(RecipientVerdict),
}

/// Whether a recipient is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecipientVerdict {
    /// It goes to the backend, whose word is the last.
    Pass,
    /// The client gets this.
    Refuse {
        /// 4xx or 5xx.
        code: u16,
        /// Of the same class.
        enhanced: EnhancedCode,
        /// For people.
        text: Box<str>,
    },
}

/// The numbers of one session's questions.
#[derive(Debug, Default)]
pub(super) struct Tickets(u32);

impl Tickets {
    /// One that no other question of this session has.
    pub(super) fn next(&mut self) -> Ticket {
        self.0 = self.0.wrapping_add(1);
        Ticket(self.0)
    }
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
