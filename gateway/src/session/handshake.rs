//! The backend half until its session is open. How it opens is [`opening`](crate::opening)'s; here is what that means for the
//! client, whose commands are held meanwhile.
//!
//! Whatever fails on the way fails closed: the held commands are forgotten and the client gets the backend's own refusal, or
//! 4xx where the identity could not be delivered.

use crate::config::BackendTls;
use crate::identity::xclient::ClientName;
use crate::opening::{Failure, Hello, Identity, Opening, Progress, Script};
use crate::smtp::ehlo::{Extensions, Offer};
use crate::smtp::reply::{EnhancedCode, Reply, ReplyParse, parse_reply};
use crate::time::{Millis, WallClock};

use super::action::{Action, Blame, Output};
use super::auth::NO_SECRECY;
use super::backend::{Backend, BackendHalf, Connected, Held, Name};
use super::client::Client;
use super::machine::Session;
use super::question::Question;
use super::transaction::Transaction;
use super::words::{CONFUSED, NO_IDENTITY, Refusal, STALE, Words};

const UNREACHABLE: Words = Words(451, EnhancedCode(4, 4, 1), "The mail server cannot be reached now; try again later");
const NO_TLS: Words = Words(
    451,
    EnhancedCode(4, 7, 5),
    "The mail server cannot be reached over a secure connection now; try again later",
);

impl Session {
    /// Asks for a connection.
    pub(super) fn dial(&mut self, now: Millis, out: &mut Output) {
        self.backend.state = Backend::Opening(Box::new(Held::new()));
        self.backend.deadline = now.after(self.settings.timeouts.connect + self.settings.timeouts.handshake);
        out.actions.push(Action::Dial);
        if self.target().identity.tells_name() && matches!(self.backend.name, Name::Unasked) {
            let ticket = self.tickets.next();
            self.backend.name = Name::Asked(ticket);
            out.actions.push(Action::Ask(ticket, Question::ClientName));
        }
    }

    /// Whether this client can be told of at all, the way this backend is told.
    pub(super) fn can_be_told(&self) -> bool {
        self.client_addr.told().is_some() || !self.target().identity.needs_address()
    }

    /// The connection stands, at the time that the clock was looked at.
    pub fn backend_connected(&mut self, clock: WallClock, connected: Connected, out: &mut Output) {
        let Backend::Opening(held) = &mut self.backend.state else { return };
        let opened_by = clock.at.after(self.settings.timeouts.handshake);
        self.backend.deadline = connected.open_by.map_or(opened_by, |until| until.min(opened_by));
        self.backend.is_secured = false;
        let (at, answers_by) = (clock.at, connected.answers_by);
        self.backend.is_on_this_host = connected.is_on_this_host;
        held.connected = Some(connected);
        self.backend.clock = self.target().identity.is_trace_header().then(|| Box::new(clock));
        self.await_opening(at, answers_by);
        self.advance(at, out, Opening::connected);
    }

    /// No address of the backend could be connected to, or none that was not tried before.
    pub fn backend_unreachable(&mut self, now: Millis, out: &mut Output) {
        let refusal = match std::mem::replace(&mut self.backend.state, Backend::None) {
            Backend::Opening(held) => held.refusal.map(|refusal| *refusal),
            Backend::None | Backend::Ready(_) => None,
        };
        self.fail_owed(now, &refusal.unwrap_or_else(|| UNREACHABLE.into()), out);
        self.after_backend(now, out);
    }

    /// The session does not open. Where the backend has several servers, another is tried before anybody hears of it.
    pub(super) fn opening_failed(&mut self, now: Millis, refusal: Refusal, blame: Blame, out: &mut Output) {
        let has_several = self.target().has_several;
        match &mut self.backend.state {
            Backend::Opening(held) if has_several => {
                held.opening = Opening::new();
                held.connected = None;
                held.verified = false;
                held.refusal = Some(Box::new(refusal));
                self.backend.deadline = now.after(self.settings.timeouts.connect + self.settings.timeouts.handshake);
                out.to_backend.clear();
                out.actions.push(Action::CloseBackend);
                out.actions.push(Action::DialAnother(blame));
            }
            _ => self.give_up_opening(now, &refusal, out),
        }
    }

    fn give_up_opening(&mut self, now: Millis, refusal: &Refusal, out: &mut Output) {
        self.drop_backend(out);
        self.fail_owed(now, refusal, out);
        self.after_backend(now, out);
    }

    /// Whose fault it is that a session ends that is being opened: the server's, as long as it was told nothing of a client.
    pub(super) fn blame(&self) -> Blame {
        match &self.backend.state {
            Backend::Opening(held) if held.opening.is_before_the_client() => Blame::Server,
            _ => Blame::Nobody,
        }
    }

