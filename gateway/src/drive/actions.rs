//! What the core asks for besides bytes: connections, names, counters, the log, verdicts.

use tracing::Span;

use crate::observe::counters;
use crate::observe::handshakes::HandshakeFault;
use crate::observe::log::{self, MessageRecord};
use crate::observe::refusals::RefusalCause;
use crate::observe::routes::{self, RouteTally};
use crate::policy::offences::Offence;
use crate::session::{Action, End, MessageOutcome, MessageReport, NotTaken, Refused};
use crate::time::clock::now;

use super::closing::Closing;
use super::task::SessionTask;
use super::worker::Worker;

impl SessionTask {
    pub(super) fn act(&mut self, action: Action) {
        let Worker { counters, .. } = &*self.worker;
        match action {
            Action::Dial => {
                self.attempts = None;
                self.dial();
            }
            Action::DialAnother(blame) => {
                self.server().opening_failed(blame);
                self.dial();
            }
            Action::DialInstead => {
                counters.failovers_total.increment();
                self.dial_instead();
            }
            Action::DialAgain => self.dial_again(),
            Action::Ask(ticket, question) => {
                self.questions.ask(&self.worker, self.session.client_addr(), ticket, question);
            }
            Action::CloseBackend => self.close_backend(),
            Action::CloseClient => {
                self.closing = Closing::begin();
                if let Some(cause) = self.session.end().and_then(cause_of) {
                    counters.refusals_total.increment(cause);
                }
                if self.session.end() == Some(End::TlsTimeout) {
                    self.count_fault(HandshakeFault::TimedOut);
                }
            }
            Action::Message(report) => self.message_over(&report),
            Action::Login(report) => self.login_over(&report),
            Action::Refused(refused) => self.count_refused(&refused),
            Action::NotTaken(route, why) => {
                if let Some(tally) = self.tally(route.place()) {
                    tally.not_taken.increment(why_not_taken(why));
                }
            }
            Action::Offence(offence) => self.charge(offence),
            Action::IdentityFailed(fault) => {
                counters.identity_failures_total.increment();
                self.server().identity_refused(&fault.to_string());
            }
            // Done where what precedes it is written.
            Action::SecureClient(nothing) => self.secure_client(nothing),
            Action::BackendTlsFailed(why) => self.server().tls_failed(&why),
            Action::BackendInClearText(why) => {
                counters.backend_clear_text_total.increment();
                self.server().spoken_to_in_clear_text(&why);
            }
            Action::SecureBackend(nothing) => {
                let server = self.server().clone();
                self.backend.secure(nothing, server);
            }
            Action::BackendBusy { code, text, knows_client } => self.server().turned_away(code, &text, knows_client),
            Action::IdentityDoubted => self.server().identity_doubted(),
            Action::IdentityAccepted => {
                self.server().identity_accepted();
                if let Some(connection) = self.backend.connection() {
                    counters.identity_seconds.observe(connection.since_greeting(now()));
                }
            }
            Action::AskServer | Action::DialectStale => self.server().ask_refresh(),
        }
    }

    fn count_refused(&self, refused: &Refused) {
        let Worker { counters, verdicts, .. } = &*self.worker;
        let cause = match refused {
            Refused::Relay(domain) => {
                counters.relay_denied_total.increment();
                verdicts.count_refused_domain(domain, now());
                RefusalCause::Relay
            }
            Refused::EarlyTalk => {
                counters.early_talkers_total.increment();
                RefusalCause::EarlyTalk
            }
            Refused::ProxyHeader => RefusalCause::UnexpectedProxyHeader,
            Refused::TlsUnasked => return self.count_fault(HandshakeFault::HelloInClear),
            Refused::TooManyHandshakes => return self.count_fault(HandshakeFault::TooMany),
        };
        self.worker.refused(cause, self.session.client_addr().ip());
    }

    /// Counts a message, tells the log of it, and the verdicts if it was delivered.
    fn message_over(&mut self, report: &MessageReport) {
        let span = self.spans.as_mut().map(|spans| spans.end_message(report));
        let _entered = span.map(Span::entered);
        let Worker { counters, verdicts, .. } = &*self.worker;
        let outcome = match report.outcome {
            MessageOutcome::Accepted => counters::MessageOutcome::Accepted,
            MessageOutcome::Rejected => counters::MessageOutcome::Rejected,
            MessageOutcome::Deferred => counters::MessageOutcome::Deferred,
            MessageOutcome::Aborted => counters::MessageOutcome::Aborted,
        };
        let verdict_ms = report.answered.since(report.ended);
        counters.messages_total.increment(outcome);
        let tally = self.tally(report.route.place());
        if let Some(tally) = tally {
            tally.messages.increment(outcome);
        }
        counters.message_bytes.observe(report.size);
        if outcome != counters::MessageOutcome::Aborted {
            counters.verdict_seconds.observe(verdict_ms);
        }
        if outcome == counters::MessageOutcome::Accepted {
            verdicts.credit(self.session.client_addr(), true, now());
            if self.client.tls.is_some() {
                counters.tls_messages_total.increment();
            }
        }
        log::message_done(&MessageRecord {
            session: self.id,
            client: self.session.client_addr(),
            helo: self.session.hello(),
            route: tally.map(RouteTally::name),
            backend: self.server_name(),
            mailboxes: self.worker.log_mailboxes,
            from: report.from.as_deref().unwrap_or_default(),
            recipients: &report.recipients,
            recipients_accepted: report.recipients_accepted,
            size: report.size,
            message_id: report.message_id.as_deref(),
            header_from: report.header_from.as_deref(),
            outcome,
            code: report.code,
            reply: &report.reply,
            transfer_ms: report.ended.since(report.started),
            verdict_ms,
        });
    }

    fn charge(&self, offence: Offence) {
        self.worker.verdicts.charge(self.session.client_addr(), self.peer(), offence, now());
    }
}

fn why_not_taken(why: NotTaken) -> routes::NotTaken {
    match why {
        NotTaken::Refused => routes::NotTaken::Refused,
        NotTaken::Parted => routes::NotTaken::Parted,
        NotTaken::Held => routes::NotTaken::Held,
        NotTaken::Unavailable => routes::NotTaken::Unavailable,
    }
}

/// What the gateway refused to go on with, if it was the gateway that ended the session for what its client did.
fn cause_of(end: End) -> Option<RefusalCause> {
    match end {
        End::TooManyErrors | End::TooManyCommands | End::AnotherProtocol => Some(RefusalCause::Errors),
        End::TooManyPasswords => Some(RefusalCause::Logins),
        End::Flood => Some(RefusalCause::Flood),
        End::ClientTimeout | End::ClientTooSlow => Some(RefusalCause::Timeout),
        _ => None,
    }
}
