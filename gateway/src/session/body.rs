//! The client half inside a message, and DATA (RFC 5321 section 4.1.1.4); BDAT is `chunk`'s.
//!
//! A body is a stream through a transcoder, never lines or events. It has a fate: forwarded, or, once something is wrong
//! with it or with the backend, discarded to its end so that client and gateway stay in step.
//!
//! What is said of a faulty body does not depend on how it was packed: faults are judged in the order in which they stand
//! in it, the header before the size.

use std::time::Duration;

use crate::config::Limits;
use crate::policy::header::{HeaderFacts, HeaderScan, HeaderVerdict, Keeps};
use crate::policy::offences::Offence;
use crate::smtp::body::{BodyFault, BodyTranscoder, Framing};
use crate::smtp::reply::EnhancedCode;
use crate::time::Millis;

use super::end::{End, Words};
use super::pipeline::Expect;
use super::replies::Refusal;
use super::report::{MessageOutcome, MessageReport};
use super::trace::Trace;
use super::transaction::{Open, Transaction};
use super::{Action, Client, Output, Session, Taken};

/// Over what the minimum rate is measured: what RFC 5321 section 4.5.3.2 gives a client for a piece of a message, and more.
const RATE_WINDOW: Duration = Duration::from_secs(5 * 60);
/// The same while places for sessions run out.
const HURRIED_WINDOW: Duration = Duration::from_secs(30);

/// What is watched while a message's content passes.
#[derive(Debug)]
pub(super) struct Content {
    header: Option<HeaderScan>,
    /// What stands before the first octet, until that comes.
    trace: Option<Trace>,
}

/// What becomes of the octets.
#[derive(Debug)]
pub(super) enum Fate {
    Forward,
    /// Read to the end, then this is said.
    Discard(Refusal),
}

/// The rate a client keeps up while it sends a body.
#[derive(Debug)]
pub(super) struct RateWindow {
    opened: Millis,
    due: Millis,
    pub(super) bytes: u64,
}

/// Between 354 and the end of data.
#[derive(Debug)]
pub(super) struct DataState {
    transcoder: BodyTranscoder,
    content: Content,
    fate: Fate,
    rate: RateWindow,
    /// Octets read, stuffed dots included.
    taken: u64,
    /// When the client, which may believe that it has ended its message, will have been silent for long enough to be told.
    told_at: Option<Millis>,
    report: Box<MessageReport>,
}

/// How long a client may be silent behind what looks like an end of its message and is none: it waits for an answer.
const UNENDED_WAIT: Duration = Duration::from_secs(5);

const UNENDED: Words =
    Words(550, EnhancedCode(5, 6, 0), "A message ends in CRLF . CRLF, and only LF or CR came around the dot");
const LOOPING: Words = Words(554, EnhancedCode(5, 4, 6), "Too many Received fields: the message loops");
const HEADER_TOO_LARGE: Words = Words(552, EnhancedCode(5, 3, 4), "The header section is larger than may be");
pub(super) const TOO_LARGE: Words = Words(552, EnhancedCode(5, 3, 4), "The message is larger than may be");
const FLOOD: Words = Words(421, EnhancedCode(4, 7, 0), "The message goes on far past the limit");

impl RateWindow {
    pub(super) fn new(now: Millis, hurried: bool) -> Self {
        let span = if hurried { HURRIED_WINDOW } else { RATE_WINDOW };
        Self { opened: now, due: now.after(span), bytes: 0 }
    }

    /// Whether the client has kept up `minimum` bytes a second.
    fn holds(&self, minimum: u64) -> bool {
        self.bytes >= minimum.saturating_mul(self.due.since(self.opened)) / 1000
    }
}

impl Content {
    pub(super) fn new(trace: Option<Trace>, keeps: Keeps) -> Self {
        Self { header: Some(HeaderScan::new(keeps)), trace }
    }

    /// Whether something stands before the first octet.
    pub(super) fn has_trace(&self) -> bool {
        self.trace.is_some()
    }

    /// What must be sent before `head`, the message's first octets if it has any. Empty the second time.
    pub(super) fn take_trace(&mut self, head: &[u8]) -> Vec<u8> {
        self.trace.take().map(|trace| trace.before(head)).unwrap_or_default()
    }

