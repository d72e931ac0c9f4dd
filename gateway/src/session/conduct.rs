//! What a client has done so far, what it may still do, and what speaks against it.

use crate::config::Limits;
use crate::policy::budget::{Budget, Spent};
use crate::policy::offences::{Offence, SessionOffences};

use super::action::{Action, Output};
use super::end::End;
use super::report::{MessageOutcome, SessionTotals};

/// A client's account with this session. Every offence leaves the session here.
#[derive(Debug, Default)]
pub(super) struct Conduct {
    budget: Budget,
    offences: SessionOffences,
    passwords_refused: u8,
    totals: SessionTotals,
}

impl Conduct {
    pub(super) fn totals(&self) -> SessionTotals {
        self.totals
    }

    pub(super) fn has_brought_mail(&self) -> bool {
        self.totals.accepted > 0
    }

    /// The client did something that speaks against it.
    pub(super) fn offend(&mut self, offence: Offence, out: &mut Output) {
        if self.offences.counts(offence) {
            out.actions.push(Action::Offence(offence));
        }
    }

    /// The relay guard refused a recipient.
    pub(super) fn relay_denied(&mut self) {
        self.totals.relay_denied += 1;
    }

    /// The backend refused a recipient. Whoever brings mail may err; who brings none and tries names harvests.
    pub(super) fn unknown_recipient(&mut self, out: &mut Output) {
        self.totals.recipients_refused += 1;
        let refused = self.totals.recipients_refused;
        if self.totals.accepted == 0 && (refused == 1 || refused.is_multiple_of(5)) {
            self.offend(Offence::UnknownRecipients, out);
        }
    }

    /// The backend refused a password; what that says of the client's source depends on the name.
    pub(super) fn password_refused(&mut self, limits: &Limits) -> Spent {
        self.passwords_refused = self.passwords_refused.saturating_add(1);
        if u32::from(self.passwords_refused) < limits.auth_failures { Spent::Within } else { Spent::Exhausted }
    }

    /// A command was refused.
    pub(super) fn refused(&mut self, limits: &Limits) -> Spent {
        self.totals.errors += 1;
        self.budget.error(limits)
    }

    /// A command brought no mail nearer.
    pub(super) fn idle(&mut self, limits: &Limits) -> Spent {
        self.budget.idle_command(limits)
    }

    /// A transaction begins.
    pub(super) fn message_begins(&mut self, limits: &Limits) -> Spent {
        self.budget.message(limits)
    }

    /// A message was answered.
    pub(super) fn message_answered(&mut self, outcome: MessageOutcome) {
        self.totals.count(outcome);
        self.budget.message_done(outcome == MessageOutcome::Accepted);
    }

    /// The session ends: what the way it does says of the client. Early talk was reported when it was heard.
    pub(super) fn ends(&mut self, end: End, out: &mut Output) {
        match end {
            // Unknown recipients were counted as such.
            End::TooManyErrors if self.totals.recipients_refused <= self.totals.errors / 2 => {
                self.offend(Offence::TooManyErrors, out);
            }
            // Who has mail for us may have much of it.
            End::TooManyCommands if self.totals.accepted == 0 => self.offend(Offence::TooManyCommands, out),
            End::Flood => self.offend(Offence::Flood, out),
            _ => {}
        }
    }
}
