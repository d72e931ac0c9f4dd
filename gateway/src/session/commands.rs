//! The client half between bodies: each command is answered here or sent on.
//!
//! A command is checked against what this client was told it may use and against the transaction it has asked for, then
//! encoded anew from its parsed view: no line of the client's reaches the backend as it came.

use crate::config::EarlyTalk;
use crate::identity::proxy_in::resumes_header;
use crate::policy::budget::Spent;
use crate::policy::offences::Offence;
use crate::smtp::auth::{AUTH_LINE_MAX, is_auth};
use crate::smtp::command::{Command, CommandError, Secret, parse_command};
use crate::smtp::line::{Line, LineFault, skip_line, split_line};
use crate::smtp::reply::{EnhancedCode, encode_reply};
use crate::smtp::starttls::begins_handshake;
use crate::time::Millis;

use super::action::{Action, Output, Refused};
use super::backend::Backend;
use super::chunks::Chunks;
use super::client::{Client, Hello, UNENDED_WAIT, Wait};
use super::end::End;
use super::machine::Session;
use super::pipeline::Expect;
use super::transaction::Transaction;
use super::words::{AUTH_TOO_LONG, CRAMMED, ENDLESS_LINE, NO_MAIL, NO_RECIPIENTS, OK, TRANSACTION_LOST, Words};

/// Longest command line in bytes, CRLF included (RFC 5321 section 4.5.3.1.4).
const COMMAND_LINE_MAX: usize = 512;
/// The same for MAIL and RCPT, to which the extensions offered add: SIZE 26, BODY 17, SMTPUTF8 10 and paths of 4 times the
/// length, RET 9, ENVID 107, NOTIFY 28, ORCPT 500.
const ENVELOPE_LINE_MAX: usize = 2048;
/// A line that is longer than this in all is not waited for to end.
pub(super) const SKIP_MAX: usize = 256 * 1024;
/// Commands held for a backend that is not open yet, in bytes; a client that pipelines more waits.
const HELD_MAX: usize = 16 * 1024;

impl Session {
    /// Takes at most one command from `input`; how many bytes it was, 0 if it must wait or is incomplete.
    pub(super) fn take_command(&mut self, now: Millis, input: &[u8], out: &mut Output) -> usize {
        if !self.client.wait.is_nothing() {
            return 0;
        }
        let in_step = self.pipelines() || !self.pipeline.awaits_backend();
        if !in_step
            || self.pipeline.awaits_routed_mail()
            || self.pipeline.awaits_replay()
            || self.pipeline.is_full()
            || self.backend.state.held() > HELD_MAX
        {
            self.client.wait = Wait::Backend;
            return 0;
        }
        if let Client::Commands { skipping: skipped @ 1.. } = self.client.state {
            return self.skip_rest(skipped, input, out);
        }
        if self.client.hello.is_none() && self.client_addr.is_direct() && resumes_header(input) {
            self.refuse_proxy_header(out);
            return input.len();
        }
        if self.transaction.is_none() && begins_handshake(input) {
            self.refuse_handshake(out);
            return input.len();
        }
        let is_auth = is_auth(input);
        out.secret |= is_auth;
        match split_line(input, self.line_max(input)) {
            Line::Incomplete => {
                if !self.client.unended && memchr::memchr2(b'\n', b'\r', input).is_some() {
                    self.client.unended = true;
                    self.client.deadline = self.client.deadline.min(now.after(UNENDED_WAIT));
                }
                0
            }
            Line::Overlong { used } => {
                self.client.skips_auth = is_auth;
                self.skipped(used.max(1), false, out);
                used
            }
            Line::Faulty { fault: LineFault::TooLong, used } => {
                self.client.skips_auth = is_auth;
                self.skipped(used, true, out);
                used
            }
            Line::Faulty { fault, used } => {
                self.refuse_line(fault, out);
                used
            }
            Line::Complete { text, used } if used > COMMAND_LINE_MAX && !is_longer(text) => {
                self.refuse_line(LineFault::TooLong, out);
                used
            }
            Line::Complete { text, used } => {
                let handled = match parse_command(text) {
                    Ok(Command::StartTls) => self.starttls(now, &input[used..], out),
                    Ok(command) => self.command(now, &command, out),
                    Err(error) => {
                        self.refuse_command(now, &error, out);
                        true
                    }
                };
                if !handled {
                    self.client.wait = Wait::Backend;
                    return 0;
                }
                if let Some(heard) = &mut out.heard {
                    match is_auth {
                        true => heard.extend_from_slice(&without_secret(text)),
                        false => heard.extend_from_slice(&input[..used]),
                    }
                }
                if matches!(self.client.state, Client::Commands { .. }) {
                    self.client.deadline = self.command_deadline(now);
                }
                self.client.unended = false;
                used
            }
        }
    }

