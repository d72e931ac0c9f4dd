//! The client half's envelope: MAIL and RCPT with their parameters (RFC 5321 sections 4.1.1.2 and 4.1.1.3, RFC 1870, 3461,
//! 6152, 6531).
//!
//! What passes here was offered to this client, is well-formed, and was let pass by the relay guard.

use std::time::Duration;

use crate::policy::budget::Spent;
use crate::policy::offences::Offence;
use crate::policy::relay_guard::{Hold, RelayVerdict};
use crate::smtp::address::{Domain, ForwardPath, Mailbox, ReversePath};
use crate::smtp::command::{Param, Params, encode_mail, encode_rcpt};
use crate::smtp::domains::Membership;
use crate::smtp::ehlo::Extensions;
use crate::smtp::reply::{EnhancedCode, encode_reply};
use crate::smtp::xtext;
use crate::time::Millis;

use super::action::{Action, Output, Refused};
use super::backend::Backend;
use super::chunks::Chunks;
use super::client::{Asked, Client, Wait};
use super::end::End;
use super::kept_envelope::KeptEnvelope;
use super::machine::Session;
use super::pipeline::Expect;
use super::question::{Question, RecipientVerdict};
use super::report::MessageReport;
use super::transaction::{Open, Routed, Transaction};
use super::words::{HELD, NO_IDENTITY, NO_MAIL, TOO_LARGE, TRANSACTION_LOST, Words};

/// Recipients named in the log for one message.
const RECIPIENTS_REPORTED: usize = 10;

/// How long a recipient is asked about; then it passes.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

const NO_HELLO: Words = Words(503, EnhancedCode(5, 5, 1), "EHLO or HELO first");
const NESTED: Words = Words(503, EnhancedCode(5, 5, 1), "Nested MAIL");
/// Takes no responsibility: what it is for, RCPT's reply decides, and that is the backend's.
const SENDER_OK: Words = Words(250, EnhancedCode(2, 1, 0), "Ok");
const TOO_MANY_MESSAGES: Words = Words(421, EnhancedCode(4, 7, 0), "Too many messages");
const TOO_MANY_RECIPIENTS: Words = Words(452, EnhancedCode(4, 5, 3), "Too many recipients");
const UNKNOWN_PARAMETER: Words =
    Words(555, EnhancedCode(5, 5, 4), "Parameter not recognised, or its extension was not offered");
/// RFC 8689 section 4.2.1 says which code is for what.
const REQUIRETLS_IN_CLEAR: Words =
    Words(530, EnhancedCode(5, 7, 10), "Encryption needed: REQUIRETLS is for messages that come over TLS");
const REQUIRETLS_ONWARD: Words = Words(
    550,
    EnhancedCode(5, 7, 10),
    "Encryption needed: the way on from here is not verified TLS, as REQUIRETLS wants",
);
const NO_REQUIRETLS: Words =
    Words(550, EnhancedCode(5, 7, 30), "REQUIRETLS support required, and the mail server behind does not offer it");
const REQUIRETLS_UNKNOWN: Words =
    Words(451, EnhancedCode(4, 7, 30), "Whether the mail server behind supports REQUIRETLS is not known yet");
const BAD_VALUE: Words = Words(501, EnhancedCode(5, 5, 4), "Parameter value not understood");
const TWICE: Words = Words(501, EnhancedCode(5, 5, 4), "A parameter was given twice");
const NEEDS_UTF8: Words = Words(553, EnhancedCode(5, 6, 7), "An address with non-ASCII characters needs SMTPUTF8");
const BAD_DOMAIN: Words = Words(501, EnhancedCode(5, 1, 3), "That is no domain name");
const RELAY_DENIED: Words = Words(550, EnhancedCode(5, 7, 1), "Relaying denied");
const ROUTED: Words = Words(550, EnhancedCode(5, 7, 1), "Relaying denied: the local part reads as a route");

