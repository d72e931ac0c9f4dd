//! The client half between bodies: each command is answered here or sent on.
//!
//! A command is checked against what this client was told it may use and against the transaction it has asked for, then
//! encoded anew from its parsed view: no line of the client's reaches the backend as it came.

use crate::config::EarlyTalk;
use crate::policy::budget::Spent;
use crate::policy::relay_guard::RelayVerdict;
use crate::smtp::address::{ForwardPath, ReversePath};
use crate::smtp::command::{Command, CommandError, Params, Verb, encode_mail, encode_rcpt, parse_command};
use crate::smtp::ehlo::Extensions;
use crate::smtp::line::{Line, LineFault, skip_line, split_line};
use crate::smtp::reply::{EnhancedCode, encode_reply};

use super::end::{End, Words};
use super::handshake::Backend;
use super::pipeline::Expect;
use super::report::MessageReport;
use super::transaction::{Chunks, Open, Transaction};
use super::{Action, Client, Hello, Millis, Output, Session};

/// Longest command line in bytes, CRLF included: 512 (RFC 5321 section 4.5.3.1.4) plus what the extensions offered add
/// to MAIL and RCPT: SIZE 26, BODY 17, SMTPUTF8 10 and paths of 4 times the length, RET 9, ENVID 107, NOTIFY 28, ORCPT 500.
const COMMAND_LINE_MAX: usize = 2048;
/// A line that is longer than this in all is not waited for to end.
const SKIP_MAX: usize = 256 * 1024;
/// Commands held for a backend that is not open yet, in bytes; a client that pipelines more waits.
const HELD_MAX: usize = 16 * 1024;
/// Recipients named in the log for one message.
const RECIPIENTS_REPORTED: usize = 10;

const NO_MAIL: Words = Words(503, EnhancedCode(5, 5, 1), "MAIL first");
const NO_HELLO: Words = Words(503, EnhancedCode(5, 5, 1), "EHLO or HELO first");
const NO_RECIPIENTS: Words = Words(554, EnhancedCode(5, 5, 1), "No valid recipients");
const LOST: Words =
    Words(451, EnhancedCode(4, 4, 2), "The mail server's connection was lost; start the transaction again");
const UNKNOWN_PARAMETER: Words =
    Words(555, EnhancedCode(5, 5, 4), "Parameter not recognised, or its extension was not offered");
const BAD_VALUE: Words = Words(501, EnhancedCode(5, 5, 4), "Parameter value not understood");
const TOO_LARGE: Words = Words(552, EnhancedCode(5, 3, 4), "The message is larger than may be");
const NEEDS_UTF8: Words = Words(553, EnhancedCode(5, 6, 7), "An address with non-ASCII characters needs SMTPUTF8");

impl Session {
    /// Takes at most one command from `input`; how many bytes it was, 0 if it must wait or is incomplete.
    pub(super) fn take_command(&mut self, now: Millis, input: &[u8], out: &mut Output) -> usize {
        let in_step = self.pipelines() || !self.pipeline.awaits_backend();
        if !in_step || self.pipeline.is_full() || self.backend.held() > HELD_MAX {
            self.flags.stalled = true;
            return 0;
        }
        if let Client::Commands { skipping: skipped @ 1.. } = self.client {
            return self.skip_rest(skipped, input, out);
        }
        match split_line(input, COMMAND_LINE_MAX) {
            Line::Incomplete => 0,
            Line::Overlong { used } => {
                self.client = Client::Commands { skipping: used.max(1) };
                used
            }
            Line::Faulty { fault, used } => {
                self.refuse_line(fault, out);
                used
            }
            Line::Complete { text, used } => {
                let handled = match parse_command(text) {
                    Ok(command) => self.command(now, &command, out),
                    Err(error) => {
                        self.refuse_command(&error, out);
                        true
                    }
                };
                if !handled {
                    self.flags.stalled = true;
                    return 0;
                }
                if matches!(self.client, Client::Commands { .. }) {
                    self.client_deadline = now.after(self.settings.timeouts.command);
                }
                used
            }
        }
    }

    fn skip_rest(&mut self, skipped: usize, input: &[u8], out: &mut Output) -> usize {
        let (used, ended) = skip_line(input);
        if ended {
            self.client = Client::Commands { skipping: 0 };
            self.refuse_line(LineFault::TooLong, out);
        } else if skipped + used > SKIP_MAX {
            self.finish_with(End::Flood, Words(421, EnhancedCode(4, 7, 0), "Line without end"), out);
        } else {
            self.client = Client::Commands { skipping: skipped + used };
        }
        used
    }