    fn skip_rest(&mut self, before: usize, input: &[u8], out: &mut Output) -> usize {
        out.secret |= self.client.skips_auth;
        let (used, ended) = skip_line(input);
        self.skipped(before + used, ended, out);
        used
    }

    /// So much of a line that is too long was forgotten.
    fn skipped(&mut self, length: usize, ended: bool, out: &mut Output) {
        if length > SKIP_MAX {
            self.finish_with(End::Flood, ENDLESS_LINE, out);
        } else if ended {
            self.client.state = Client::Commands { skipping: 0 };
            match self.client.skips_auth {
                true => self.error(AUTH_TOO_LONG, out),
                false => self.refuse_line(LineFault::TooLong, out),
            }
        } else {
            self.client.state = Client::Commands { skipping: length };
        }
    }

    /// Does what the command asks. False if it must wait for the backend first.
    fn command(&mut self, now: Millis, command: &Command<'_>, out: &mut Output) -> bool {
        match *command {
            Command::Ehlo(ref name) => return self.take_hello(now, name, true, out),
            Command::Helo(ref name) => return self.take_hello(now, name, false, out),
            Command::Mail { path, params } => return self.mail(now, &path, params, out),
            Command::Rcpt { path, params } => self.rcpt(&path, params, now, out),
            Command::Data => return self.data(now, out),
            Command::Bdat { length, last } => return self.bdat(now, length, last, out),
            Command::Rset => return self.rset(now, out),
            Command::Quit => return self.quit(out),
            Command::Noop => self.idle(OK, out),
            Command::Vrfy => {
                self.idle(Words(252, EnhancedCode(2, 5, 0), "Cannot VRFY, but will accept and attempt delivery"), out);
            }
            Command::Expn => self.error(Words(502, EnhancedCode(5, 5, 1), "EXPN is not offered"), out),
            Command::Help => {
                self.idle(
                    Words(214, EnhancedCode(2, 0, 0), "This is a gateway; see RFC 5321 and your mail administrator"),
                    out,
                );
            }
            // What is behind it matters: it was taken before.
            Command::StartTls => {}
            Command::Auth(Secret(argument)) => return self.auth(now, argument, out),
            Command::IdentityClaim => {
                self.conduct.offend(Offence::IdentityClaim, out);
                self.error(Words(550, EnhancedCode(5, 7, 1), "Clients do not tell this server who they are"), out);
            }
            Command::Http => {
                let words = Words(554, EnhancedCode(5, 5, 1), "This is no web server; goodbye");
                self.finish_with(End::AnotherProtocol, words, out);
            }
            Command::Unknown => self.error(Words(500, EnhancedCode(5, 5, 2), "Command not recognised"), out),
        }
        true
    }

    fn take_hello(&mut self, now: Millis, name: &str, esmtp: bool, out: &mut Output) -> bool {
        if !self.pipeline.is_empty() {
            return false;
        }
        if !self.spend_idle(out) {
            return true;
        }
        let known = self.client.hello.as_ref().is_some_and(|hello| hello.esmtp == esmtp && *hello.name == *name);
        if known && matches!(self.backend.state, Backend::Ready(_)) {
            // The backend knows it already, and perhaps who has logged in; only the transaction ends.
            if self.transaction.take().is_some() {
                self.toward_backend(out).extend_from_slice(b"RSET\r\n");
                self.expect(Expect::Hello, now);
                return true;
            }
        } else {
            // A new name is a new session for the backend too: the next MAIL opens it.
            self.leave_backend(out);
            self.client.hello = Some(Hello { name: name.into(), esmtp });
        }
        self.answer_hello(out);
        true
    }

