//! A message that is coming in: what is watched while it passes, and what becomes of it.

use std::time::Duration;

use crate::config::Limits;
use crate::policy::header::{HeaderFacts, HeaderScan, HeaderVerdict, Keeps};
use crate::smtp::body::{BodyFault, BodyTranscoder, Framing};
use crate::smtp::reply::EnhancedCode;
use crate::time::Millis;

use super::kept_envelope::KeptEnvelope;
use super::report::MessageReport;
use super::trace_header::TraceHeader;
use super::words::{Refusal, TOO_LARGE, Words};

/// Over what the minimum rate is measured: what RFC 5321 section 4.5.3.2 gives a client for a piece of a message, and more.
const RATE_WINDOW: Duration = Duration::from_secs(5 * 60);
/// The same while places for sessions run out.
const HURRIED_WINDOW: Duration = Duration::from_secs(30);

/// What is watched while a message's content passes.
#[derive(Debug)]
pub(super) struct Content {
    header: Option<HeaderScan>,
    /// What stands before the first octet, until that comes.
    trace: Option<TraceHeader>,
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
    bytes: u64,
}

/// Between 354 and the end of data.
#[derive(Debug)]
pub(super) struct DataState {
    pub(super) transcoder: BodyTranscoder,
    pub(super) content: Content,
    pub(super) fate: Fate,
    pub(super) rate: RateWindow,
    /// Octets read, stuffed dots included.
    pub(super) taken: u64,
    /// When the client, which may believe that it has ended its message, will have been silent for long enough to be told.
    pub(super) told_at: Option<Millis>,
    pub(super) report: Box<MessageReport>,
    /// Until the first octet: what another server would be told.
    pub(super) kept: Option<Box<KeptEnvelope>>,
}

const LOOPING: Words = Words(554, EnhancedCode(5, 4, 6), "Too many Received fields: the message loops");
const HEADER_TOO_LARGE: Words = Words(552, EnhancedCode(5, 3, 4), "The header section is larger than may be");

impl RateWindow {
    pub(super) fn new(now: Millis, hurried: bool) -> Self {
        let span = if hurried { HURRIED_WINDOW } else { RATE_WINDOW };
        Self { opened: now, due: now.after(span), bytes: 0 }
    }

    /// So many more bytes came.
    pub(super) fn count(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// When it is judged.
    pub(super) fn due(&self) -> Millis {
        self.due
    }

    /// Judges it sooner.
    pub(super) fn hurry(&mut self, now: Millis) {
        self.due = self.due.min(now.after(HURRIED_WINDOW));
    }

    /// Whether the client has kept up `minimum` bytes a second, if that is due; then the next window opens.
    pub(super) fn holds(&mut self, now: Millis, minimum: u64, hurried: bool) -> bool {
        if now < self.due {
            return true;
        }
        let holds = self.bytes >= minimum.saturating_mul(self.due.since(self.opened)) / 1000;
        *self = Self::new(now, hurried);
        holds
    }
}

impl Content {
    pub(super) fn new(trace: Option<TraceHeader>, keeps: Keeps) -> Self {
        Self { header: Some(HeaderScan::new(keeps)), trace }
    }

    /// What is kept of its header section.
    pub(super) fn octets_held(&self) -> usize {
        self.header.as_ref().map_or(0, HeaderScan::octets_held)
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
    pub(super) fn new(report: Box<MessageReport>, rate: RateWindow, trace: Option<TraceHeader>, keeps: Keeps) -> Self {
        Self {
            transcoder: BodyTranscoder::new(Framing::Dots),
            content: Content::new(trace, keeps),
            fate: Fate::Forward,
            rate,
            taken: 0,
            told_at: None,
            report,
            kept: None,
        }
    }

    /// Sees content that is about to be sent on; what to answer if the message cannot be taken.
    pub(super) fn watch(&mut self, content: &[u8], ends: bool, limits: &Limits) -> Option<Words> {
        let size = self.transcoder.content_octets();
        let refusal = self.content.watch(content, size, limits, &mut self.report);
        refusal.or_else(|| if ends { self.content.finish(limits, &mut self.report) } else { None })
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