    /// Does what the command asks. False if it must wait for the backend first.
    fn command(&mut self, now: Millis, command: &Command<'_>, out: &mut Output) -> bool {
        match *command {
            Command::Ehlo(name) => return self.take_hello(name, true, out),
            Command::Helo(name) => return self.take_hello(name, false, out),
            Command::Mail { path, params } => self.mail(now, &path, params, out),
            Command::Rcpt { path, params } => self.rcpt(&path, params, now, out),
            Command::Data => return self.data(now, out),
            Command::Bdat { length, last } => return self.bdat(now, length, last, out),
            Command::Rset => return self.rset(now, out),
            Command::Quit => return self.quit(out),
            Command::Noop => self.idle(Words(250, EnhancedCode(2, 0, 0), "Ok"), out),
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
            Command::StartTls => self.error(Words(502, EnhancedCode(5, 5, 1), "STARTTLS is not offered"), out),
            Command::Auth => self.error(Words(502, EnhancedCode(5, 5, 1), "AUTH is not offered"), out),
            Command::IdentityClaim => {
                self.error(Words(550, EnhancedCode(5, 7, 1), "Clients do not tell this server who they are"), out);
            }
            Command::Unknown => self.error(Words(500, EnhancedCode(5, 5, 2), "Command not recognised"), out),
        }
        true
    }

    fn take_hello(&mut self, name: &str, esmtp: bool, out: &mut Output) -> bool {
        if !self.pipeline.is_empty() {
            return false;
        }
        if !self.spend_idle(out) {
            return true;
        }
        // A new name is a new session for the backend too: the next MAIL opens it.
        if matches!(self.backend, Backend::Ready(_)) {
            out.to_backend.extend_from_slice(b"QUIT\r\n");
        }
        self.drop_backend(out);
        self.transaction = Transaction::None;
        self.hello = Some(Hello { name: name.into(), esmtp });
        if esmtp {
            out.to_client.extend_from_slice(&self.dialect.ehlo_reply);
        } else {
            encode_reply(250, None, &self.settings.hostname, &mut out.to_client);
        }
        true
    }

    fn mail(&mut self, now: Millis, path: &ReversePath<'_>, params: Params<'_>, out: &mut Output) {
        let Some(hello) = &self.hello else { return self.error(NO_HELLO, out) };
        if let Transaction::Open(_) = self.transaction {
            return self.error(Words(503, EnhancedCode(5, 5, 1), "Nested MAIL"), out);
        }
        if self.flags.draining {
            return self.settle_end(out);
        }
        let needs = match self.mail_needs(hello.esmtp, path, params) {
            Ok(needs) => needs,
            Err(words) => return self.error(words, out),
        };
        if self.budget.message(&self.settings.limits) == Spent::Exhausted {
            return self.finish_with(End::TooManyCommands, Words(421, EnhancedCode(4, 7, 0), "Too many messages"), out);
        }
        let mut report = Box::new(MessageReport::new(now));
        if self.settings.record_messages {
            report.from = Some(match path {
                ReversePath::Null => "".into(),
                ReversePath::Mailbox(mailbox) => mailbox.text.into(),
            });
        }
        self.transaction = Transaction::Open(Box::new(Open {
            needs,
            asked: 0,
            forwarded: 0,
            accepted: 0,
            binary: needs.contains(Extensions::BINARYMIME),
            chunks: Chunks::None,
            report,
        }));
        if matches!(self.backend, Backend::None) {
            self.dial(now, out);
        }
        encode_mail(path, params.iter(), self.to_backend(out));
        self.expect(Expect::Mail, now);
    }

    /// Which extensions MAIL uses, all of which were offered; or what to answer.
    fn mail_needs(&self, esmtp: bool, path: &ReversePath<'_>, params: Params<'_>) -> Result<Extensions, Words> {
        let mut needs = Extensions::default();
        for param in params.iter() {
            let (extension, value_ok) = match &*param.keyword.to_ascii_uppercase() {
                "SIZE" => (Extensions::SIZE, self.size_allowed(param.value)?),
                "BODY" => match param.value.map(str::to_ascii_uppercase).as_deref() {
                    Some("7BIT" | "8BITMIME") => (Extensions::EIGHT_BIT_MIME, true),
                    Some("BINARYMIME") => (Extensions::BINARYMIME.union(Extensions::CHUNKING), true),
                    _ => return Err(BAD_VALUE),
                },
                "SMTPUTF8" => (Extensions::SMTPUTF8, param.value.is_none()),
                "RET" => (
                    Extensions::DSN,
                    param.value.is_some_and(|v| v.eq_ignore_ascii_case("FULL") || v.eq_ignore_ascii_case("HDRS")),
                ),
                "ENVID" => (Extensions::DSN, param.value.is_some_and(is_xtext)),
                _ => return Err(UNKNOWN_PARAMETER),
            };
            if !esmtp || !self.dialect.offered.contains(extension) {
                return Err(UNKNOWN_PARAMETER);
            }
            if !value_ok {
                return Err(BAD_VALUE);
            }
            needs = needs.union(extension);
        }
        if path.needs_utf8() && !needs.contains(Extensions::SMTPUTF8) {
            return Err(NEEDS_UTF8);
        }
        Ok(needs)
    }