    /// The answer to the hello that the client has said.
    pub(super) fn answer_hello(&self, out: &mut Output) {
        if self.client.hello.as_ref().is_some_and(|hello| hello.esmtp) {
            self.answer_ehlo(out);
        } else {
            encode_reply(250, None, &self.settings.hostname, &mut out.to_client);
        }
    }

    /// Ends the backend's session and the transaction, between commands; the next MAIL opens another.
    pub(super) fn leave_backend(&mut self, out: &mut Output) {
        if matches!(self.backend.state, Backend::Ready(_)) {
            out.to_backend.extend_from_slice(b"QUIT\r\n");
        }
        self.drop_backend(out);
        self.transaction = Transaction::None;
        self.login = None;
    }

    fn data(&mut self, now: Millis, out: &mut Output) -> bool {
        match &self.transaction {
            Transaction::None => self.error(NO_MAIL, out),
            Transaction::Lost => self.idle(TRANSACTION_LOST, out),
            Transaction::Open(open) => {
                if !matches!(open.chunks, Chunks::None) {
                    self.error(Words(503, EnhancedCode(5, 5, 1), "DATA after BDAT; RSET first"), out);
                } else if open.binary {
                    self.error(Words(503, EnhancedCode(5, 5, 1), "BODY=BINARYMIME needs BDAT"), out);
                } else if open.forwarded == 0 || (self.pipeline.is_empty() && open.accepted == 0) {
                    self.error(NO_RECIPIENTS, out);
                } else if self.client.crammed {
                    self.idle(CRAMMED, out);
                } else {
                    self.toward_backend(out).extend_from_slice(b"DATA\r\n");
                    self.expect(Expect::Data, now);
                    self.client.state = Client::AwaitGoAhead { early: false };
                }
            }
        }
        true
    }

    fn rset(&mut self, now: Millis, out: &mut Output) -> bool {
        if !self.pipeline.is_empty() {
            // A reply to what was asked before must not be taken for one to what is asked behind.
            return false;
        }
        if self.transaction.is_none() && !self.spend_idle(out) {
            return true;
        }
        self.transaction = Transaction::None;
        if matches!(self.backend.state, Backend::Ready(_)) {
            self.toward_backend(out).extend_from_slice(b"RSET\r\n");
            self.expect(Expect::Rset, now);
        } else {
            self.reply(OK, out);
        }
        true
    }

    fn quit(&mut self, out: &mut Output) -> bool {
        if !self.pipeline.is_empty() {
            return false;
        }
        self.finish_with(End::Quit, Words(221, EnhancedCode(2, 0, 0), "Bye"), out);
        true
    }

    /// Whether the backend takes a command before it has answered the last (RFC 2920).
    fn pipelines(&self) -> bool {
        self.dialect.pipelines() && self.client.hello.as_ref().is_some_and(|hello| hello.esmtp)
    }

    /// The client sent something behind DATA before the backend's 354. True if the session goes on at once.
    pub(super) fn early_body(&mut self, out: &mut Output) -> bool {
        out.actions.push(Action::Refused(Refused::EarlyTalk));
        self.conduct.offend(Offence::EarlyTalk, out);
        match self.settings.early_talk {
            EarlyTalk::Reject => {
                self.reject_early_talk(out);
                true
            }
            EarlyTalk::Log => {
                self.client.state = Client::AwaitGoAhead { early: true };
                false
            }
        }
    }

    /// A PROXY header came before anything else. It is a load balancer that this listener does not list, or a stranger
    /// who would like to be somebody else; either gets no further. Of a version 2 header nothing is read as a command.
    pub(super) fn refuse_proxy_header(&mut self, out: &mut Output) {
        out.actions.push(Action::Refused(Refused::ProxyHeader));
        let words = Words(554, EnhancedCode(5, 7, 1), "PROXY headers are not taken here; list the load balancer");
        self.finish_with(End::ProxyHeader, words, out);
    }

