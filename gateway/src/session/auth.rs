//! AUTH (RFC 4954), which the backend decides: the gateway keeps no passwords. Its session is opened with the client's identity
//! first, so that its limits and its log see who logs in, and then every line of the exchange is read and written anew.
//!
//! Only the backend's own 235 makes a session one of a user's, and that lasts as long as the backend's session does.
//! Nothing that the client says here is kept, shown or logged but the name, and lines with secrets are wiped once they are
//! written.

use crate::policy::budget::Spent;
use crate::smtp::address::ReversePath;
use crate::smtp::auth::{AUTH_LINE_MAX, Auth, Login, Response, is_challenge};
use crate::smtp::command::CommandError;
use crate::smtp::domains::Membership;
use crate::smtp::line::{Line, LineFault, skip_line, split_line};
use crate::smtp::reply::{EnhancedCode, Reply, encode_reply};
use crate::time::Millis;

use super::action::{Action, Output};
use super::backend::Backend;
use super::client::Client;
use super::commands::SKIP_MAX;
use super::end::End;
use super::exchange::{Exchange, User};
use super::machine::Session;
use super::pipeline::Expect;
use super::report::{LoginOutcome, LoginReport};
use super::transaction::Transaction;
use super::words::{AUTH_TOO_LONG, CONFUSED, ENDLESS_LINE, Refusal, Words};

/// Challenges in one exchange. The longest mechanisms have three.
const CHALLENGES_MAX: u8 = 10;

/// What whoever follows the client is shown of a response.
const HIDDEN: &[u8] = b"(a response to AUTH)\r\n";

const NOT_OFFERED: Words = Words(502, EnhancedCode(5, 5, 1), "AUTH is not offered");
const NO_EHLO: Words = Words(503, EnhancedCode(5, 5, 1), "EHLO first");
const TWICE: Words = Words(503, EnhancedCode(5, 5, 1), "You have logged in already");
const IN_TRANSACTION: Words = Words(503, EnhancedCode(5, 5, 1), "AUTH is not for inside a transaction");
const IN_CLEAR: Words = Words(538, EnhancedCode(5, 7, 11), "Encryption is required for AUTH; say STARTTLS first");
const UNKNOWN_MECHANISM: Words = Words(504, EnhancedCode(5, 5, 4), "This mechanism is not offered");
const BAD_LINE: Words = Words(501, EnhancedCode(5, 5, 2), "The response is no line of base64");
const CANCELLED: Words = Words(501, EnhancedCode(5, 7, 0), "Authentication cancelled");
const UNAVAILABLE: Words = Words(454, EnhancedCode(4, 7, 0), "Logging in is not possible now; try again later");
/// To whom the backend's connection would say a password in clear.
pub(super) const NO_SECRECY: Words = Words(
    454,
    EnhancedCode(4, 7, 0),
    "Logging in is not possible now, for the mail server cannot be reached over a secure connection; try again later",
);
const TOO_MANY_FAILURES: Words = Words(421, EnhancedCode(4, 7, 0), "Too many refused passwords");
const LOGIN_REQUIRED: Words = Words(530, EnhancedCode(5, 7, 0), "Authentication required");
const TLS_REQUIRED: Words = Words(530, EnhancedCode(5, 7, 0), "Authentication required, over an encrypted connection");
const NOT_A_SENDER: Words = Words(550, EnhancedCode(5, 7, 1), "Nobody may send from this domain here");
const LOGIN_LOST: Words =
    Words(421, EnhancedCode(4, 4, 2), "The mail server's connection was lost, and your login with it; try again");

impl Session {
    /// AUTH. False if it must wait for the backend first.
    pub(super) fn auth(&mut self, now: Millis, argument: &str, out: &mut Output) -> bool {
        if self.settings.submission.is_none() {
            self.error(NOT_OFFERED, out);
            return true;
        }
        if !self.pipeline.is_empty() {
            return false;
        }
        match self.may_log_in(argument) {
            Err(words) => self.error(words, out),
            Ok(auth) => self.begin_exchange(now, &auth, out),
        }
        true
    }

