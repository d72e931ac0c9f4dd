//! The client half inside BDAT (RFC 3030): counted octets, never dot-stuffed and never looked at for an end.
//!
//! A chunk's octets are consumed whatever becomes of it: a refused BDAT whose payload were read as commands is how mail is
//! smuggled. A message that is refused by the gateway takes the backend's connection with it, because the backend was
//! promised octets that will not come; what it still owed is then answered with the same refusal.

use crate::config::Limits;
use crate::smtp::command::encode_bdat;
use crate::smtp::ehlo::Extensions;
use crate::smtp::reply::EnhancedCode;
use crate::time::Millis;

use super::body::{Content, Fate, RateWindow, TOO_LARGE};
use super::commands::{LOST, NO_MAIL, NO_RECIPIENTS};
use super::end::Words;
use super::handshake::{Backend, STALE};
use super::pipeline::Expect;
use super::replies::Refusal;
use super::report::MessageReport;
use super::transaction::{Chunks, Started, Transaction};
use super::{Client, HURRIED_COMMAND, Output, Session, Taken};

/// Inside the octets of one BDAT.
#[derive(Debug)]
pub(super) struct ChunkState {
    remaining: u64,
    last: bool,
    /// Whether the backend has heard of it, which it does with the first octet.
    announced: bool,
    pub(super) fate: Fate,
    pub(super) rate: RateWindow,
    discarded: u64,
    /// Of a message that was given up before or inside this chunk; the chunk's answer is its own.
    pub(super) report: Option<Box<MessageReport>>,
}

const NOT_OFFERED: Words = Words(502, EnhancedCode(5, 5, 1), "CHUNKING is not offered");
const BROKEN: Words = Words(503, EnhancedCode(5, 5, 1), "An earlier BDAT failed; RSET first");

impl Session {
    /// BDAT. False if it must wait until the backend's session is open.
    pub(super) fn bdat(&mut self, now: Millis, length: u64, last: bool, out: &mut Output) -> bool {
        if self.backend.is_opening() {
            return false;
        }
        if length == 0 && !last && !self.spend_idle(out) {
            return true;
        }
        let rate = RateWindow::new(now, self.flags.hurried);
        let mut state = Box::new(ChunkState {
            remaining: length,
            last,
            announced: false,
            fate: Fate::Forward,
            rate,
            discarded: 0,
            report: None,
        });
        let begun = match self.bdat_refusal(length) {
            Some(words) => {
                state.report = self.break_chunks();
                state.fate = Fate::Discard(words.into());
                None
            }
            None => self.begin_chunk(now),
        };
        self.client_deadline = begun.unwrap_or_else(|| now.after(self.settings.timeouts.body));
        self.client = Client::Chunk(state);
        if length == 0 {
            if begun.is_some() && !self.chunk_is_refused(now, &[], last, out) {
                self.announce_chunk(0, None, out);
            }
            self.end_chunk(now, out);
        }
        true
    }

    fn bdat_refusal(&self, length: u64) -> Option<Words> {
        let open = match &self.transaction {
            Transaction::None => return Some(NO_MAIL),
            Transaction::Lost => return Some(LOST),
            Transaction::Open(open) => open,
        };
        let so_far = match &open.chunks {
            Chunks::Broken => return Some(BROKEN),
            Chunks::Started(started) => started.size,
            Chunks::None => 0,
        };
        let esmtp = self.hello.as_ref().is_some_and(|hello| hello.esmtp);
        if !esmtp || !self.dialect.offered.contains(Extensions::CHUNKING) {
            return Some(NOT_OFFERED);
        }
        if !matches!(self.backend, Backend::Ready(offered) if offered.contains(Extensions::CHUNKING)) {
            return Some(STALE);
        }
        if open.forwarded == 0 || (self.pipeline.is_empty() && open.accepted == 0) {
            return Some(NO_RECIPIENTS);
        }
        (so_far.saturating_add(length) > self.settings.limits.message_size).then_some(TOO_LARGE)
    }

    /// Until when the message must be over that this chunk begins or continues.
    fn begin_chunk(&mut self, now: Millis) -> Option<Millis> {
        let until = now.after(self.settings.timeouts.body);
        if let Transaction::Open(open) = &self.transaction
            && let Chunks::None = open.chunks
        {
            let content = Content::new(self.trace(now, open.needs));
            let started = Box::new(Started { content, size: 0, until });
            self.transaction.open_mut()?.chunks = Chunks::Started(started);
        }
        match &self.transaction.open_mut()?.chunks {
            Chunks::Started(started) => Some(started.until),
            Chunks::None | Chunks::Broken => None,
        }
    }

    /// Tells the backend of the chunk at hand, which begins with this octet unless it has none.
    fn announce_chunk(&mut self, length: u64, first: Option<u8>, out: &mut Output) {
        let Client::Chunk(state) = &mut self.client else { return };
        state.announced = true;
        let before = match &mut self.transaction {
            Transaction::Open(open) => open.chunks.take_trace(first, state.last),
            Transaction::None | Transaction::Lost => Vec::new(),
        };
        encode_bdat(length + before.len() as u64, state.last, &mut out.to_backend);
        out.to_backend.extend_from_slice(&before);
    }