    /// TLS with the backend stands, as [`Action::SecureBackend`] asked. `verified`: its certificate is that of whom we want.
    pub fn backend_secured(&mut self, now: Millis, verified: bool, out: &mut Output) {
        self.backend.is_secured = true;
        if let Backend::Opening(held) = &mut self.backend.state {
            held.verified = verified;
        }
        self.advance(now, out, Opening::secured);
    }

    /// TLS with the backend did not come about; why, for an administrator.
    pub fn backend_not_secured(&mut self, now: Millis, why: String, out: &mut Output) {
        if !self.backend.state.is_opening() || self.dial_in_clear_text(now, &why, out) {
            return;
        }
        self.tls_failed(now, why, out);
    }

    /// Where TLS is not demanded, the connection on which it failed is given up for one without. False where it is.
    fn dial_in_clear_text(&mut self, now: Millis, why: &str, out: &mut Output) -> bool {
        if self.target().tls != BackendTls::Opportunistic {
            return false;
        }
        let Backend::Opening(held) = &mut self.backend.state else { return false };
        held.opening = Opening::in_clear_text();
        held.connected = None;
        out.to_backend.clear();
        self.backend.deadline = now.after(self.settings.timeouts.connect + self.settings.timeouts.handshake);
        out.actions.extend([Action::BackendInClearText(why.to_owned()), Action::DialAgain]);
        true
    }

    /// A handshake that takes too long has failed. False if none is under way, or TLS is demanded.
    pub(super) fn give_up_tls(&mut self, now: Millis, out: &mut Output) -> bool {
        let Backend::Opening(held) = &self.backend.state else { return false };
        held.opening.awaits_tls() && self.dial_in_clear_text(now, "the handshake takes too long", out)
    }

    /// The client's name was looked up, or will not be known.
    pub(super) fn client_name(&mut self, now: Millis, name: ClientName, out: &mut Output) {
        self.backend.name = Name::Known(name);
        self.advance(now, out, Opening::named);
    }

    /// DNS may delay a client, and not hold it: what was not looked up when the backend's session should have been open is
    /// done without. False if that is not what is awaited.
    pub(super) fn give_up_name(&mut self, now: Millis, out: &mut Output) -> bool {
        let Backend::Opening(held) = &self.backend.state else { return false };
        if !held.opening.awaits_name() {
            return false;
        }
        self.backend.deadline = now.after(self.settings.timeouts.handshake);
        self.advance(now, out, Opening::named);
        true
    }

    /// Bytes while the session opens; how many were used, 0 if more are needed.
    pub(super) fn opening_bytes(&mut self, now: Millis, input: &[u8], out: &mut Output) -> usize {
        let mut used = 0;
        self.advance(now, out, |opening, script, to_backend| {
            let progress;
            (used, progress) = opening.reply(script, input, to_backend);
            progress
        });
        used
    }