    fn may_log_in(&self, argument: &str) -> Result<Auth, Words> {
        if !self.client.hello.as_ref().is_some_and(|hello| hello.esmtp) {
            return Err(NO_EHLO);
        }
        if self.login.is_some() {
            return Err(TWICE);
        }
        if matches!(self.transaction, Transaction::Open(_)) {
            return Err(IN_TRANSACTION);
        }
        if !self.may_send_secrets() {
            return Err(IN_CLEAR);
        }
        let auth =
            Auth::parse(argument).map_err(|CommandError { code, enhanced, text, .. }| Words(code, enhanced, text))?;
        if auth.mechanism.is_empty() || !self.dialect.mechanisms.contains(auth.mechanism) {
            return Err(UNKNOWN_MECHANISM);
        }
        Ok(auth)
    }

    fn begin_exchange(&mut self, now: Millis, auth: &Auth, out: &mut Output) {
        if self.settings.user_routes.is_some() && auth.initial.is_none() {
            self.transaction = Transaction::None;
            out.to_client.extend_from_slice(auth.mechanism.first_challenge());
            self.client.deadline = now.after(self.settings.timeouts.command);
            self.client.state = Client::Auth(Box::new(Exchange::asking(auth)));
            return;
        }
        self.open_exchange(now, Exchange::begin(auth), out);
    }

    /// The exchange goes to the backend, which is the user's.
    fn open_exchange(&mut self, now: Millis, mut exchange: Exchange, out: &mut Output) {
        self.route_user(exchange.login.as_ref().map(Login::name), out);
        let is_in_clear = matches!(self.backend.state, Backend::Ready(_)) && !self.backend_keeps_secrets();
        if is_in_clear || !self.can_be_told() {
            let words = if is_in_clear { NO_SECRECY } else { UNAVAILABLE };
            return match self.client.state {
                Client::Auth(_) => self.end_exchange(now, LoginOutcome::Unavailable, words, out),
                _ => self.reply(words, out),
            };
        }
        self.transaction = Transaction::None;
        match self.backend.state {
            Backend::None => self.dial(now, out),
            Backend::Opening(_) => {}
            Backend::Ready(_) => out.to_backend.append(&mut exchange.held),
        }
        self.expect(Expect::Auth, now);
        self.client.state = Client::Auth(Box::new(exchange));
    }

    /// Where routes are by users, all that this one sends goes to his backend.
    fn route_user(&mut self, name: Option<&str>, out: &mut Output) {
        if let Some(routes) = &self.settings.user_routes {
            let decision = routes.decide_user(self.client_addr.ip(), name);
            self.backend.route = decision.id();
            if decision.place != self.backend.place {
                self.change_backend(decision.place, out);
            }
        }
    }

    /// Whoever may send without having logged in is not sent the way of somebody whose password he did not know.
    pub(super) fn route_the_nameless(&mut self, out: &mut Output) {
        if self.login.is_none() {
            self.route_user(None, out);
        }
    }

    /// The backend's session is open, and may have waited for AUTH.
    pub(super) fn send_held_auth(&mut self, out: &mut Output) {
        if let Client::Auth(exchange) = &mut self.client.state {
            out.secret = true;
            out.to_backend.append(&mut exchange.held);
        }
    }

    /// Takes the client's next line in an exchange; how many bytes it was, 0 if it must wait or is incomplete.
    pub(super) fn take_response(&mut self, now: Millis, input: &[u8], out: &mut Output) -> usize {
        let Client::Auth(exchange) = &mut self.client.state else { return 0 };
        out.secret = true;
        if !self.pipeline.is_empty() {
            return 0;
        }
        if exchange.skipping > 0 {
            let (used, ended) = skip_line(input);
            exchange.skipping += used;
            if exchange.skipping > SKIP_MAX {
                self.finish_with(End::Flood, ENDLESS_LINE, out);
            } else if ended {
                exchange.skipping = 0;
                self.break_off(now, AUTH_TOO_LONG, out);
            }
            return used;
        }
        let used = self.take_response_line(now, input, out);
        if used > 0
            && let Some(heard) = &mut out.heard
        {
            heard.extend_from_slice(HIDDEN);
        }
        used
    }

    fn take_response_line(&mut self, now: Millis, input: &[u8], out: &mut Output) -> usize {
        let Client::Auth(exchange) = &mut self.client.state else { return 0 };
        match split_line(input, AUTH_LINE_MAX) {
            Line::Incomplete => 0,
            Line::Overlong { used } => {
                exchange.skipping = used.max(1);
                used
            }
            Line::Faulty { fault, used } => {
                self.break_off(now, if fault == LineFault::TooLong { AUTH_TOO_LONG } else { BAD_LINE }, out);
                used
            }
            Line::Complete { text: b"*", used } => {
                exchange.cancelled = true;
                self.send_response(now, b"*\r\n", out);
                used
            }
            Line::Complete { text, used } => {
                match Response::parse(text.trim_ascii_end()) {
                    Ok(response) if exchange.asks_name => {
                        let exchange = exchange.answered(response);
                        self.open_exchange(now, exchange, out);
                    }
                    Ok(response) => {
                        exchange.respond(&response);
                        self.send_response(now, &response.encode(), out);
                    }
                    Err(_) => self.break_off(now, BAD_LINE, out),
                }
                used
            }
        }
    }

