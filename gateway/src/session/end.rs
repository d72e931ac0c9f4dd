//! How a session ends, and the words said at the end.

use crate::policy::offences::Offence;
use crate::smtp::reply::{EnhancedCode, encode_reply};
use crate::time::Millis;

use super::handshake::Backend;
use super::pipeline::{Expect, Owed};
use super::question::Wait;
use super::report::MessageOutcome;
use super::transaction::Transaction;
use super::{Action, Client, Output, Session};

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The client said QUIT.
    Quit,
    /// The client closed without QUIT, between commands.
    ClientClosed,
    /// The client closed inside a message.
    ClientLost,
    /// The client let a deadline pass.
    ClientTimeout,
    /// The client sent less than the minimum rate.
    ClientTooSlow,
    /// Too many refused commands.
    TooManyErrors,
    /// Too many commands without mail, or too many messages.
    TooManyCommands,
    /// The client talked before it was asked.
    EarlyTalk,
    /// A PROXY header came where none is taken.
    ProxyHeader,
    /// The client went on sending far past a limit.
    Flood,
    /// The backend went away or fell silent while nothing was owed.
    BackendLost,
    /// The backend answered 421.
    BackendClosing,
    /// The gateway is going down.
    Drained,
    /// An administrator ended it.
    Killed,
}

impl End {
    /// For the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Quit => "quit",
            Self::ClientClosed => "client closed",
            Self::ClientLost => "client lost in message",
            Self::ClientTimeout => "client timeout",
            Self::ClientTooSlow => "client too slow",
            Self::TooManyErrors => "too many errors",
            Self::TooManyCommands => "too many commands",
            Self::EarlyTalk => "early talk",
            Self::ProxyHeader => "PROXY header",
            Self::Flood => "flood",
            Self::BackendLost => "backend lost",
            Self::BackendClosing => "backend closing",
            Self::Drained => "drained",
            Self::Killed => "ended by an administrator",
        }
    }
}

/// A reply of the gateway's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Words(pub(super) u16, pub(super) EnhancedCode, pub(super) &'static str);

impl Words {
    pub(super) fn encode(self, out: &mut Vec<u8>) {
        let Self(code, enhanced, text) = self;
        encode_reply(code, Some(enhanced), text, out);
    }
}

impl Session {
    /// What the way the session ended says of its client. Early talk was reported when it was heard.
    pub fn offence_at_end(&self) -> Option<Offence> {
        match self.end? {
            // Unknown recipients were counted as such.
            End::TooManyErrors if self.totals.recipients_refused <= self.totals.errors / 2 => {
                Some(Offence::TooManyErrors)
            }
            // Who has mail for us may have much of it.
            End::TooManyCommands if self.totals.accepted == 0 => Some(Offence::TooManyCommands),
            End::Flood => Some(Offence::Flood),
            _ => None,
        }
    }

    /// The client did something that speaks against it.
    pub(super) fn offend(&mut self, offence: Offence, out: &mut Output) {
        if self.offences.counts(offence) {
            out.actions.push(Action::Offence(offence));
        }
    }

    /// The backend refused a recipient. Whoever brings mail may err; who brings none and tries names harvests.
    pub(super) fn count_unknown_recipient(&mut self, out: &mut Output) {
        self.totals.recipients_refused += 1;
        let refused = self.totals.recipients_refused;
        if self.totals.accepted == 0 && (refused == 1 || refused.is_multiple_of(5)) {
            self.offend(Offence::UnknownRecipients, out);
        }
    }

    /// The client said that it sends no more, or its connection broke (`gone`: nothing can be written to it either).
    pub fn client_closed(&mut self, now: Millis, gone: bool, out: &mut Output) {
        self.flags.half_closed = true;
        self.flags.gone |= gone;
        match &self.client {
            Client::Closed | Client::Ending(..) => {}
            Client::Commands { .. } if self.backend_owes() && (!gone || self.pipeline.owes_message()) => {}
            Client::Greeting(_) | Client::Commands { .. } => self.finish(End::ClientClosed, out),
            Client::AwaitGoAhead { .. } | Client::Data(_) | Client::Chunk(_) => {
                self.abort_message(now, out);
                // Nor may the backend go on waiting for what follows DATA.
                self.drop_backend(out);
                self.finish(End::ClientLost, out);
            }
        }
    }

