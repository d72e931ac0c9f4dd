//! How a session ends: what is owed is said first, and no mail is called refused whose verdict is still to come.

use crate::smtp::reply::EnhancedCode;
use crate::time::Millis;

use super::action::{Action, Output};
use super::backend::Backend;
use super::client::{Client, Wait};
use super::end::End;
use super::machine::Session;
use super::pipeline::{Expect, Owed};
use super::report::MessageOutcome;
use super::transaction::Transaction;
use super::words::Words;

impl Session {
    /// The client said that it sends no more, or its connection broke (`gone`: nothing can be written to it either).
    pub fn client_closed(&mut self, now: Millis, gone: bool, out: &mut Output) {
        self.client.half_closed = true;
        self.client.gone |= gone;
        match &self.client.state {
            Client::Closed | Client::Ending(..) => {}
            Client::Securing => self.finish(End::TlsFailed, out),
            Client::Commands { .. } | Client::Auth(_)
                if self.backend_owes() && (!gone || self.pipeline.owes_message()) => {}
            Client::Greeting(_) | Client::Commands { .. } | Client::Auth(_) => self.finish(End::ClientClosed, out),
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
        let waits = matches!(self.client.state, Client::Commands { .. } | Client::Auth(_) | Client::Greeting(_));
        if !self.pipeline.is_empty() || !waits {
            return;
        }
        if self.client.half_closed {
            self.finish(End::ClientClosed, out);
        } else if self.client.draining && !matches!(self.transaction, Transaction::Open(_)) {
            self.finish_with(End::Drained, Words(421, EnhancedCode(4, 3, 2), "Going down for maintenance"), out);
        }
    }

    /// No further transaction begins; between transactions the session ends at once.
    pub fn drain(&mut self, out: &mut Output) {
        self.client.draining = true;
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
        if self.pipeline.owes_message() && matches!(self.client.state, Client::Commands { .. }) && !at_once {
            self.client.state = Client::Ending(end, words);
        } else if !matches!(self.client.state, Client::Closed | Client::Ending(..)) || at_once {
            words.encode(&mut out.to_client);
            self.finish(end, out);
        }
    }

    /// Ends the session. A backend that is between commands is told QUIT, whose reply nobody waits for.
    pub(super) fn finish(&mut self, end: End, out: &mut Output) {
        if matches!(self.client.state, Client::Closed) {
            return;
        }
        // Inside a body, QUIT would be content.
        let between_commands = self.pipeline.is_empty() && matches!(self.client.state, Client::Commands { .. });
        self.client.state = Client::Closed;
        self.client.wait = Wait::Nothing;
        self.end = Some(end);
        self.conduct.ends(end, out);
        self.report_unanswered(out);
        if between_commands && matches!(self.backend.state, Backend::Ready(_)) {
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
        if !matches!(self.backend.state, Backend::None) {
            self.backend.state = Backend::None;
            out.actions.push(Action::CloseBackend);
        }
    }
}