    /// The client cannot be understood: the backend is told that the exchange is over, and the client why.
    fn break_off(&mut self, now: Millis, words: Words, out: &mut Output) {
        if let Client::Auth(exchange) = &mut self.client.state {
            exchange.cancelled = true;
            exchange.instead = Some(words);
        }
        self.send_response(now, b"*\r\n", out);
    }

    fn send_response(&mut self, now: Millis, line: &[u8], out: &mut Output) {
        let Client::Auth(exchange) = &mut self.client.state else { return };
        if exchange.asks_name {
            let words = exchange.instead.unwrap_or(CANCELLED);
            return self.end_exchange(now, LoginOutcome::Cancelled, words, out);
        }
        if exchange.lost {
            let words = exchange.instead.unwrap_or(UNAVAILABLE);
            return self.end_exchange(now, LoginOutcome::Unavailable, words, out);
        }
        out.to_backend.extend_from_slice(line);
        self.expect(Expect::Auth, now);
    }

    /// The backend's answer to AUTH or to a response. `too_soon`: what it answers has not left.
    pub(super) fn auth_answered(&mut self, now: Millis, reply: &Reply<'_>, too_soon: bool, out: &mut Output) {
        let Client::Auth(exchange) = &mut self.client.state else {
            return self.backend_failed(now, CONFUSED, out);
        };
        if let Some(words) = exchange.instead {
            // It has no more to say to this exchange, or is out of step.
            if reply.class() < 4 || reply.code == 421 || too_soon {
                self.drop_backend(out);
            }
            return self.end_exchange(now, LoginOutcome::Cancelled, words, out);
        }
        let understood = match reply.code {
            235 => !exchange.cancelled,
            334 => {
                exchange.challenges += 1;
                let mut lines = reply.lines();
                !exchange.cancelled
                    && exchange.challenges <= CHALLENGES_MAX
                    && lines.next().is_some_and(|text| is_challenge(text.trim_ascii_end()))
                    && lines.next().is_none()
            }
            421 => false,
            _ => reply.class() >= 4,
        };
        if !understood || (too_soon && reply.class() < 4) {
            self.drop_backend(out);
            return self.end_exchange(now, LoginOutcome::Unavailable, UNAVAILABLE, out);
        }
        let cancelled = exchange.cancelled;
        reply.encode_into(false, &mut out.to_client);
        if too_soon {
            // What is still to leave would be read as something else.
            self.drop_backend(out);
        }
        match reply.code {
            334 => self.client.deadline = now.after(self.settings.timeouts.command),
            235 => self.logged_in(now, out),
            535 => self.password_refused(now, out),
            _ => {
                let outcome = match (reply.class(), cancelled) {
                    (_, true) => LoginOutcome::Cancelled,
                    (4, false) => LoginOutcome::Unavailable,
                    _ => LoginOutcome::Refused,
                };
                self.over(now, outcome, out);
                if reply.class() == 5 {
                    self.charge_error(out);
                }
            }
        }
    }

    fn logged_in(&mut self, now: Millis, out: &mut Output) {
        let login = self.over(now, LoginOutcome::LoggedIn, out);
        self.login = Some(Box::new(User(login)));
    }

    fn password_refused(&mut self, now: Millis, out: &mut Output) {
        self.over(now, LoginOutcome::WrongPassword, out);
        if self.conduct.password_refused(&self.settings.limits) == Spent::Exhausted {
            self.finish_with(End::TooManyPasswords, TOO_MANY_FAILURES, out);
        } else {
            self.charge_error(out);
        }
    }

    /// The exchange ends with words of the gateway's own.
    fn end_exchange(
        &mut self,
        now: Millis,
        outcome: LoginOutcome,
        Words(code, enhanced, text): Words,
        out: &mut Output,
    ) {
        encode_reply(code, Some(enhanced), text, &mut out.to_client);
        self.over(now, outcome, out);
        if code / 100 == 5 {
            self.charge_error(out);
        }
    }