impl Session {
    /// MAIL. False while replies are owed: one to an earlier transaction must not be taken for one to this.
    pub(super) fn mail(&mut self, now: Millis, path: &ReversePath<'_>, params: Params<'_>, out: &mut Output) -> bool {
        if !self.pipeline.is_empty() {
            return false;
        }
        if let Err(words) = self.begin_transaction(now, path, params, out) {
            self.error(words, out);
        }
        true
    }

    fn begin_transaction(
        &mut self,
        now: Millis,
        path: &ReversePath<'_>,
        params: Params<'_>,
        out: &mut Output,
    ) -> Result<(), Words> {
        let esmtp = self.client.hello.as_ref().ok_or(NO_HELLO)?.esmtp;
        if let Transaction::Open(_) = self.transaction {
            return Err(NESTED);
        }
        self.may_submit()?;
        self.route_the_nameless(out);
        if self.ends_for_lost_login(out) {
            return Ok(());
        }
        if self.client.draining {
            self.settle_end(out);
            return Ok(());
        }
        if let ReversePath::Mailbox(mailbox) = path
            && self.settings.relay.local_domains.contains(&mailbox.domain) == Membership::Invalid
        {
            return Err(BAD_DOMAIN);
        }
        self.may_send_as(path)?;
        let needs = self.mail_needs(esmtp, path, params)?;
        let is_routed = self.settings.routes.is_some();
        if !is_routed && !self.may_begin(self.client.hold, out) {
            return Ok(());
        }
        if self.conduct.message_begins(&self.settings.limits) == Spent::Exhausted {
            self.finish_with(End::TooManyCommands, TOO_MANY_MESSAGES, out);
            return Ok(());
        }
        let mut report = Box::new(MessageReport::new(now));
        report.route = self.backend.route;
        if self.settings.record_messages {
            report.from = Some(path.as_str().into());
        }
        self.transaction = Transaction::Open(Box::new(Open {
            needs,
            asked: 0,
            forwarded: 0,
            accepted: 0,
            relay_denied: false,
            routed: is_routed.then(|| routed(path, self.told(esmtp, params))),
            kept: None,
            binary: needs.contains(Extensions::BINARYMIME),
            chunks: Chunks::None,
            report,
        }));
        if is_routed {
            self.reply(SENDER_OK, out);
            return Ok(());
        }
        if matches!(self.backend.state, Backend::None) {
            self.dial(now, out);
        }
        let told = self.told(esmtp, params);
        let to_backend = self.toward_backend(out);
        let from = to_backend.len();
        encode_mail(path, told, to_backend);
        if self.may_replay() {
            let kept = KeptEnvelope::new(&self.toward_backend(out)[from..]);
            if let Some(open) = self.transaction.open_mut() {
                open.kept = Some(Box::new(kept));
            }
        }
        self.expect(Expect::Mail, now);
        Ok(())
    }

