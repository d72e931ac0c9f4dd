//! What happens when time has passed: who waits for whom, for how long, and who is to blame then.

use std::time::Duration;

use crate::smtp::reply::EnhancedCode;
use crate::time::Millis;

use super::action::{Action, Output};
use super::backend::Backend;
use super::client::Client;
use super::end::End;
use super::machine::Session;
use super::question::RecipientVerdict;
use super::words::{UNENDED_LINE, Words};

const SILENT: Words = Words(451, EnhancedCode(4, 4, 2), "The mail server did not answer in time; try again later");

/// How its driver sees the backend's server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServerSeen {
    /// It takes no bytes, so the client cannot be blamed.
    pub stalled: bool,
    /// Others have found that it opens no sessions.
    pub down: bool,
    /// Somebody else waits for its first word too, and for longer than it is known to take.
    pub silent: bool,
}

impl Session {
    /// When [`Session::tick`] must be called at the latest.
    pub fn deadline(&self) -> Millis {
        let mut deadline = match (&self.client.state, self.client.wait.until()) {
            (Client::Greeting(until), _) => *until,
            (_, Some(until)) => until,
            _ if self.may_doubt() || self.awaited_by().is_some() => self.backend.deadline.min(self.backend.doubted_at),
            _ if self.backend_owes() => self.backend.deadline,
            _ => self.client.deadline,
        };
        if let Some(check) = self.rate_check_at()
            && !self.pipeline.awaits_replay()
        {
            deadline = deadline.min(check);
        }
        deadline
    }

    /// Whether an answer is awaited that another server may give instead.
    fn may_doubt(&self) -> bool {
        let is_in_envelope = matches!(self.client.state, Client::Commands { .. } | Client::AwaitGoAhead { .. });
        let is_ready = matches!(self.backend.state, Backend::Ready(_));
        is_in_envelope && is_ready && self.target().has_several && self.backend_owes() && !self.pipeline.owes_message()
    }

    /// Where the last server that there is to try opens its session: when it must have, if it answers nobody.
    fn awaited_by(&self) -> Option<Millis> {
        let Backend::Opening(held) = &self.backend.state else { return None };
        let connected = held.connected.as_ref().filter(|connected| connected.open_by.is_none())?;
        (!held.opening.awaits_name()).then_some(connected.answers_by)
    }

    /// A server that is slow is waited for, but not one that answers nobody, such as one that is frozen: when it is silent for a
    /// while, it is to be asked whether it is there.
    fn doubt(&mut self, now: Millis, seen: ServerSeen, out: &mut Output) {
        let awaited_by = self.awaited_by();
        if awaited_by.is_none() && !self.may_doubt() || now < self.backend.doubted_at {
            return;
        }
        self.backend.doubted_at = now.after(self.settings.timeouts.connect / 10);
        let was_asked = std::mem::replace(&mut self.backend.is_doubted, true);
        if let Some(answers_by) = awaited_by {
            if was_asked && seen.silent {
                self.backend_failed(now, SILENT, out);
                self.after_backend(now, out);
                return;
            }
            self.backend.doubted_at = self.backend.doubted_at.max(answers_by);
        } else if seen.down && self.fail_over(now, &SILENT.into(), out) {
            self.after_backend(now, out);
            return;
        }
        if !was_asked {
            out.actions.push(Action::AskServer);
        }
    }

    /// A server was connected to; it must have opened its session at this time if it answers nobody.
    pub(super) fn await_opening(&mut self, now: Millis, answers_by: Millis) {
        // Early enough for a check to show until then that nobody else is answered.
        let ahead = self.settings.timeouts.connect * 3 / 5;
        self.backend.doubted_at = answers_by.before(ahead).max(now);
        self.backend.is_doubted = false;
    }

    /// Gives the backend this long for its next reply.
    pub(super) fn give_backend(&mut self, now: Millis, span: Duration) {
        self.backend.deadline = now.after(span);
        // Early enough for a check to show before `connect` is over that nobody else is answered.
        self.backend.doubted_at = now.after(self.settings.timeouts.connect * 2 / 5);
        self.backend.is_doubted = false;
    }

    /// A deadline or rate check is due.
    pub fn tick(&mut self, now: Millis, seen: ServerSeen, out: &mut Output) {
        match &self.client.state {
            Client::Closed => return,
            Client::Greeting(until) => {
                if now >= *until {
                    self.greet(now, out);
                }
                return;
            }
            _ => {}
        }
        if self.client.wait.until().is_some_and(|until| now >= until) {
            self.recipient_judged(now, RecipientVerdict::Pass, out);
        }
        if self.client.wait.until().is_some() {
            return;
        }
        self.doubt(now, seen, out);
        if self.backend_owes() {
            if now >= self.backend.deadline && !self.give_up_name(now, out) && !self.give_up_tls(now, out) {
                self.backend_failed(now, SILENT, out);
                self.after_backend(now, out);
            }
        } else if now >= self.client.deadline && self.is_securing() {
            return self.client_not_secured_in_time(out);
        } else if now >= self.client.deadline {
            if self.client.unended {
                return self.finish_with(End::ClientTimeout, UNENDED_LINE, out);
            }
            self.abort_message(now, out);
            self.finish_with(End::ClientTimeout, Words(421, EnhancedCode(4, 4, 2), "Timeout"), out);
            return;
        }
        // It was not read while its envelope was said to another server.
        if self.pipeline.awaits_replay() || self.refuse_unended(now, seen.stalled, out) {
            return;
        }
        if !self.rate_holds(now) {
            if seen.stalled {
                self.backend_failed(now, SILENT, out);
                return;
            }
            self.abort_message(now, out);
            self.finish_with(End::ClientTooSlow, Words(421, EnhancedCode(4, 4, 2), "Too slow"), out);
        }
    }
}