    pub(super) fn reject_early_talk(&mut self, out: &mut Output) {
        self.drop_backend(out);
        self.finish_with(End::EarlyTalk, Words(554, EnhancedCode(5, 5, 0), "You talked before you were asked"), out);
    }

    fn refuse_line(&mut self, fault: LineFault, out: &mut Output) {
        let words = match fault {
            LineFault::TooLong => Words(500, EnhancedCode(5, 5, 2), "Line too long"),
            LineFault::BareCr | LineFault::BareLf => {
                Words(500, EnhancedCode(5, 5, 2), "A line ends in CRLF and holds no other CR or LF")
            }
            LineFault::Nul => Words(500, EnhancedCode(5, 5, 2), "NUL in a command"),
        };
        self.error(words, out);
    }

    fn refuse_command(&mut self, now: Millis, error: &CommandError, out: &mut Output) {
        if error.is_bdat {
            // How many octets follow is unknown, so no more of this message can be understood.
            if let Some(report) = self.break_chunks() {
                self.message_answered(now, report, error.code, error.text, out);
            }
        }
        self.error(Words(error.code, error.enhanced, error.text), out);
    }

    /// Answers in order, at no cost to the client.
    pub(super) fn reply(&mut self, words: Words, out: &mut Output) {
        self.pipeline.answer(&mut out.to_client, |to| words.encode(to));
    }

    /// Answers a command that was refused, and charges for it.
    pub(super) fn error(&mut self, words: Words, out: &mut Output) {
        self.reply(words, out);
        self.charge_error(out);
    }

    /// Charges for a refused command; past the budget the session ends.
    pub(super) fn charge_error(&mut self, out: &mut Output) {
        if self.conduct.refused(&self.settings.limits) == Spent::Exhausted {
            self.give_up(End::TooManyErrors, "Too many errors", out);
        }
    }

    /// Answers a command that brings no mail nearer.
    pub(super) fn idle(&mut self, words: Words, out: &mut Output) {
        if self.spend_idle(out) {
            self.reply(words, out);
        }
    }

    pub(super) fn spend_idle(&mut self, out: &mut Output) -> bool {
        let within = self.conduct.idle(&self.settings.limits) == Spent::Within;
        if !within {
            self.give_up(End::TooManyCommands, "Too many commands without mail", out);
        }
        within
    }

    fn give_up(&mut self, end: End, text: &'static str, out: &mut Output) {
        self.finish_with(end, Words(421, EnhancedCode(4, 7, 0), text), out);
    }

    /// Where bytes for the backend go: out, or held until its session is open.
    pub(super) fn toward_backend<'a>(&'a mut self, out: &'a mut Output) -> &'a mut Vec<u8> {
        self.backend.state.held_mut().unwrap_or(&mut out.to_backend)
    }

    /// The longest line that `input` may begin with.
    fn line_max(&self, input: &[u8]) -> usize {
        if self.settings.submission.is_some() && is_auth(input) { AUTH_LINE_MAX } else { ENVELOPE_LINE_MAX }
    }

    /// Queues an expectation; the backend's clock starts with the first.
    pub(super) fn expect(&mut self, expect: Expect, now: Millis) {
        if !self.backend_owes() {
            self.give_backend(now, self.settings.timeouts.reply);
        }
        self.pipeline.expect(expect);
    }
}

/// AUTH as whoever follows the client is shown it: with its mechanism, and without what is behind that.
fn without_secret(line: &[u8]) -> Vec<u8> {
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let mut shown = words.by_ref().take(2).collect::<Vec<_>>().join(&b' ');
    if words.next().is_some() {
        shown.extend_from_slice(b" (not shown)");
    }
    shown.extend_from_slice(b"\r\n");
    shown
}

/// Whether the line is a MAIL, a RCPT or an AUTH, which may be longer.
fn is_longer(line: &[u8]) -> bool {
    is_auth(line)
        || line.get(..4).is_some_and(|verb| verb.eq_ignore_ascii_case(b"MAIL") || verb.eq_ignore_ascii_case(b"RCPT"))
}