    /// The parameters of MAIL that are passed on.
    fn told<'a>(&self, esmtp: bool, params: Params<'a>) -> impl Iterator<Item = Param<'a>> + use<'a> {
        let told = self.tells(esmtp);
        params.iter().filter(move |param| told.holds(&param.keyword.to_ascii_uppercase()))
    }

    fn tells(&self, esmtp: bool) -> Told {
        Told { esmtp, dsn: self.offers_dsn(), login: self.login.is_some() }
    }

    fn offers_dsn(&self) -> bool {
        self.dialect.offered.contains(Extensions::DSN) && self.client.hello.as_ref().is_some_and(|hello| hello.esmtp)
    }

    /// Whether a transaction may begin with the backend that the session has, or is to have. If not, that was answered.
    fn may_begin(&mut self, hold: Hold, out: &mut Output) -> bool {
        let refusal = match hold {
            Hold::Defer => HELD,
            _ if !self.can_be_told() => NO_IDENTITY,
            _ => return true,
        };
        self.reply(refusal, out);
        false
    }

    /// Which extensions MAIL uses, all of which were offered; or what to answer.
    fn mail_needs(&self, esmtp: bool, path: &ReversePath<'_>, params: Params<'_>) -> Result<Extensions, Words> {
        let mut needs = Extensions::default();
        let mut seen = Seen::default();
        for param in params.iter() {
            let keyword = param.keyword.to_ascii_uppercase();
            let (extension, value_ok) = match &*keyword {
                "SIZE" => (Extensions::SIZE, self.size_allowed(param.value)?),
                "BODY" => match param.value.map(str::to_ascii_uppercase).as_deref() {
                    Some("7BIT" | "8BITMIME") => (Extensions::EIGHT_BIT_MIME, true),
                    Some("BINARYMIME") if !esmtp => return Err(UNKNOWN_PARAMETER),
                    Some("BINARYMIME") => (Extensions::BINARYMIME.union(Extensions::CHUNKING), true),
                    _ => return Err(BAD_VALUE),
                },
                "SMTPUTF8" => (Extensions::SMTPUTF8, param.value.is_none()),
                "RET" => (
                    Extensions::DSN,
                    param.value.is_some_and(|v| v.eq_ignore_ascii_case("FULL") || v.eq_ignore_ascii_case("HDRS")),
                ),
                "AUTH" => (Extensions::default(), param.value.is_some_and(is_xtext)),
                "REQUIRETLS" if !self.client.secured => return Err(REQUIRETLS_IN_CLEAR),
                "REQUIRETLS" if !self.dialect.is_learned() => return Err(REQUIRETLS_UNKNOWN),
                "REQUIRETLS" if !self.dialect.verified => return Err(REQUIRETLS_ONWARD),
                "REQUIRETLS" if !self.dialect.offered.contains(Extensions::REQUIRETLS) => return Err(NO_REQUIRETLS),
                "REQUIRETLS" => (Extensions::REQUIRETLS, param.value.is_none()),
                "ENVID" => (Extensions::DSN, param.value.is_some_and(is_xtext)),
                _ => return Err(UNKNOWN_PARAMETER),
            };
            let told = self.tells(esmtp).holds(&keyword);
            if told && (!esmtp || !self.dialect.offered.contains(extension)) {
                return Err(UNKNOWN_PARAMETER);
            }
            if !value_ok {
                return Err(BAD_VALUE);
            }
            seen.once(keyword)?;
            if told {
                needs = needs.union(extension);
            }
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
        let users = self.settings.submission.is_some();
        let size_max = if users { self.dialect.users.size_max } else { self.dialect.mx.size_max };
        if size_max != 0 && size > size_max { Err(TOO_LARGE) } else { Ok(true) }
    }

    /// RCPT.
    pub(super) fn rcpt(&mut self, path: &ForwardPath<'_>, params: Params<'_>, now: Millis, out: &mut Output) {
        match self.transaction {
            Transaction::None => return self.error(NO_MAIL, out),
            Transaction::Lost => return self.idle(TRANSACTION_LOST, out),
            Transaction::Open(_) => {}
        }
        let (decision, hold) = match self.route(path) {
            Some(decision) => (Some(decision), self.backend.holds.get(decision.place).copied().unwrap_or_default()),
            None => (None, self.client.hold),
        };
        if let Err(words) = self.rcpt_allowed(path, params, hold) {
            if matches!(words, RELAY_DENIED | ROUTED) {
                self.count_relay_denied(path, out);
            }
            return self.error(words, out);
        }
        let params = if self.offers_dsn() { params } else { Params::default() };
        let record = self.settings.record_messages;
        let limit = self.settings.limits.recipients;
        let Some(open) = self.transaction.open_mut() else { return };
        open.asked += 1;
        if open.asked > limit {
            return self.error(TOO_MANY_RECIPIENTS, out);
        }
        if !params.is_empty() {
            open.needs = open.needs.union(Extensions::DSN);
        }
        if record && open.report.recipients.len() < RECIPIENTS_REPORTED {
            open.report.recipients.push(path.as_str().into());
        }
        if let Some(decision) = decision {
            let mut command = Vec::new();
            encode_rcpt(path, params.iter(), &mut command);
            return self.rcpt_routed(now, (decision, hold), command, out);
        }
        if self.settings.asks_recipients {
            let mut command = Vec::new();
            encode_rcpt(path, params.iter(), &mut command);
            let ticket = self.tickets.next();
            self.client.wait = Wait::Recipient(Box::new(Asked { ticket, until: now.after(ANSWER_WAIT), command }));
            out.actions.push(Action::Ask(ticket, Question::Recipient(path.as_str().into())));
            return;
        }
        open.forwarded += 1;
        let Self { backend, transaction, .. } = self;
        let to_backend = backend.state.held_mut().unwrap_or(&mut out.to_backend);
        let from = to_backend.len();
        encode_rcpt(path, params.iter(), to_backend);
        if let Some(open) = transaction.open_mut() {
            open.keep(&to_backend[from..]);
        }
        self.expect(Expect::Rcpt, now);
    }

    /// A recipient that was asked about passes, or does not. Its reply has its place: nothing was taken behind it.
    pub(super) fn recipient_judged(&mut self, now: Millis, verdict: RecipientVerdict, out: &mut Output) {
        let Wait::Recipient(asked) = std::mem::take(&mut self.client.wait) else { return };
        let Some(open) = self.transaction.open_mut() else {
            // The backend was lost meanwhile.
            return self.idle(TRANSACTION_LOST, out);
        };
        match verdict {
            RecipientVerdict::Pass => {
                open.forwarded += 1;
                open.keep(&asked.command);
                // Behind what is being said to another server, it comes of itself.
                if !self.pipeline.awaits_replay() {
                    self.toward_backend(out).extend_from_slice(&asked.command);
                }
                self.expect(Expect::Rcpt, now);
            }
            RecipientVerdict::Refuse { code, enhanced, text } => {
                self.pipeline.answer(&mut out.to_client, |to| encode_reply(code, Some(enhanced), &text, to));
                self.charge_error(out);
            }
        }
        if matches!(self.client.state, Client::Commands { .. }) {
            self.client.deadline = self.command_deadline(now);
            self.settle_end(out);
        }
    }

    /// Counts a recipient that the guard refused. Its transaction is one attempt, however many there are: a stranger writes
    /// as many into one message as he likes, and whoever relays it is not to blame for each.
    fn count_relay_denied(&mut self, path: &ForwardPath<'_>, out: &mut Output) {
        self.conduct.relay_denied();
        if let ForwardPath::Mailbox(mailbox) = path {
            out.actions.push(Action::Refused(Refused::Relay(mailbox.domain_text().into())));
        }
        if let Some(open) = self.transaction.open_mut()
            && !std::mem::replace(&mut open.relay_denied, true)
        {
            self.conduct.offend(Offence::RelayAttempt, out);
        }
    }

    fn rcpt_allowed(&self, path: &ForwardPath<'_>, params: Params<'_>, hold: Hold) -> Result<(), Words> {
        let utf8 = self.utf8();
        if path.needs_utf8() && !utf8 {
            return Err(NEEDS_UTF8);
        }
        let guard = &self.settings.relay;
        let verdict = match hold {
            Hold::None => guard.judge(self.client_addr, path),
            Hold::Plain | Hold::Defer => guard.judge_plain(self.client_addr, path),
        };
        match verdict {
            RelayVerdict::Pass => {}
            // A user is no stranger.
            RelayVerdict::RelayDenied | RelayVerdict::RoutedLocalPart if self.login.is_some() => {}
            RelayVerdict::BadDomain => return Err(BAD_DOMAIN),
            RelayVerdict::RelayDenied => return Err(RELAY_DENIED),
            RelayVerdict::RoutedLocalPart => return Err(ROUTED),
        }
        let mut seen = Seen::default();
        for param in params.iter() {
            let keyword = param.keyword.to_ascii_uppercase();
            let value_ok = match &*keyword {
                "NOTIFY" => param.value.is_some_and(is_notify),
                "ORCPT" => param.value.is_some_and(|value| is_orcpt(value, utf8)),
                _ => return Err(UNKNOWN_PARAMETER),
            };
            if !value_ok {
                return Err(BAD_VALUE);
            }
            seen.once(keyword)?;
        }
        Ok(())
    }
}

