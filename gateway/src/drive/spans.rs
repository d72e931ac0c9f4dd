//! What lines of the log belong to: a span for each session, and one for each of its messages. Rooms that know no session
//! (`backend`, `identity`, `tls`) speak within them when a session has them do something.
//!
//! At DEBUG, for a span that is entered costs a lock and some counters at every poll, which at INFO would be more than one
//! part in a hundred of a small message; and lines at INFO name their session themselves. Where the level is off, a session
//! asks once, and keeps an empty pointer.

use std::net::SocketAddr;

use tracing::span::EnteredSpan;
use tracing::{Span, debug_span, field};

use crate::identity::ClientAddr;
use crate::session::{MessageReport, Session};
use crate::smtp::queue_id::queue_id;

/// A session's spans.
pub(super) struct Spans {
    session: Span,
    /// From MAIL to the verdict.
    message: Option<Span>,
}

impl Spans {
    /// `None` where nobody would see them.
    pub(super) fn new(id: u64, client: ClientAddr, listener: SocketAddr) -> Option<Box<Self>> {
        let session = debug_span!("session", id, %client, %listener);
        (!session.is_disabled()).then(|| Box::new(Self { session, message: None }))
    }

    /// Enters the span of what the session is doing, until what is returned is dropped.
    pub(super) fn enter(&mut self, session: &Session) -> EnteredSpan {
        if self.message.is_none() && session.has_message() {
            let span =
                debug_span!(parent: &self.session, "message", queue_id = field::Empty, message_id = field::Empty);
            self.message = Some(span);
        }
        self.message.as_ref().unwrap_or(&self.session).clone().entered()
    }

    /// The message is over. Its span, which now knows what the message is called here and there.
    pub(super) fn end_message(&mut self, report: &MessageReport) -> Span {
        let span = self.message.take().unwrap_or_else(|| self.session.clone());
        if let Some(id) = queue_id(&report.reply) {
            span.record("queue_id", id);
        }
        if let Some(id) = &report.message_id {
            span.record("message_id", id.as_str());
        }
        span
    }
}