    /// Until when the client must have sent its next whole command: a message in chunks has one deadline for all of them.
    pub(super) fn command_deadline(&self, now: Millis) -> Millis {
        let mut deadline = now.after(self.settings.timeouts.command);
        if self.flags.hurried && self.totals.accepted == 0 {
            deadline = deadline.min(now.after(HURRIED_COMMAND));
        }
        match &self.transaction {
            Transaction::Open(open) => match &open.chunks {
                Chunks::Started(started) => deadline.min(started.until),
                Chunks::None | Chunks::Broken => deadline,
            },
            Transaction::None | Transaction::Lost => deadline,
        }
    }

    /// Takes octets of a chunk.
    pub(super) fn take_chunk(&mut self, now: Millis, input: &[u8], out: &mut Output) -> Taken {
        let Client::Chunk(state) = &mut self.client else { return Taken::default() };
        let (left, announced) = (state.remaining, state.announced);
        let used = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        state.remaining -= used as u64;
        state.rate.bytes += used as u64;
        let (done, ends_message) = (state.remaining == 0, state.remaining == 0 && state.last);
        let mut taken = Taken { used, forward: 0..used };
        let discards = matches!(state.fate, Fate::Discard(_));
        if !discards && !announced {
            self.announce_chunk(left, input.first().copied(), out);
        }
        if discards || self.chunk_is_refused(now, &input[..used], ends_message, out) {
            taken.forward = 0..0;
            self.count_discarded(now, used, out);
        }
        if done {
            self.end_chunk(now, out);
        }
        taken
    }

    /// A client may not make the gateway read without end what will be refused.
    fn count_discarded(&mut self, now: Millis, octets: usize, out: &mut Output) {
        let Client::Chunk(state) = &mut self.client else { return };
        state.discarded += octets as u64;
        if state.discarded > self.settings.limits.message_size {
            let report = state.report.take();
            self.give_up_message(now, report, out);
        }
    }

    /// Judges octets before they are sent on. True if the message cannot be taken: then the backend is let go of before it
    /// has the last of them.
    fn chunk_is_refused(&mut self, now: Millis, octets: &[u8], ends_message: bool, out: &mut Output) -> bool {
        let Some(words) = watch(&mut self.transaction, octets, ends_message, &self.settings.limits) else {
            return false;
        };
        self.refuse_body(now, words.into(), out);
        true
    }

    /// The chunk's last octet was taken.
    fn end_chunk(&mut self, now: Millis, out: &mut Output) {
        let state = match std::mem::replace(&mut self.client, Client::Commands { skipping: 0 }) {
            Client::Chunk(state) => state,
            other => {
                self.client = other;
                return;
            }
        };
        match (state.fate, state.last) {
            (Fate::Forward, true) => match self.take_started_report() {
                Some(mut report) => {
                    report.ended = now;
                    self.expect_message(now, report);
                }
                // The backend has refused an earlier chunk, and this one with it.
                None => {
                    self.transaction = Transaction::None;
                    self.expect(Expect::Chunk, now);
                }
            },
            (Fate::Forward, false) => {
                if let Some(open) = self.transaction.open_mut() {
                    open.report.ended = now;
                }
                self.expect(Expect::Chunk, now);
            }
            (Fate::Discard(refusal), _) => match state.report {
                Some(mut report) => {
                    report.ended = now;
                    self.refuse_message(now, report, &refusal, out);
                }
                None => self.refuse_chunk(&refusal, out),
            },
        }
        self.client_deadline = self.command_deadline(now);
    }

    /// Refuses a BDAT that no message hung on. The backend's faults are not the client's errors, and yet not free.
    fn refuse_chunk(&mut self, refusal: &Refusal, out: &mut Output) {
        if refusal.is_permanent() {
            self.pipeline.answer(&mut out.to_client, |to| to.extend_from_slice(&refusal.encoded));
            self.charge_error(out);
        } else if self.spend_idle(out) {
            self.pipeline.answer(&mut out.to_client, |to| to.extend_from_slice(&refusal.encoded));
        }
    }

    /// A chunk failed: no more of this message can be taken, though the transaction stands until RSET. The report, if
    /// octets were taken already.
    pub(super) fn break_chunks(&mut self) -> Option<Box<MessageReport>> {
        let open = self.transaction.open_mut()?;
        let started = match std::mem::replace(&mut open.chunks, Chunks::Broken) {
            Chunks::Started(started) => started,
            Chunks::None | Chunks::Broken => return None,
        };
        let unused = Box::new(MessageReport::new(open.report.started));
        let mut report = std::mem::replace(&mut open.report, unused);
        report.recipients_accepted = open.accepted;
        report.size = started.size;
        Some(report)
    }

    /// Ends a transaction of whose message some octets were taken already; its report.
    pub(super) fn take_started_report(&mut self) -> Option<Box<MessageReport>> {
        let report = self.break_chunks();
        if report.is_some() {
            self.transaction = Transaction::None;
        }
        report
    }
}

fn watch(transaction: &mut Transaction, octets: &[u8], ends_message: bool, limits: &Limits) -> Option<Words> {
    let open = transaction.open_mut()?;
    let Chunks::Started(started) = &mut open.chunks else { return None };
    started.size += octets.len() as u64;
    let refusal = started.content.watch(octets, started.size, limits, &mut open.report);
    refusal.or_else(|| if ends_message { started.content.finish(limits, &mut open.report) } else { None })
}