    fn size_allowed(&self, value: Option<&str>) -> Result<bool, Words> {
        let Some(digits) = value.filter(|v| !v.is_empty() && v.len() <= 20 && v.bytes().all(|b| b.is_ascii_digit()))
        else {
            return Ok(false);
        };
        // Twenty digits may exceed 64 bits; such a size exceeds every limit too.
        let size = digits.parse().unwrap_or(u64::MAX);
        if self.dialect.size_max != 0 && size > self.dialect.size_max { Err(TOO_LARGE) } else { Ok(true) }
    }

    fn rcpt(&mut self, path: &ForwardPath<'_>, params: Params<'_>, now: Millis, out: &mut Output) {
        match self.transaction {
            Transaction::None => return self.error(NO_MAIL, out),
            Transaction::Lost => return self.answer(LOST, out),
            Transaction::Open(_) => {}
        }
        if let Err(words) = self.rcpt_allowed(path, params) {
            if words.0 == 550 {
                self.totals.relay_denied += 1;
                out.actions.push(Action::RelayDenied);
            }
            return self.error(words, out);
        }
        let record = self.settings.record_messages;
        let limit = self.settings.limits.recipients;
        let Some(open) = self.transaction.open_mut() else { return };
        open.asked += 1;
        if open.asked > limit {
            return self.error(Words(452, EnhancedCode(4, 5, 3), "Too many recipients"), out);
        }
        open.forwarded += 1;
        if params.iter().next().is_some() {
            open.needs = open.needs.union(Extensions::DSN);
        }
        if record && open.report.recipients.len() < RECIPIENTS_REPORTED {
            open.report.recipients.push(match path {
                ForwardPath::Postmaster => "postmaster".into(),
                ForwardPath::Mailbox(mailbox) => mailbox.text.into(),
            });
        }
        encode_rcpt(path, params.iter(), self.to_backend(out));
        self.expect(Expect::Rcpt, now);
    }

    fn rcpt_allowed(&self, path: &ForwardPath<'_>, params: Params<'_>) -> Result<(), Words> {
        let utf8 = match &self.transaction {
            Transaction::Open(open) => open.needs.contains(Extensions::SMTPUTF8),
            Transaction::None | Transaction::Lost => false,
        };
        if path.needs_utf8() && !utf8 {
            return Err(NEEDS_UTF8);
        }
        match self.settings.relay.judge(self.client_addr, path) {
            RelayVerdict::Pass => {}
            RelayVerdict::BadDomain => return Err(Words(501, EnhancedCode(5, 1, 3), "That is no domain name")),
            RelayVerdict::RelayDenied => return Err(Words(550, EnhancedCode(5, 7, 1), "Relaying denied")),
            RelayVerdict::RoutedLocalPart => {
                return Err(Words(550, EnhancedCode(5, 7, 1), "Relaying denied: the local part reads as a route"));
            }
        }
        let dsn = self.dialect.offered.contains(Extensions::DSN) && self.hello.as_ref().is_some_and(|h| h.esmtp);
        for param in params.iter() {
            let value_ok = match &*param.keyword.to_ascii_uppercase() {
                "NOTIFY" if dsn => param.value.is_some_and(is_notify),
                "ORCPT" if dsn => param
                    .value
                    .is_some_and(|v| v.split_once(';').is_some_and(|(kind, a)| !kind.is_empty() && !a.is_empty())),
                _ => return Err(UNKNOWN_PARAMETER),
            };
            if !value_ok {
                return Err(BAD_VALUE);
            }
        }
        Ok(())
    }

