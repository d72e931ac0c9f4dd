//! An exchange of AUTH that is over: counters, the log, and what it says of the client's source.

use crate::observe::counters;
use crate::observe::logins::{LoginRecord, login_over};
use crate::session::{LoginOutcome, LoginReport};
use crate::time::clock::now;

use super::task::SessionTask;
use super::worker::Worker;

impl SessionTask {
    pub(super) fn login_over(&self, LoginReport { outcome, login }: &LoginReport) {
        let Worker { counters, verdicts, log_mailboxes, .. } = &*self.worker;
        let client = self.session.client_addr();
        let name = login.as_ref().map(|login| login.name());
        match outcome {
            LoginOutcome::LoggedIn => verdicts.credit(client, false, now()),
            LoginOutcome::WrongPassword => verdicts.charge_password(client, self.peer, name, now()),
            LoginOutcome::Refused | LoginOutcome::Unavailable | LoginOutcome::Cancelled => {}
        }
        let outcome = match outcome {
            LoginOutcome::LoggedIn => counters::LoginOutcome::LoggedIn,
            LoginOutcome::WrongPassword => counters::LoginOutcome::WrongPassword,
            LoginOutcome::Refused => counters::LoginOutcome::Refused,
            LoginOutcome::Unavailable => counters::LoginOutcome::Unavailable,
            LoginOutcome::Cancelled => counters::LoginOutcome::Cancelled,
        };
        counters.logins_total.increment(outcome);
        login_over(&LoginRecord {
            session: self.id,
            client,
            backend: self.server_name(),
            mailboxes: *log_mailboxes,
            name,
            outcome,
        });
    }
}