    /// Lets go of clients that nothing is owed to any more: those that are half closed, and all of them when draining.
    pub(super) fn settle_end(&mut self, out: &mut Output) {
        if !self.pipeline.is_empty() || !matches!(self.client, Client::Commands { .. } | Client::Greeting(_)) {
            return;
        }
        if self.flags.half_closed {
            self.finish(End::ClientClosed, out);
        } else if self.flags.draining && !matches!(self.transaction, Transaction::Open(_)) {
            self.finish_with(End::Drained, Words(421, EnhancedCode(4, 3, 2), "Going down for maintenance"), out);
        }
    }

    /// No further transaction begins; between transactions the session ends at once.
    pub fn drain(&mut self, out: &mut Output) {
        self.flags.draining = true;
        self.settle_end(out);
    }

    /// The grace time is over: whatever goes on is given up.
    pub fn drain_now(&mut self, now: Millis, out: &mut Output) {
        self.abort_message(now, out);
        self.drop_backend(out);
        self.finish_with(End::Drained, Words(421, EnhancedCode(4, 3, 2), "Going down for maintenance"), out);
    }

    /// An administrator ends it, whatever goes on.
    pub fn kill(&mut self, now: Millis, out: &mut Output) {
        self.abort_message(now, out);
        self.drop_backend(out);
        self.finish_with(End::Killed, Words(421, EnhancedCode(4, 3, 2), "Closed by the administrator"), out);
    }

    /// Says `words` behind what is owed and ends the session. A message whose verdict is owed is waited for, whatever its
    /// client did then: to be told anything else is to send it again.
    pub(super) fn finish_with(&mut self, end: End, words: Words, out: &mut Output) {
        let at_once = matches!(end, End::Drained | End::Killed);
        if self.pipeline.owes_message() && matches!(self.client, Client::Commands { .. }) && !at_once {
            self.client = Client::Ending(end, words);
        } else if !matches!(self.client, Client::Closed | Client::Ending(..)) || at_once {
            words.encode(&mut out.to_client);
            self.finish(end, out);
        }
    }

    /// Ends the session. A backend that is between commands is told QUIT, whose reply nobody waits for.
    pub(super) fn finish(&mut self, end: End, out: &mut Output) {
        if matches!(self.client, Client::Closed) {
            return;
        }
        // Inside a body, QUIT would be content.
        let between_commands = self.pipeline.is_empty() && matches!(self.client, Client::Commands { .. });
        self.client = Client::Closed;
        self.wait = Wait::Nothing;
        self.end = Some(end);
        self.report_unanswered(out);
        if between_commands && matches!(self.backend, Backend::Ready(_)) {
            out.to_backend.extend_from_slice(b"QUIT\r\n");
        }
        self.drop_backend(out);
        out.actions.push(Action::CloseClient);
    }

    /// Messages whose verdict will not be waited for, or whose last chunk did not come: the client was told nothing good of
    /// them.
    fn report_unanswered(&mut self, out: &mut Output) {
        let owed = self.pipeline.take().into_iter().filter_map(|owed| match owed {
            Owed::Backend(Expect::Message(report)) => Some(report),
            Owed::Backend(_) | Owed::Gateway(_) => None,
        });
        let owed = owed.map(|mut report| {
            report.reply = "verdict unknown".to_owned();
            report
        });
        for mut report in owed.chain(self.take_started_report()) {
            report.answered = report.ended;
            report.outcome = MessageOutcome::Aborted;
            out.actions.push(Action::Message(report));
        }
    }

    /// Closes the backend's connection, if there is one or will be one.
    pub(super) fn drop_backend(&mut self, out: &mut Output) {
        if !matches!(self.backend, Backend::None) {
            self.backend = Backend::None;
            out.actions.push(Action::CloseBackend);
        }
    }
}