    /// One step of the opening.
    fn advance(
        &mut self,
        now: Millis,
        out: &mut Output,
        step: impl FnOnce(&mut Opening, &Script<'_>, &mut Vec<u8>) -> Progress,
    ) {
        let target = *self.target();
        let Self { client, backend, settings, client_addr, login, .. } = self;
        let BackendHalf { state: Backend::Opening(held), name, .. } = backend else { return };
        let Some(connected) = held.connected else { return };
        let Some(hello) = &client.hello else { return };
        let name = match name {
            Name::Known(name) => Some(&*name),
            Name::Unasked | Name::Asked(_) => None,
        };
        let script = Script {
            hostname: &settings.hostname,
            tls: target.tls,
            identity: Identity::by(target.identity, *client_addr, connected.destination, name, connected.ipv6_form),
            hello: Hello {
                name: &hello.name,
                esmtp: hello.esmtp,
                login: login.as_ref().and_then(|user| user.told()).filter(|_| target.xclient_login),
                address: client_addr.told().map(|address| address.ip()),
            },
        };
        match step(&mut held.opening, &script, &mut out.to_backend) {
            // A look-up that was asked for when the backend was dialled will answer, or be done without.
            Progress::Reply | Progress::Name => {}
            Progress::Secure(nothing) => out.actions.push(Action::SecureBackend(nothing)),
            Progress::Open(offer) => self.opened(now, &offer, out),
            Progress::Failed(failure) => self.not_opened(now, failure, out),
        }
    }

    /// The session is open: what was held flows, if the backend offers what it uses.
    fn opened(&mut self, now: Millis, offer: &Offer, out: &mut Output) {
        out.actions.push(Action::IdentityAccepted);
        let mut offered = offer.extensions;
        if !matches!(&self.backend.state, Backend::Opening(held) if held.verified) {
            // Whoever offers it may be anybody (RFC 8689 section 4.2.1).
            offered.remove(Extensions::REQUIRETLS);
        }
        let esmtp = self.client.hello.as_ref().is_some_and(|h| h.esmtp);
        let mut needs = self.needs();
        if self.pipeline.len() > 1 + usize::from(self.pipeline.awaits_replay()) {
            needs = needs.union(Extensions::PIPELINING);
        }
        if self.target().identity.is_xclient() && offered.contains(Extensions::XCLIENT) && !self.may_be_a_proxy() {
            // Whoever believed who the client is would not let it name another.
            out.actions.push(Action::IdentityDoubted);
        }
        if esmtp && !self.dialect.learned.is_some_and(|learned| offered.contains(learned)) {
            out.actions.push(Action::DialectStale);
        }
        if !offered.contains(needs) {
            return self.opening_failed(now, STALE.into(), Blame::Nobody, out);
        }
        if matches!(self.client.state, Client::Auth(_)) && !self.backend_keeps_secrets() {
            // Another server may do so.
            return self.opening_failed(now, NO_SECRECY.into(), Blame::Nobody, out);
        }
        if let Backend::Opening(held) = std::mem::replace(&mut self.backend.state, Backend::Ready(offered)) {
            out.to_backend.extend_from_slice(&held.commands);
            self.send_held_auth(out);
        }
        self.give_backend(now, self.settings.timeouts.reply);
    }

    /// Extensions that the transaction uses.
    fn needs(&self) -> Extensions {
        match (&self.transaction, &self.client.state) {
            (Transaction::Open(open), _) => open.needs,
            (_, Client::Data(state)) => state.kept.as_ref().map_or(Extensions::default(), |kept| kept.needs),
            _ => Extensions::default(),
        }
    }

    /// Whether the backend may have reason to offer XCLIENT to this client itself: programs of this host and of the networks
    /// that may relay can be proxies of their own.
    fn may_be_a_proxy(&self) -> bool {
        let ip = self.client_addr.ip();
        let own = match &self.backend.state {
            Backend::Opening(held) => held.connected.map(|connected| connected.destination.ip().to_canonical()),
            Backend::None | Backend::Ready(_) => None,
        };
        ip.is_loopback()
            || own == Some(ip)
            || self.settings.relay.allowed_networks.iter().any(|network| network.contains(&ip))
    }

    fn not_opened(&mut self, now: Millis, failure: Failure, out: &mut Output) {
        let (words, blame) = match failure {
            Failure::Refused(raw) => match parse_reply(&raw) {
                ReplyParse::Complete { reply, .. } => return self.opening_refused(now, &reply, out),
                _ => (UNREACHABLE, self.blame()),
            },
            Failure::Unexpected => (UNREACHABLE, self.blame()),
            Failure::NotSmtp => (CONFUSED, self.blame()),
            Failure::Tls(fault) => return self.tls_failed(now, fault.to_string(), out),
            Failure::Identity(fault) => {
                out.actions.push(Action::IdentityFailed(fault));
                (NO_IDENTITY, Blame::Nobody)
            }
        };
        self.opening_failed(now, words.into(), blame, out);
    }

    /// The server refuses. Before it knew of a client, that says how it is doing, and another may do better; what it says of
    /// the client, the others would say too, unless it closes the connection: that may be for want of room.
    fn opening_refused(&mut self, now: Millis, reply: &Reply<'_>, out: &mut Output) {
        let refusal = Refusal::from_reply(reply);
        let blame = match (self.blame(), reply.class()) {
            (Blame::Server, 4) => Blame::Busy,
            (blame, _) => blame,
        };
        let knows_client = blame == Blame::Nobody;
        if reply.code == 421 || blame == Blame::Busy {
            let text = reply.text().into_owned();
            out.actions.push(Action::BackendBusy { code: reply.code, text, knows_client });
        }
        // A server that says 421 is done with the connection, whoever is on it (RFC 5321 section 3.8).
        if knows_client && reply.code != 421 {
            self.give_up_opening(now, &refusal, out);
        } else {
            self.opening_failed(now, refusal, blame, out);
        }
    }

    fn tls_failed(&mut self, now: Millis, why: String, out: &mut Output) {
        out.actions.push(Action::BackendTlsFailed(why));
        self.opening_failed(now, NO_TLS.into(), Blame::Nobody, out);
    }
}