/// Which parameters of MAIL are passed on. Of the rest, those that only wish or announce are heeded here and left out: some
/// senders write them whatever they were offered.
#[derive(Debug, Clone, Copy)]
struct Told {
    esmtp: bool,
    dsn: bool,
    login: bool,
}

impl Told {
    fn holds(self, keyword: &str) -> bool {
        match keyword {
            "SIZE" | "BODY" => self.esmtp,
            // To a server that does not know of them a message may be handed all the same (RFC 3461 section 5.2.2).
            "RET" | "ENVID" => self.dsn,
            // What is told of itself by somebody who has not logged in is worth nothing (RFC 4954 section 5).
            "AUTH" => self.login,
            _ => true,
        }
    }
}

/// What of MAIL is kept until its backend is known.
fn routed<'a>(path: &ReversePath<'_>, params: impl Iterator<Item = Param<'a>>) -> Box<Routed> {
    let mut mail = Vec::new();
    encode_mail(path, params, &mut mail);
    let sender = match path {
        ReversePath::Mailbox(Mailbox { domain: Domain::Name(name), .. }) => Some((*name).into()),
        _ => None,
    };
    Box::new(Routed { mail: mail.into(), sender, place: None })
}

/// Parameters seen so far: two servers may differ in which of two equal ones counts. Only known ones are put in, so there
/// are few.
#[derive(Debug, Default)]
struct Seen(Vec<String>);

