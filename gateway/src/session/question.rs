//! Questions that a session puts to whoever can wait for an answer: the one way in which it waits for anything but its
//! client and its backend.
//!
//! A question has a ticket, and the answer comes back with it: one that comes too late, or to a question that was dropped,
//! finds nobody and changes nothing. Each has a deadline of its own, past which the session goes on without: a look-up may
//! delay a client, but never hold it. Who drops a session drops its questions.

use crate::identity::xclient::ClientName;
use crate::smtp::reply::EnhancedCode;

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
