//! The session with a server is lost, and the client's goes on: the envelope is said to another server of the backend.
//!
//! That is possible until the message's first octet was sent, for until then nobody is responsible for anything. The commands
//! that were answered are said one by one, and none is answered again; those that were not follow as they were said. What the
//! client was told stays true: if the other server takes less than the first did, it gets no message, and the client is told
//! to come again. A user's session is not taken up elsewhere, for nobody but the user knows the password.

use crate::smtp::reply::Reply;
use crate::time::Millis;

use super::action::{Action, Output};
use super::backend::{Backend, Held};
use super::client::Client;
use super::kept_envelope::KeptEnvelope;
use super::machine::Session;
use super::message::RateWindow;
use super::pipeline::Expect;
use super::transaction::{Open, Transaction};
use super::words::{LOST, Refusal};

impl Session {
    /// Whether what the server is told of a transaction is kept for another.
    pub(super) fn may_replay(&self) -> bool {
        self.target().has_several && self.login.is_none()
    }

    /// The session with the server is lost, for this reason. True if the client need not hear of it.
    pub(super) fn fail_over(&mut self, now: Millis, refusal: &Refusal, out: &mut Output) -> bool {
        if !matches!(self.backend.state, Backend::Ready(_)) || self.login.is_some() {
            return false;
        }
        let has_others = self.target().has_several || self.settings.routes.is_some();
        if has_others && self.owes_server_nothing() {
            // What the transaction is still to be, another session hears.
            self.drop_backend(out);
            self.fail_owed(now, refusal, out);
            return true;
        }
        self.replay(now, refusal, out)
    }

    /// Whether the server has no part in what goes on: it has heard nothing of a transaction, and owes nothing but to forget
    /// one.
    fn owes_server_nothing(&self) -> bool {
        let has_heard = match &self.transaction {
            Transaction::None => false,
            Transaction::Open(open) => open.routed.as_ref().is_none_or(|routed| routed.place.is_some()),
            Transaction::Lost => true,
        };
        matches!(self.client.state, Client::Commands { .. }) && !has_heard && self.pipeline.owes_only_resets()
    }

    /// Connects to another server, to which the envelope is said. False if that is not possible.
    fn replay(&mut self, now: Millis, refusal: &Refusal, out: &mut Output) -> bool {
        let sends_data = matches!(self.client.state, Client::AwaitGoAhead { .. });
        let is_in_message = matches!(self.client.state, Client::Data(_));
        let (accepted, owes_mail) = (self.accepted_commands(), self.pipeline.owes_mail());
        let Some(kept) = self.kept_envelope() else { return false };
        if !kept.may_be_replayed() {
            return false;
        }
        let mut held = Box::new(Held::new());
        held.commands = if owes_mail { kept.from(0) } else { kept.command(0) }.to_vec();
        if !owes_mail {
            self.pipeline.expect_replay(accepted, is_in_message);
        } else if sends_data {
            held.commands.extend_from_slice(b"DATA\r\n");
        }
        held.refusal = Some(Box::new(refusal.clone()));
        self.backend.state = Backend::Opening(held);
        self.backend.deadline = now.after(self.settings.timeouts.connect + self.settings.timeouts.handshake);
        out.to_backend.clear();
        out.actions.extend([Action::CloseBackend, Action::DialInstead]);
        true
    }

    /// The envelope that may still be said to another server.
    fn kept_envelope(&mut self) -> Option<&mut KeptEnvelope> {
        match &mut self.client.state {
            Client::Data(state) => state.kept.as_deref_mut(),
            Client::Commands { .. } | Client::AwaitGoAhead { .. } => self.transaction.open_mut()?.kept.as_deref_mut(),
            _ => None,
        }
    }

    /// How many commands of it the client has heard the good answers to.
    fn accepted_commands(&mut self) -> usize {
        match &self.transaction {
            Transaction::Open(open) => open.accepted_commands(),
            Transaction::None | Transaction::Lost => self.kept_envelope().map_or(0, |kept| kept.len()),
        }
    }

    /// The other server's answer to a command that the client has its answer to; `left`: with this, so many are still to come.
    pub(super) fn replay_answered(&mut self, now: Millis, reply: &Reply<'_>, left: usize, out: &mut Output) {
        if reply.class() != 2 {
            self.pipeline.unsettle(Expect::Replayed(left));
            return self.replay_refused(now, out);
        }
        let next = (self.accepted_commands() + 1).saturating_sub(left);
        let Some(kept) = self.kept_envelope() else {
            self.pipeline.unsettle(Expect::Replayed(left));
            return self.replay_refused(now, out);
        };
        if left > 1 {
            out.to_backend.extend_from_slice(kept.command(next));
            self.pipeline.unsettle(Expect::Replayed(left - 1));
        } else {
            out.to_backend.extend_from_slice(kept.from(next));
            if matches!(self.client.state, Client::AwaitGoAhead { .. } | Client::Data(_)) {
                out.to_backend.extend_from_slice(b"DATA\r\n");
            }
            self.pipeline.release(&mut out.to_client);
        }
        self.await_next(now);
    }

    /// Its answer to a DATA that the client has its 354 to.
    pub(super) fn data_replayed(&mut self, now: Millis, reply: &Reply<'_>, out: &mut Output) {
        if reply.code != 354 {
            self.pipeline.unsettle(Expect::ReplayedData);
            return self.replay_refused(now, out);
        }
        if let Client::Data(state) = &mut self.client.state {
            // It was not read meanwhile.
            state.rate = RateWindow::new(now, self.client.hurried);
        }
    }

    /// The other server does not take what the first one took.
    fn replay_refused(&mut self, now: Millis, out: &mut Output) {
        out.to_backend.extend_from_slice(b"QUIT\r\n");
        self.lose_backend(now, LOST, out);
    }
}

impl Open {
    /// RCPT is on its way to the server, encoded.
    pub(super) fn keep(&mut self, rcpt: &[u8]) {
        if self.kept.as_mut().is_some_and(|kept| !kept.push(rcpt)) {
            self.kept = None;
        }
    }

    /// The server's answer to the first RCPT that has none.
    pub(super) fn rcpt_answered(&mut self, is_accepted: bool) {
        let accepted = self.accepted_commands();
        if is_accepted {
            self.accepted += 1;
        } else if let Some(kept) = &mut self.kept {
            kept.remove(accepted);
        }
    }

    /// How many of its commands the server has taken: MAIL, and RCPTs.
    fn accepted_commands(&self) -> usize {
        usize::try_from(self.accepted).map_or(usize::MAX, |rcpts| rcpts.saturating_add(1))
    }
}
