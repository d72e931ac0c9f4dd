//! The client half inside a message: DATA (RFC 5321 section 4.1.1.4) and BDAT (RFC 3030).
//!
//! A body is a stream through a transcoder, never lines or events. It has a fate: forwarded, or, once something is wrong
//! with it or with the backend, discarded to its end so that client and gateway stay in step.

use std::time::Duration;

use crate::config::{BareNewline, Limits};
use crate::policy::header::{HeaderFacts, HeaderScan, HeaderVerdict};
use crate::smtp::body::{BareNewlineRule, DataFault, DataOptions, DataTranscoder};
use crate::smtp::command::encode_bdat;
use crate::smtp::ehlo::Extensions;
use crate::smtp::reply::EnhancedCode;

use super::end::{End, Words};
use super::handshake::Backend;
use super::pipeline::Expect;
use super::replies::Refusal;
use super::report::{MessageOutcome, MessageReport};
use super::transaction::{Chunks, Open, Transaction};
use super::{Action, Client, Millis, Output, Session, Taken};

/// How often the minimum rate is checked.
const RATE_WINDOW: Duration = Duration::from_secs(30);

/// What is watched while a message's content passes.
#[derive(Debug, Default)]
pub(super) struct Content {
    header: Option<HeaderScan>,
    size: u64,
}

/// What becomes of the octets.
#[derive(Debug)]
enum Fate {
    Forward,
    /// Read to the end, then this is said.
    Discard(Refusal),
}

/// The rate a client keeps up while it sends a body.
#[derive(Debug)]
struct RateWindow {
    due: Millis,
    bytes: u64,
}

/// Between 354 and the end of data.
#[derive(Debug)]
pub(super) struct DataState {
    transcoder: DataTranscoder,
    content: Content,
    fate: Fate,
    rate: RateWindow,
    discarded: u64,
    report: Box<MessageReport>,
}

/// Inside the octets of one BDAT.
#[derive(Debug)]
pub(super) struct ChunkState {
    remaining: u64,
    last: bool,
    fate: Fate,
    rate: RateWindow,
}

const LOOPING: Words = Words(554, EnhancedCode(5, 4, 6), "Too many Received fields: the message loops");
const HEADER_TOO_LARGE: Words = Words(552, EnhancedCode(5, 3, 4), "The header section is larger than may be");
const TOO_LARGE: Words = Words(552, EnhancedCode(5, 3, 4), "The message is larger than may be");
const NO_RECIPIENTS: Words = Words(554, EnhancedCode(5, 5, 1), "No valid recipients");
const FLOOD: Words = Words(421, EnhancedCode(4, 7, 0), "The message goes on far past the limit");

impl RateWindow {
    fn new(now: Millis) -> Self {
        Self { due: now.after(RATE_WINDOW), bytes: 0 }
    }
}

impl Content {
    pub(super) fn new() -> Self {
        Self { header: Some(HeaderScan::new()), size: 0 }
    }

    /// Sees octets that are about to be sent on; what to answer if the message cannot be taken.
    fn watch(&mut self, octets: &[u8], limits: &Limits, report: &mut MessageReport) -> Option<Words> {
        self.size += octets.len() as u64;
        if self.size > limits.message_size {
            return Some(TOO_LARGE);
        }
        let Some(scan) = &mut self.header else { return None };
        match scan.feed(octets, limits.header_size) {
            HeaderVerdict::NeedMore => None,
            HeaderVerdict::TooLarge => {
                self.header = None;
                Some(HEADER_TOO_LARGE)
            }
            HeaderVerdict::Done(facts) => {
                self.header = None;
                judge_header(facts, limits, report)
            }
        }
    }

