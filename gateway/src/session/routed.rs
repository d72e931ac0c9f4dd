//! Transactions of a listener that leads to several backends: the first recipient decides which it is.
//!
//! The gateway answers MAIL itself, which takes no responsibility, and says it to the backend when that is known. A refusal is
//! then the recipient's. A recipient for another backend is to come again: one message goes to one backend, so that its one
//! reply is one server's word.

use crate::policy::relay_guard::Hold;
use crate::route::{Decision, Envelope, RouteId};
use crate::smtp::address::ForwardPath;
use crate::smtp::reply::{EnhancedCode, Reply};
use crate::time::Millis;

use super::action::{Action, NotTaken, Output};
use super::backend::Backend;
use super::chunks::Chunks;
use super::end::End;
use super::kept_envelope::KeptEnvelope;
use super::machine::Session;
use super::pipeline::Expect;
use super::words::{HELD, NO_IDENTITY, Words};

/// MTAs send the others again at once, or soon (RFC 5321 section 4.5.3.1.10).
const ANOTHER_ROUTE: Words =
    Words(452, EnhancedCode(4, 5, 3), "This recipient is on another server; send to it in a message of its own");

impl Session {
    /// Where this recipient's mail goes; `None` where there is one backend.
    pub(super) fn route(&self, recipient: &ForwardPath<'_>) -> Option<Decision> {
        let routes = self.settings.routes.as_ref()?;
        let routed = self.transaction.open()?.routed.as_ref()?;
        let envelope = Envelope { client: self.client_addr.ip(), sender: routed.sender.as_deref(), recipient };
        Some(routes.decide(&envelope))
    }

    /// RCPT for a recipient that passes, encoded, on its way.
    pub(super) fn rcpt_routed(
        &mut self,
        now: Millis,
        (decision, hold): (Decision, Hold),
        command: Vec<u8>,
        out: &mut Output,
    ) {
        let (place, route) = (decision.place, decision.id());
        let is_settled = !self.pipeline.is_empty();
        let Some(open) = self.transaction.open_mut() else { return };
        let is_settled = is_settled || open.accepted > 0 || !matches!(open.chunks, Chunks::None);
        let Some(routed) = &mut open.routed else { return };
        match routed.place {
            Some(chosen) if chosen == place => {
                // A message is that route's whose recipient was its first.
                if !is_settled {
                    self.backend.route = route;
                    open.report.route = route;
                }
                open.forwarded += 1;
                open.keep(&command);
                self.toward_backend(out).extend_from_slice(&command);
                return self.expect(Expect::Rcpt, now);
            }
            Some(_) if is_settled => return self.not_taken(route, NotTaken::Parted, ANOTHER_ROUTE, out),
            // Nobody was accepted there, so nothing is lost there.
            Some(_) | None => {}
        }
        let mail = routed.mail.clone();
        if place != self.backend.place || routed.place.is_some() {
            self.change_backend(place, out);
        }
        self.backend.route = route;
        if hold == Hold::Defer {
            return self.not_taken(route, NotTaken::Held, HELD, out);
        }
        if !self.can_be_told() {
            return self.not_taken(route, NotTaken::Unavailable, NO_IDENTITY, out);
        }
        let may_replay = self.may_replay();
        let Some(open) = self.transaction.open_mut() else { return };
        open.report.route = route;
        if let Some(routed) = &mut open.routed {
            routed.place = Some(place);
        }
        open.kept = may_replay.then(|| Box::new(KeptEnvelope::new(&mail)));
        if matches!(self.backend.state, Backend::None) {
            self.dial(now, out);
        }
        self.toward_backend(out).extend_from_slice(&mail);
        self.expect(Expect::RoutedMail(command.into()), now);
    }

    fn not_taken(&mut self, route: RouteId, why: NotTaken, words: Words, out: &mut Output) {
        out.actions.push(Action::NotTaken(route, why));
        self.reply(words, out);
    }

    /// Counts a recipient that was sent the way that the session is on, where there are several.
    pub(super) fn count_not_taken(&self, why: NotTaken, out: &mut Output) {
        if self.backend.route != RouteId::NONE {
            out.actions.push(Action::NotTaken(self.backend.route, why));
        }
    }

    /// Leaves the backend that the session has, between commands.
    pub(super) fn change_backend(&mut self, place: usize, out: &mut Output) {
        if matches!(self.backend.state, Backend::Ready(_)) {
            out.to_backend.extend_from_slice(b"QUIT\r\n");
        }
        self.drop_backend(out);
        self.backend.place = place;
        if let Some(routed) = self.transaction.open_mut().and_then(|open| open.routed.as_mut()) {
            routed.place = None;
        }
    }

    /// The backend's word on a MAIL that the client has its answer to.
    pub(super) fn routed_mail_answered(&mut self, now: Millis, reply: &Reply<'_>, rcpt: &[u8], out: &mut Output) {
        let Some(open) = self.transaction.open_mut() else { return };
        if reply.class() == 2 {
            open.forwarded += 1;
            open.keep(rcpt);
            out.to_backend.extend_from_slice(rcpt);
            self.pipeline.unsettle(Expect::Rcpt);
            return self.await_next(now);
        }
        if let Some(routed) = &mut open.routed {
            routed.place = None;
        }
        open.kept = None;
        self.count_not_taken(NotTaken::Refused, out);
        reply.encode_into(self.utf8(), &mut out.to_client);
        if reply.code == 421 {
            self.drop_backend(out);
            return self.finish(End::BackendClosing, out);
        }
        self.pipeline.release(&mut out.to_client);
        if reply.class() == 5 {
            self.charge_error(out);
        }
        self.await_next(now);
    }

    /// Whether a transaction whose backend is gone can still be another's: nobody was accepted, so nothing is lost.
    pub(super) fn may_be_routed_again(&mut self) -> bool {
        let Some(open) = self.transaction.open_mut() else { return false };
        let is_fresh = open.accepted == 0 && matches!(open.chunks, Chunks::None);
        match &mut open.routed {
            Some(routed) if is_fresh => {
                routed.place = None;
                open.kept = None;
                open.forwarded = 0;
                true
            }
            _ => false,
        }
    }
}