    fn data(&mut self, now: Millis, out: &mut Output) -> bool {
        match &self.transaction {
            Transaction::None => self.error(NO_MAIL, out),
            Transaction::Lost => self.answer(LOST, out),
            Transaction::Open(open) => {
                if !matches!(open.chunks, Chunks::None) {
                    self.error(Words(503, EnhancedCode(5, 5, 1), "DATA after BDAT; RSET first"), out);
                } else if open.binary {
                    self.error(Words(503, EnhancedCode(5, 5, 1), "BODY=BINARYMIME needs BDAT"), out);
                } else if open.forwarded == 0 || (self.pipeline.is_empty() && open.accepted == 0) {
                    self.error(NO_RECIPIENTS, out);
                } else {
                    self.to_backend(out).extend_from_slice(b"DATA\r\n");
                    self.expect(Expect::Data, now);
                    self.client = Client::AwaitGoAhead { early: false };
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
        if matches!(self.backend, Backend::Ready(_)) {
            self.to_backend(out).extend_from_slice(b"RSET\r\n");
            self.expect(Expect::Rset, now);
        } else {
            self.answer(Words(250, EnhancedCode(2, 0, 0), "Ok"), out);
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
        self.dialect.pipelines() && self.hello.as_ref().is_some_and(|hello| hello.esmtp)
    }

    /// The client sent something behind DATA before the backend's 354. True if the session goes on at once.
    pub(super) fn early_body(&mut self, out: &mut Output) -> bool {
        out.actions.push(Action::EarlyTalk);
        match self.settings.early_talk {
            EarlyTalk::Reject => {
                self.reject_early_talk(out);
                true
            }
            EarlyTalk::Log => {
                self.client = Client::AwaitGoAhead { early: true };
                false
            }
        }
    }

    /// The client talked before the greeting. True if the session ended for it.
    pub fn early_greeting(&mut self, out: &mut Output) -> bool {
        out.actions.push(Action::EarlyTalk);
        if self.settings.early_talk == EarlyTalk::Reject {
            self.reject_early_talk(out);
        }
        self.end.is_some()
    }

    pub(super) fn reject_early_talk(&mut self, out: &mut Output) {
        self.transaction = Transaction::None;
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

    fn refuse_command(&mut self, error: &CommandError, out: &mut Output) {
        if error.verb == Verb::Bdat {
            // How many octets follow is unknown, so no more of this message can be understood.
            if let Some(open) = self.transaction.open_mut() {
                open.chunks = Chunks::Broken;
            }
        }
        self.error(Words(error.code, error.enhanced, error.text), out);
    }

    /// Answers in order, at no cost to the client.
    pub(super) fn answer(&mut self, words: Words, out: &mut Output) {
        self.pipeline.answer(&mut out.to_client, |to| words.encode(to));
    }

    /// Answers a command that was refused, and charges for it.
    pub(super) fn error(&mut self, words: Words, out: &mut Output) {
        self.answer(words, out);
        self.charge_error(out);
    }

    /// Charges for a refused command; past the budget the session ends.
    pub(super) fn charge_error(&mut self, out: &mut Output) {
        self.totals.errors += 1;
        if self.budget.error(&self.settings.limits) == Spent::Exhausted {
            self.give_up(End::TooManyErrors, "Too many errors", out);
        }
    }

    /// Answers a command that brings no mail nearer.
    fn idle(&mut self, words: Words, out: &mut Output) {
        if self.spend_idle(out) {
            self.answer(words, out);
        }
    }

    fn spend_idle(&mut self, out: &mut Output) -> bool {
        let within = self.budget.idle_command(&self.settings.limits) == Spent::Within;
        if !within {
            self.give_up(End::TooManyCommands, "Too many commands without mail", out);
        }
        within
    }

    fn give_up(&mut self, end: End, text: &'static str, out: &mut Output) {
        self.transaction = Transaction::None;
        self.finish_with(end, Words(421, EnhancedCode(4, 7, 0), text), out);
    }

    /// Where bytes for the backend go: out, or held until its session is open.
    fn to_backend<'a>(&'a mut self, out: &'a mut Output) -> &'a mut Vec<u8> {
        self.backend.held_mut().unwrap_or(&mut out.to_backend)
    }

    /// Queues an expectation; the backend's clock starts with the first.
    pub(super) fn expect(&mut self, expect: Expect, now: Millis) {
        if !self.backend_owes() {
            self.backend_deadline = now.after(self.settings.timeouts.reply);
        }
        self.pipeline.expect(expect);
    }
}

fn is_xtext(value: &str) -> bool {
    crate::smtp::xtext::decode(value.as_bytes()).is_some()
}

fn is_notify(value: &str) -> bool {
    value.eq_ignore_ascii_case("NEVER")
        || value.split(',').all(|w| ["SUCCESS", "FAILURE", "DELAY"].iter().any(|known| w.eq_ignore_ascii_case(known)))
}