    /// Sees octets that are about to be sent on, with which the content has come to `size`; what to answer if the message
    /// cannot be taken. A header section cannot be longer than a message, so it is always judged before the size.
    pub(super) fn watch(
        &mut self,
        octets: &[u8],
        size: u64,
        limits: &Limits,
        report: &mut MessageReport,
    ) -> Option<Words> {
        let bound = limits.header_size.min(usize::try_from(limits.message_size).unwrap_or(usize::MAX));
        let verdict = self.header.as_mut().map_or(HeaderVerdict::NeedMore, |scan| scan.feed(octets, bound));
        let refusal = match verdict {
            HeaderVerdict::NeedMore => None,
            HeaderVerdict::TooLarge if bound < limits.header_size => Some(TOO_LARGE),
            HeaderVerdict::TooLarge => Some(HEADER_TOO_LARGE),
            HeaderVerdict::Done(facts) => {
                self.header = None;
                judge_header(facts, limits, report)
            }
        };
        refusal.or_else(|| (size > limits.message_size).then_some(TOO_LARGE))
    }

    /// The message is complete, perhaps inside its header section.
    pub(super) fn finish(&mut self, limits: &Limits, report: &mut MessageReport) -> Option<Words> {
        let facts = self.header.take()?.finish();
        judge_header(facts, limits, report)
    }
}

fn judge_header(facts: HeaderFacts, limits: &Limits, report: &mut MessageReport) -> Option<Words> {
    report.message_id = facts.message_id;
    report.header_from = facts.from;
    (facts.received_hops > limits.received_hops).then_some(LOOPING)
}

impl DataState {
    pub(super) fn new(open: Open, rate: RateWindow, trace: Option<Trace>, keeps: Keeps) -> Self {
        let mut report = open.report;
        report.recipients_accepted = open.accepted;
        Self {
            transcoder: BodyTranscoder::new(Framing::Dots),
            content: Content::new(trace, keeps),
            fate: Fate::Forward,
            rate,
            taken: 0,
            told_at: None,
            report,
        }
    }

    /// Sees content that is about to be sent on; what to answer if the message cannot be taken.
    fn watch(&mut self, content: &[u8], ends: bool, limits: &Limits) -> Option<Words> {
        let size = self.transcoder.content_octets();
        let refusal = self.content.watch(content, size, limits, &mut self.report);
        refusal.or_else(|| if ends { self.content.finish(limits, &mut self.report) } else { None })
    }
}

impl Session {
    /// Takes a piece of a dot-stuffed message.
    pub(super) fn take_data(&mut self, now: Millis, input: &mut [u8], out: &mut Output) -> Taken {
        let Client::Data(mut state) = std::mem::replace(&mut self.client, Client::Commands { skipping: 0 }) else {
            return Taken::default();
        };
        let spilled_from = out.to_backend.len();
        let step = state.transcoder.step(input, &self.settings.body_rules, &mut out.to_backend);
        state.rate.bytes += step.used as u64;
        state.taken += step.used as u64;
        if step.fault == Some(BodyFault::Smuggling) {
            self.offend(Offence::SmugglingAttempt, out);
        }
        if let Fate::Forward = state.fate {
            let spilled = &out.to_backend[spilled_from..];
            let content = if step.content.is_empty() { spilled } else { &input[step.content.clone()] };
            let begins = !content.is_empty() || step.ends();
            let head = content[..content.len().min(2)].to_vec();
            let refusal =
                step.fault.map(fault_words).or_else(|| state.watch(content, step.ends(), &self.settings.limits));
            if let Some(words) = refusal {
                state.fate = Fate::Discard(words.into());
                self.drop_backend(out);
            } else if begins && state.content.has_trace() {
                out.to_backend.splice(spilled_from..spilled_from, state.content.take_trace(&head));
            }
        }
        let mut taken = Taken { used: step.used, forward: step.forward() };
        if let Fate::Discard(_) = state.fate {
            out.to_backend.truncate(spilled_from);
            taken.forward = 0..0;
            // Stuffed dots cannot double a message, so one that is this long is refused already.
            if state.taken > self.settings.limits.message_size.saturating_mul(2) {
                self.give_up_message(now, Some(state.report), out);
                return taken;
            }
        }
        if !step.ends() {
            state.told_at = state.transcoder.seems_over().then(|| now.after(UNENDED_WAIT));
            self.client = Client::Data(state);
            return taken;
        }
        state.report.size = state.transcoder.content_octets();
        state.report.ended = now;
        match state.fate {
            Fate::Forward => self.expect_message(now, state.report),
            Fate::Discard(refusal) => self.refuse_message(now, state.report, &refusal, out),
        }
        self.client_deadline = now.after(self.settings.timeouts.command);
        taken
    }

    pub(super) fn expect_message(&mut self, now: Millis, report: Box<MessageReport>) {
        let first = !self.backend_owes();
        self.expect(Expect::Message(report), now);
        if first {
            self.backend_deadline = now.after(self.settings.timeouts.end_of_data);
        }
    }

