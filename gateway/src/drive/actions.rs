//! What the core asks for besides bytes: connections, names, counters, the log, verdicts.

use crate::observe::log;
use crate::policy::offences::Offence;
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
                if let Some(offence) = self.session.offence_at_end() {
                    self.charge(offence);
                }
            }
            Action::Message(report) => {
                match report.outcome {
                    MessageOutcome::Accepted => {
                        counters.messages_accepted_total.increment();
                        self.worker.verdicts.credit(self.session.client_addr(), true, now());
                    }
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
            Action::RelayDenied(domain) => {
                counters.relay_denied_total.increment();
                self.worker.verdicts.count_refused_domain(&domain, now());
            }
            Action::EarlyTalk => {
                counters.early_talkers_total.increment();
                self.charge(Offence::EarlyTalk);
            }
            Action::Offence(offence) => self.charge(offence),
            Action::IdentityFailed(why) => {
                counters.identity_failures_total.increment();
                backend.identity_refused(why);
            }
            Action::IdentityDoubted => backend.identity_doubted(),
            Action::IdentityAccepted => backend.identity_accepted(),
            Action::DialectStale => backend.ask_refresh(),
        }
    }

    fn charge(&self, offence: Offence) {
        self.worker.verdicts.charge(self.session.client_addr(), self.peer, offence, now());
    }
}