impl Seen {
    fn once(&mut self, keyword: String) -> Result<(), Words> {
        if self.0.contains(&keyword) {
            return Err(TWICE);
        }
        self.0.push(keyword);
        Ok(())
    }
}

/// xtext of printable characters (RFC 3461 section 4.4): a backend that decodes it must not find a line's end there.
fn is_xtext(value: &str) -> bool {
    xtext::decode(value.as_bytes()).is_some_and(|decoded| decoded.iter().all(|byte| matches!(byte, b' '..=b'~')))
}

fn is_notify(value: &str) -> bool {
    value.eq_ignore_ascii_case("NEVER")
        || value.split(',').all(|w| ["SUCCESS", "FAILURE", "DELAY"].iter().any(|known| w.eq_ignore_ascii_case(known)))
}

/// `addr-type ";" address` (RFC 3461 section 4.2); of the type utf-8, with UTF-8 as it is where the transaction may hold it,
/// or written in ASCII (RFC 6533 section 3).
fn is_orcpt(value: &str, utf8: bool) -> bool {
    let Some((kind, address)) = value.split_once(';') else { return false };
    let atom = !kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if kind.eq_ignore_ascii_case("utf-8") {
        atom && !address.is_empty() && (address.is_ascii() || utf8) && embeds_no_control(address)
    } else {
        atom && !address.is_empty() && is_xtext(address)
    }
}

/// Whether every `\x{…}` is a character that prints.
fn embeds_no_control(address: &str) -> bool {
    address.split('\\').skip(1).all(|embedded| {
        let digits = embedded.strip_prefix("x{").and_then(|rest| rest.split_once('}')).map(|(digits, _)| digits);
        let character = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).and_then(char::from_u32);
        character.is_some_and(|character| !character.is_control())
    })
}
