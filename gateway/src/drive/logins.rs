//! An exchange of AUTH that is over: counters, the log, and what it says of the client's source.

use crate::observe::counters::{self, LoginMechanism};
use crate::observe::declare::Label as _;
use crate::observe::logins::{LoginRecord, login_over};
use crate::session::{LoginOutcome, LoginReport};
use crate::time::clock::now;

use super::task::SessionTask;
use super::worker::Worker;

fn counted(mechanism: &str) -> Option<LoginMechanism> {
    LoginMechanism::ALL.iter().copied().find(|counted| counted.as_str() == mechanism)
}

impl SessionTask {
    pub(super) fn login_over(&self, LoginReport { outcome, mechanism, login }: &LoginReport) {
        let Worker { counters, verdicts, log_mailboxes, .. } = &*self.worker;
        let client = self.session.client_addr();
        let name = login.as_ref().map(|login| login.name());
        match outcome {
            LoginOutcome::LoggedIn => {
                verdicts.credit(client, false, now());
                mechanism.names().filter_map(counted).for_each(|by| counters.login_mechanisms_total.increment(by));
            }
            LoginOutcome::WrongPassword => verdicts.charge_password(client, self.peer(), name, now()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::auth::Mechanisms;

    #[test]
    fn every_mechanism_that_is_relayed_is_counted() {
        let relayable = Mechanisms::all()
            - Mechanisms::named(b"SCRAM-SHA-1-PLUS")
            - Mechanisms::named(b"SCRAM-SHA-256-PLUS")
            - Mechanisms::named(b"SCRAM-SHA-512-PLUS");
        let uncounted: Vec<_> = relayable.names().filter(|name| counted(name).is_none()).collect();
        assert!(uncounted.is_empty() && relayable.names().count() == LoginMechanism::ALL.len(), "{uncounted:?}");
    }
}