    /// The message is complete, perhaps inside its header section.
    fn finish(&mut self, limits: &Limits, report: &mut MessageReport) -> Option<Words> {
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
    pub(super) fn new(open: Box<Open>, now: Millis) -> Self {
        let mut report = open.report;
        report.recipients_accepted = open.accepted;
        Self {
            transcoder: DataTranscoder::new(),
            content: Content::new(),
            fate: Fate::Forward,
            rate: RateWindow::new(now),
            discarded: 0,
            report,
        }
    }
}

impl Session {
    /// Takes a piece of a dot-stuffed message.
    pub(super) fn take_data(&mut self, now: Millis, input: &mut [u8], out: &mut Output) -> Taken {
        let Client::Data(mut state) = std::mem::replace(&mut self.client, Client::Commands { skipping: 0 }) else {
            return Taken::default();
        };
        let spilled_from = out.to_backend.len();
        let options = DataOptions {
            text_line_max: self.settings.limits.text_line,
            bare_newline: match self.settings.bare_newline {
                BareNewline::Reject => BareNewlineRule::Reject,
                BareNewline::Normalize => BareNewlineRule::Normalize,
            },
        };
        let step = state.transcoder.step(input, &options, &mut out.to_backend);
        state.rate.bytes += step.used as u64;
        if let Fate::Forward = state.fate {
            let limits = &self.settings.limits;
            let refusal = step.fault.map(data_fault).or_else(|| {
                let octets = if step.forward.is_empty() {
                    &out.to_backend[spilled_from..]
                } else {
                    &input[step.forward.clone()]
                };
                state.content.watch(octets, limits, &mut state.report)
            });
            let refusal =
                refusal.or_else(|| if step.end { state.content.finish(limits, &mut state.report) } else { None });
            if let Some(words) = refusal {
                state.fate = Fate::Discard(words.into());
                self.drop_backend(out);
            }
        }
        let mut taken = Taken { used: step.used, forward: step.forward };
        if let Fate::Discard(_) = state.fate {
            out.to_backend.truncate(spilled_from);
            taken.forward = 0..0;
            state.discarded += taken.used as u64;
        }
        if !step.end {
            if state.discarded > self.settings.limits.message_size {
                self.give_up_message(now, state.report, out);
            } else {
                self.client = Client::Data(state);
            }
            return taken;
        }
        state.report.size = state.transcoder.content_bytes();
        state.report.ended = now;
        match state.fate {
            Fate::Forward => self.expect_message(now, state.report),
            Fate::Discard(refusal) => self.refuse_message(now, state.report, &refusal, out),
        }
        self.client_deadline = now.after(self.settings.timeouts.command);
        taken
    }

    fn expect_message(&mut self, now: Millis, report: Box<MessageReport>) {
        let first = !self.backend_owes();
        self.expect(Expect::Message(report), now);
        if first {
            self.backend_deadline = now.after(self.settings.timeouts.end_of_data);
        }
    }

    /// BDAT. False if it must wait until the backend's session is open.
    pub(super) fn bdat(&mut self, now: Millis, length: u64, last: bool, out: &mut Output) -> bool {
        if self.backend.is_opening() {
            return false;
        }
        let refusal = self.bdat_refusal(length);
        let fate = match refusal {
            Some(words) => {
                if let Some(open) = self.transaction.open_mut() {
                    open.chunks = Chunks::Broken;
                }
                Fate::Discard(words.into())
            }
            None => {
                encode_bdat(length, last, &mut out.to_backend);
                Fate::Forward
            }
        };
        self.client = Client::Chunk(Box::new(ChunkState { remaining: length, last, fate, rate: RateWindow::new(now) }));
        if length == 0 {
            self.end_chunk(now, out);
        }
        true
    }

    fn bdat_refusal(&self, length: u64) -> Option<Words> {
        let open = match &self.transaction {
            Transaction::None => return Some(Words(503, EnhancedCode(5, 5, 1), "MAIL first")),
            Transaction::Lost => {
                return Some(Words(
                    451,
                    EnhancedCode(4, 4, 2),
                    "The mail server's connection was lost; start the transaction again",
                ));
            }
            Transaction::Open(open) => open,
        };
        let so_far = match &open.chunks {
            Chunks::Broken => return Some(Words(503, EnhancedCode(5, 5, 1), "An earlier BDAT failed; RSET first")),
            Chunks::Started(content) => content.size,
            Chunks::None => 0,
        };
        let offered = matches!(self.backend, Backend::Ready(offered) if offered.contains(Extensions::CHUNKING));
        if !offered || !self.dialect.offered.contains(Extensions::CHUNKING) {
            return Some(Words(502, EnhancedCode(5, 5, 1), "CHUNKING is not offered"));
        }
        if open.forwarded == 0 || (self.pipeline.is_empty() && open.accepted == 0) {
            return Some(NO_RECIPIENTS);
        }
        (so_far.saturating_add(length) > self.settings.limits.message_size).then_some(TOO_LARGE)
    }

    /// Takes octets of a chunk.
    pub(super) fn take_chunk(&mut self, now: Millis, input: &[u8], out: &mut Output) -> Taken {
        let Client::Chunk(state) = &mut self.client else { return Taken::default() };
        let used = usize::try_from(state.remaining).unwrap_or(usize::MAX).min(input.len());
        state.remaining -= used as u64;
        state.rate.bytes += used as u64;
        let mut taken = Taken { used, forward: 0..used };
        let done = state.remaining == 0;
        if let Fate::Forward = state.fate
            && let Some(words) = self.watch_chunk(&input[..used])
        {
            self.discard_body(words.into());
            self.drop_backend(out);
        }
        if !matches!(&self.client, Client::Chunk(state) if matches!(state.fate, Fate::Forward)) {
            taken.forward = 0..0;
        }
        if done {
            self.end_chunk(now, out);
        }
        taken
    }

