//! What the log is told of a message and of a session.

use crate::route::RouteId;
use crate::smtp::auth::{Login, Mechanisms};
use crate::time::Millis;

/// How a message ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageOutcome {
    /// The backend answered 2xx to the end of data.
    Accepted,
    /// 5xx, the backend's or the gateway's.
    Rejected,
    /// 4xx, the backend's or the gateway's.
    Deferred,
    /// The client went away before the end of data.
    Aborted,
}

/// One message, from MAIL to its last reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageReport {
    /// Reverse-path as given, without brackets; empty for `<>`. `None` unless envelopes are recorded.
    pub from: Option<Box<str>>,
    /// First recipients accepted by the guard, at most a few. Empty unless envelopes are recorded.
    pub recipients: Vec<Box<str>>,
    /// Recipients the backend accepted.
    pub recipients_accepted: u32,
    /// By which route it went.
    pub route: RouteId,
    /// Content octets read from the client.
    pub size: u64,
    /// From the header.
    pub message_id: Option<String>,
    /// From the header: the address only.
    pub header_from: Option<String>,
    /// How it ended.
    pub outcome: MessageOutcome,
    /// Code of the reply the client got; 0 if none.
    pub code: u16,
    /// First line of that reply.
    pub reply: String,
    /// When MAIL came.
    pub started: Millis,
    /// When the last octet came.
    pub ended: Millis,
    /// When the reply came.
    pub answered: Millis,
}

impl MessageReport {
    pub(super) fn new(started: Millis) -> Self {
        Self {
            from: None,
            recipients: Vec::new(),
            recipients_accepted: 0,
            route: RouteId::NONE,
            size: 0,
            message_id: None,
            header_from: None,
            outcome: MessageOutcome::Aborted,
            code: 0,
            reply: String::new(),
            started,
            ended: started,
            answered: started,
        }
    }

    /// Files the reply, and what it makes of the message.
    pub(super) fn answer(&mut self, code: u16, text: &str, now: Millis) {
        self.code = code;
        self.reply = text.chars().take(200).collect();
        self.answered = now;
        self.outcome = match code / 100 {
            2 => MessageOutcome::Accepted,
            5 => MessageOutcome::Rejected,
            _ => MessageOutcome::Deferred,
        };
    }
}

/// How an exchange of AUTH ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginOutcome {
    /// 235: the backend knows the client.
    LoggedIn,
    /// 535: it does not.
    WrongPassword,
    /// Another 5xx of the backend's, which says nothing about the password.
    Refused,
    /// 4xx, or no answer that can be used.
    Unavailable,
    /// The client broke it off, or could not be understood.
    Cancelled,
}

/// One exchange of AUTH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginReport {
    /// How it ended.
    pub outcome: LoginOutcome,
    /// By which mechanism.
    pub mechanism: Mechanisms,
    /// Who the client said that it is.
    pub login: Option<Login>,
}

/// Numbers of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SessionTotals {
    /// Messages the backend accepted.
    pub accepted: u32,
    /// Messages refused for good.
    pub rejected: u32,
    /// Messages answered 4xx.
    pub deferred: u32,
    /// Recipients refused by the relay guard.
    pub relay_denied: u32,
    /// Recipients refused by the backend.
    pub recipients_refused: u32,
    /// Commands the gateway refused.
    pub errors: u32,
}

impl SessionTotals {
    pub(super) fn count(&mut self, outcome: MessageOutcome) {
        match outcome {
            MessageOutcome::Accepted => self.accepted += 1,
            MessageOutcome::Rejected => self.rejected += 1,
            MessageOutcome::Deferred => self.deferred += 1,
            MessageOutcome::Aborted => {}
        }
    }
}
