//! What the core asks for besides bytes: connections, names, counters, the log, verdicts.

use crate::observe::log;
use crate::policy::reputation::Finding;
use crate::session::{Action, MessageOutcome};
use crate::time::clock::now;

use super::backend_side::BackendSide;
use super::closing::Closing;
use super::task::SessionTask;
use super::worker::Worker;

impl SessionTask {
    pub(super) fn act(&mut self, action: Action) {
        let Worker { backend, names, counters, .. } = &*self.worker;
        match action {
            Action::Dial => {
                let (backend, client) = (backend.clone(), self.session.client_addr());
                self.backend = BackendSide::dial(async move { backend.connect_for(client).await });
            }
            Action::LookUpName => {
                let (names, ip) = (names.clone(), self.session.client_addr().ip());
                self.name = Some(Box::pin(async move { names.look_up(ip).await }));
            }
            Action::CloseBackend => self.backend = BackendSide::None,
            Action::CloseClient => {
                self.closing = Closing::begin();
                if let Some(finding) = self.session.finding_at_end() {
                    self.report(finding);
                }
            }
            Action::Message(report) => {
                match report.outcome {
                    MessageOutcome::Accepted => counters.messages_accepted_total.increment(),
                    MessageOutcome::Rejected => counters.messages_rejected_total.increment(),
                    MessageOutcome::Deferred | MessageOutcome::Aborted => counters.messages_deferred_total.increment(),
                }
                let client = self.session.client_addr();
                log::message_done(
                    self.id,
                    client,
                    self.session.hello(),
                    &backend.name,
                    self.worker.log_mailboxes,
                    &report,
                );
            }
            Action::RelayDenied => {
                counters.relay_denied_total.increment();
                self.report(Finding::RelayAttempt);
            }
            Action::EarlyTalk => {
                counters.early_talkers_total.increment();
                self.report(Finding::EarlyTalk);
            }
            Action::Finding(finding) => self.report(finding),
            Action::IdentityFailed(fault) => {
                counters.identity_failures_total.increment();
                backend.identity_refused(&fault.to_string());
            }
            Action::BackendTlsFailed(why) => backend.tls_failed(&why),
            Action::SecureBackend(nothing) => self.backend.secure(nothing),
            Action::IdentityDoubted => backend.identity_doubted(),
            Action::IdentityAccepted => backend.identity_accepted(),
            Action::DialectStale => backend.ask_refresh(),
        }
    }

    fn report(&self, finding: Finding) {
        self.worker.verdicts.report(self.session.client_addr(), self.peer, finding, now());
    }
}