    fn watch_chunk(&mut self, octets: &[u8]) -> Option<Words> {
        let open = self.transaction.open_mut()?;
        if let Chunks::None = open.chunks {
            open.chunks = Chunks::Started(Box::new(Content::new()));
        }
        let Chunks::Started(content) = &mut open.chunks else { return None };
        content.watch(octets, &self.settings.limits, &mut open.report)
    }

    /// The chunk's last octet was taken.
    fn end_chunk(&mut self, now: Millis, out: &mut Output) {
        let Client::Chunk(mut state) = std::mem::replace(&mut self.client, Client::Commands { skipping: 0 }) else {
            return;
        };
        self.client_deadline = now.after(self.settings.timeouts.command);
        if state.last
            && let Fate::Forward = state.fate
            && let Some(open) = self.transaction.open_mut()
            && let Chunks::Started(content) = &mut open.chunks
            && let Some(words) = content.finish(&self.settings.limits, &mut open.report)
        {
            state.fate = Fate::Discard(words.into());
            self.drop_backend(out);
        }
        match (state.fate, state.last) {
            (Fate::Forward, true) => {
                if let Some(report) = self.take_chunked_report(now) {
                    self.expect_message(now, report);
                }
            }
            (Fate::Forward, false) => self.expect(Expect::Chunk, now),
            (Fate::Discard(refusal), _) => match self.take_started_report(now) {
                Some(report) => {
                    self.refuse_message(now, report, &refusal, out);
                }
                None => {
                    self.pipeline.answer(&mut out.to_client, |to| to.extend_from_slice(&refusal.encoded));
                    self.charge_error(out);
                }
            },
        }
    }

    fn take_chunked_report(&mut self, now: Millis) -> Option<Box<MessageReport>> {
        let open = self.transaction.take()?;
        let mut report = open.report;
        report.recipients_accepted = open.accepted;
        report.size = if let Chunks::Started(content) = &open.chunks { content.size } else { 0 };
        report.ended = now;
        Some(report)
    }

    /// The report of a message of which some octets were taken already.
    fn take_started_report(&mut self, now: Millis) -> Option<Box<MessageReport>> {
        match &self.transaction {
            Transaction::Open(open) if matches!(open.chunks, Chunks::Started(_)) => self.take_chunked_report(now),
            Transaction::None | Transaction::Open(_) | Transaction::Lost => None,
        }
    }

    /// From now on the body is read to its end and answered with `refusal`.
    pub(super) fn discard_body(&mut self, refusal: Refusal) {
        match &mut self.client {
            Client::Data(state) => state.fate = Fate::Discard(refusal),
            Client::Chunk(state) => state.fate = Fate::Discard(refusal),
            Client::Commands { .. } | Client::AwaitGoAhead { .. } | Client::Closed => {}
        }
    }

    fn give_up_message(&mut self, now: Millis, mut report: Box<MessageReport>, out: &mut Output) {
        let Words(code, _, text) = FLOOD;
        report.ended = now;
        self.message_answered(now, report, code, text, out);
        self.finish_with(End::Flood, FLOOD, out);
    }

    /// Reports a message that will never end.
    pub(super) fn abort_message(&mut self, now: Millis, out: &mut Output) {
        let report = match std::mem::replace(&mut self.client, Client::Commands { skipping: 0 }) {
            Client::Data(state) => {
                let mut report = state.report;
                report.size = state.transcoder.content_bytes();
                Some(report)
            }
            Client::Chunk(_) => self.take_started_report(now),
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

    /// When the minimum rate is checked next; `None` outside a body.
    pub(super) fn rate_check_at(&self) -> Option<Millis> {
        match &self.client {
            Client::Data(state) => Some(state.rate.due),
            Client::Chunk(state) => Some(state.rate.due),
            Client::Commands { .. } | Client::AwaitGoAhead { .. } | Client::Closed => None,
        }
    }

    /// Checks the rate if that is due, and opens the next window.
    pub(super) fn rate_holds(&mut self, now: Millis) -> bool {
        let minimum = self.settings.limits.minimum_rate.saturating_mul(RATE_WINDOW.as_secs());
        let rate = match &mut self.client {
            Client::Data(state) => &mut state.rate,
            Client::Chunk(state) => &mut state.rate,
            Client::Commands { .. } | Client::AwaitGoAhead { .. } | Client::Closed => return true,
        };
        if now < rate.due {
            return true;
        }
        let holds = rate.bytes >= minimum;
        *rate = RateWindow::new(now);
        holds
    }
}

fn data_fault(fault: DataFault) -> Words {
    match fault {
        DataFault::BareCr => Words(550, EnhancedCode(5, 6, 0), "The message holds a CR that no LF follows"),
        DataFault::BareLf => Words(550, EnhancedCode(5, 6, 0), "The message holds an LF that no CR precedes"),
        DataFault::LineTooLong => Words(500, EnhancedCode(5, 5, 2), "The message holds a line that is too long"),
    }
}