    /// The backend owes an answer to AUTH and will not give it.
    pub(super) fn auth_failed(&mut self, now: Millis, refusal: &Refusal, out: &mut Output) {
        match &self.client.state {
            Client::Auth(exchange) if exchange.instead.is_some() => {
                let words = exchange.instead.unwrap_or(UNAVAILABLE);
                self.end_exchange(now, LoginOutcome::Cancelled, words, out);
            }
            // It turns this client away, whoever he is, or says of AUTH what can be said.
            Client::Auth(_) if refusal.answers_auth() => {
                out.to_client.extend_from_slice(&refusal.encoded);
                let outcome = if refusal.is_permanent() { LoginOutcome::Refused } else { LoginOutcome::Unavailable };
                self.over(now, outcome, out);
            }
            _ => self.end_exchange(now, LoginOutcome::Unavailable, UNAVAILABLE, out),
        }
    }

    /// The backend was lost while the client had its turn: what it says next is its response still, and is answered.
    pub(super) fn backend_lost_in_auth(&mut self) {
        if let Client::Auth(exchange) = &mut self.client.state {
            exchange.lost = true;
        }
    }

    /// The client is back among commands. Who it said it was.
    fn over(&mut self, now: Millis, outcome: LoginOutcome, out: &mut Output) -> Option<Login> {
        let state = std::mem::replace(&mut self.client.state, Client::Commands { skipping: 0 });
        self.client.deadline = self.command_deadline(now);
        let Client::Auth(exchange) = state else { return None };
        let report = LoginReport { outcome, mechanism: exchange.mechanism, login: exchange.login.clone() };
        out.actions.push(Action::Login(Box::new(report)));
        exchange.login
    }

    /// Whether mail may begin here, and otherwise what to answer: at a submission listener, only once somebody has logged in.
    pub(super) fn may_submit(&self) -> Result<(), Words> {
        let Some(submission) = &self.settings.submission else { return Ok(()) };
        if self.login.is_some() || (submission.relay_without_auth && self.settings.relay.may_relay(self.client_addr)) {
            return Ok(());
        }
        Err(if self.may_send_secrets() { LOGIN_REQUIRED } else { TLS_REQUIRED })
    }

    /// Whether a user may send as this.
    pub(super) fn may_send_as(&self, path: &ReversePath<'_>) -> Result<(), Words> {
        let senders = self.settings.submission.as_ref().and_then(|submission| submission.senders.as_ref());
        match (senders, path) {
            (Some(senders), ReversePath::Mailbox(mailbox))
                if senders.contains(&mailbox.domain) != Membership::Local =>
            {
                Err(NOT_A_SENDER)
            }
            _ => Ok(()),
        }
    }

    /// A user's session whose login went with the backend's. True if it ends.
    pub(super) fn ends_for_lost_login(&mut self, out: &mut Output) -> bool {
        let can_be_told = |user: &User| self.target().xclient_login && user.told().is_some();
        let lost =
            matches!(self.backend.state, Backend::None) && self.login.as_ref().is_some_and(|user| !can_be_told(user));
        if lost {
            self.finish_with(End::BackendLost, LOGIN_LOST, out);
        }
        lost
    }

    /// Whether what the client has said, and what was not taken yet, may have a password in it.
    pub(crate) fn expects_login(&self) -> bool {
        self.login.is_none() && !self.dialect.mechanisms.is_empty()
    }

    /// Whether a password may be said on this connection.
    fn may_send_secrets(&self) -> bool {
        let ip = self.client_addr.ip();
        let networks = self.settings.submission.as_ref().map(|submission| &*submission.clear_text_networks);
        self.client.secured || networks.is_some_and(|networks| networks.iter().any(|network| network.contains(&ip)))
    }

    /// Whether a password may be said to the backend: over TLS, on this machine, or where the configuration has it so.
    pub(super) fn backend_keeps_secrets(&self) -> bool {
        self.target().clear_text_auth || self.backend.is_secured || self.backend.is_on_this_host
    }

    /// AUTH's line of the EHLO reply, without its code; empty if this client is not offered it.
    pub(super) fn auth_line(&self) -> String {
        let mechanisms = self.dialect.mechanisms;
        if self.login.is_some() || mechanisms.is_empty() || !self.may_send_secrets() {
            return String::new();
        }
        mechanisms.names().fold("AUTH".to_owned(), |line, name| line + " " + name)
    }
}