    /// The message that is coming will not be taken. The backend, which was promised the rest of it, is let go of; what it
    /// still owes for earlier chunks is answered with the same refusal.
    pub(super) fn refuse_body(&mut self, now: Millis, refusal: Refusal, out: &mut Output) {
        self.drop_backend(out);
        self.fail_owed(now, &refusal, out);
        self.transaction = Transaction::None;
        self.discard_body(refusal);
    }

    /// From now on the body is read to its end and answered with `refusal`.
    pub(super) fn discard_body(&mut self, refusal: Refusal) {
        match &mut self.client {
            Client::Data(state) => state.fate = Fate::Discard(refusal),
            Client::Chunk(state) => state.fate = Fate::Discard(refusal),
            _ => {}
        }
    }

    /// Ends the session of a client whose refused message does not end.
    pub(super) fn give_up_message(&mut self, now: Millis, report: Option<Box<MessageReport>>, out: &mut Output) {
        let Words(code, _, text) = FLOOD;
        if let Some(mut report) = report {
            report.ended = now;
            self.message_answered(now, report, code, text, out);
        }
        self.finish_with(End::Flood, FLOOD, out);
    }

    /// Reports a message that will never end, and lets go of a backend that waits for the rest of it: nothing that is still
    /// said to it may be taken for content.
    pub(super) fn abort_message(&mut self, now: Millis, out: &mut Output) {
        let report = match std::mem::replace(&mut self.client, Client::Commands { skipping: 0 }) {
            Client::Data(state) => {
                self.drop_backend(out);
                let mut report = state.report;
                report.size = state.transcoder.content_octets();
                Some(report)
            }
            Client::Chunk(state) => {
                self.drop_backend(out);
                state.report.or_else(|| self.take_started_report())
            }
            other => {
                self.client = other;
                None
            }
        };
        if let Some(mut report) = report {
            report.outcome = MessageOutcome::Aborted;
            report.ended = now;
            report.answered = now;
            out.actions.push(Action::Message(report));
        }
    }

    /// Looks at the rate of a body at hand sooner, if `hurried`.
    pub(super) fn hurry_body(&mut self, now: Millis, hurried: bool) {
        let rate = match &mut self.client {
            Client::Data(state) => &mut state.rate,
            Client::Chunk(state) => &mut state.rate,
            _ => return,
        };
        if hurried {
            rate.due = rate.due.min(now.after(HURRIED_WINDOW));
        }
    }

    /// Refuses a message whose end the client seems to have sent in its own way, if it has waited for the answer for long
    /// enough. What follows cannot be told from content, so the session ends with it. False if that is not so.
    pub(super) fn refuse_unended(&mut self, now: Millis, out: &mut Output) -> bool {
        let Client::Data(state) = &self.client else { return false };
        if state.told_at.is_none_or(|at| now < at) {
            return false;
        }
        let Client::Data(state) = std::mem::replace(&mut self.client, Client::Commands { skipping: 0 }) else {
            return false;
        };
        self.drop_backend(out);
        let Words(code, _, text) = UNENDED;
        let mut report = state.report;
        report.size = state.transcoder.content_octets();
        report.ended = now;
        self.message_answered(now, report, code, text, out);
        self.finish_with(End::ClientTimeout, UNENDED, out);
        true
    }

    /// When the minimum rate is checked next, or a client is told that its message has not ended; `None` outside a body.
    pub(super) fn rate_check_at(&self) -> Option<Millis> {
        match &self.client {
            Client::Data(state) => Some(state.told_at.map_or(state.rate.due, |at| at.min(state.rate.due))),
            Client::Chunk(state) => Some(state.rate.due),
            _ => None,
        }
    }

    /// Checks the rate if that is due, and opens the next window.
    pub(super) fn rate_holds(&mut self, now: Millis) -> bool {
        let (minimum, hurried) = (self.settings.limits.minimum_rate, self.flags.hurried);
        let rate = match &mut self.client {
            Client::Data(state) => &mut state.rate,
            Client::Chunk(state) => &mut state.rate,
            _ => return true,
        };
        if now < rate.due {
            return true;
        }
        let holds = rate.holds(minimum);
        *rate = RateWindow::new(now, hurried);
        holds
    }
}

pub(super) fn fault_words(fault: BodyFault) -> Words {
    match fault {
        BodyFault::BareCr => Words(550, EnhancedCode(5, 6, 0), "The message holds a CR that no LF follows"),
        BodyFault::BareLf => Words(550, EnhancedCode(5, 6, 0), "The message holds an LF that no CR precedes"),
        BodyFault::LineTooLong => Words(500, EnhancedCode(5, 5, 2), "The message holds a line that is too long"),
        BodyFault::Smuggling => {
            Words(550, EnhancedCode(5, 6, 0), "A line with only a dot and a bare CR or LF, and a command behind it")
        }
    }
}
