//! The client half inside BDAT (RFC 3030): counted octets, never dot-stuffed and never looked at for an end.
//!
//! What is text passes the same transcoder as in DATA, and may become shorter or longer there. So a chunk of the client's
//! goes to the backend in one or more of the gateway's own: as many octets are announced as will come for certain, and what
//! is left at the end, all in hand by then, has its true length. The client hears one answer, that to the last of them.
//! BODY=BINARYMIME passes as it is, and its chunks are the client's.
//!
//! A chunk's octets are consumed whatever becomes of it: a refused BDAT whose payload were read as commands is how mail is
//! smuggled. A message that is refused by the gateway takes the backend's connection with it, because the backend was
//! promised octets that will not come; what it still owed is then answered with the same refusal.

use std::ops::Range;

use crate::policy::offences::Offence;
use crate::smtp::body::{BareNewlineRule, BodyFault, BodyRules, UNDECIDED_MAX};
use crate::smtp::command::encode_bdat;
use crate::smtp::ehlo::Extensions;
use crate::smtp::reply::EnhancedCode;
use crate::time::Millis;

use super::action::{Output, Taken};
use super::backend::Backend;
use super::chunks::{Announced, ChunkState, Chunks, Started, Text};
use super::client::{Client, HURRIED_COMMAND};
use super::machine::Session;
use super::message::{Content, Fate, RateWindow, fault_words};
use super::pipeline::Expect;
use super::report::MessageReport;
use super::transaction::Transaction;
use super::words::{CRAMMED, NO_MAIL, NO_RECIPIENTS, Refusal, STALE, TOO_LARGE, TRANSACTION_LOST, Words};

/// What is left of a chunk of text, if it is no longer than this, is taken only as a whole: then its length is known, and
/// short chunks are the client's own.
const WHOLE_MAX: u64 = 1024;

const NOT_OFFERED: Words = Words(502, EnhancedCode(5, 5, 1), "CHUNKING is not offered");
const BROKEN: Words = Words(503, EnhancedCode(5, 5, 1), "An earlier BDAT failed; RSET first");

impl Session {
    /// BDAT. False if it must wait until the backend's session is open.
    pub(super) fn bdat(&mut self, now: Millis, length: u64, last: bool, out: &mut Output) -> bool {
        if self.backend.state.is_opening() {
            return false;
        }
        if length == 0 && !last && !self.spend_idle(out) {
            return true;
        }
        let rate = RateWindow::new(now, self.client.hurried);
        let mut state = Box::new(ChunkState {
            remaining: length,
            last,
            announced: Announced::No,
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
        self.client.deadline = begun.unwrap_or_else(|| now.after(self.settings.timeouts.body));
        self.client.state = Client::Chunk(state);
        if length == 0 {
            self.take_chunk(now, &mut [], out);
        }
        true
    }

    fn bdat_refusal(&self, length: u64) -> Option<Words> {
        let open = match &self.transaction {
            Transaction::None => return Some(NO_MAIL),
            Transaction::Lost => return Some(TRANSACTION_LOST),
            Transaction::Open(open) => open,
        };
        let so_far = match &open.chunks {
            Chunks::Broken => return Some(BROKEN),
            Chunks::Started(started) => started.size,
            Chunks::None if self.client.crammed => return Some(CRAMMED),
            Chunks::None => 0,
        };
        let esmtp = self.client.hello.as_ref().is_some_and(|hello| hello.esmtp);
        if !esmtp || !self.dialect.offered.contains(Extensions::CHUNKING) {
            return Some(NOT_OFFERED);
        }
        if !matches!(self.backend.state, Backend::Ready(offered) if offered.contains(Extensions::CHUNKING)) {
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
            let content = Content::new(self.trace(now, open.needs), self.settings.header_keeps());
            let text = (!open.binary).then(Text::new);
            let started = Box::new(Started { content, text, size: 0, until });
            let open = self.transaction.open_mut()?;
            open.chunks = Chunks::Started(started);
            open.kept = None;
        }
        match &self.transaction.open_mut()?.chunks {
            Chunks::Started(started) => Some(started.until),
            Chunks::None | Chunks::Broken => None,
        }
    }

    /// Until when the client must have sent its next whole command: a message in chunks has one deadline for all of them.
    pub(super) fn command_deadline(&self, now: Millis) -> Millis {
        let mut deadline = now.after(self.settings.timeouts.command);
        if self.client.hurried && !self.conduct.has_brought_mail() {
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
    pub(super) fn take_chunk(&mut self, now: Millis, input: &mut [u8], out: &mut Output) -> Taken {
        let Client::Chunk(state) = &mut self.client.state else { return Taken::default() };
        let length = usize::try_from(state.remaining).unwrap_or(usize::MAX).min(input.len());
        let ends = state.remaining == length as u64;
        let is_text = matches!(self.transaction.started_mut(), Some(Started { text: Some(_), .. }));
        if is_text && !ends && state.remaining <= WHOLE_MAX && matches!(state.fate, Fate::Forward) {
            return Taken::default();
        }
        let spilled_from = out.to_backend.len();
        let (used, in_place, fault) = match (&state.fate, self.transaction.started_mut()) {
            (Fate::Forward, Some(Started { text: Some(text), .. })) => {
                let place = (ends, ends && state.last);
                text.take(&mut input[..length], place, &self.settings.body_rules, &mut out.to_backend)
            }
            (Fate::Forward | Fate::Discard(_), _) => (length, length, None),
        };
        state.remaining -= used as u64;
        state.rate.count(used);
        let (done, discards) = (state.remaining == 0, matches!(state.fate, Fate::Discard(_)));
        let forward = if discards {
            None
        } else {
            // What stands before a fault is judged before it: else packing would decide what the message is refused for.
            let sent = if in_place > 0 { &input[..in_place] } else { &out.to_backend[spilled_from..] };
            let refusal = self.judge_chunk(sent, done && fault.is_none());
            if refusal.is_none() && fault == Some(BodyFault::Smuggling) {
                self.conduct.offend(Offence::SmugglingAttempt, out);
            }
            match refusal.or(fault.map(fault_words)) {
                None => Some(self.announce(now, done, &input[..in_place], spilled_from, out)),
                Some(words) => {
                    out.to_backend.truncate(spilled_from);
                    self.refuse_body(now, words.into(), out);
                    None
                }
            }
        };
        if forward.is_none() {
            self.count_discarded(now, used, out);
        }
        if done {
            self.end_chunk(now, out);
        }
        Taken { used, forward: forward.unwrap_or(0..0) }
    }

    /// Judges octets before they are sent on: what to answer if the message cannot be taken. Then the backend is let go of
    /// before it has the last of them.
    fn judge_chunk(&mut self, octets: &[u8], done: bool) -> Option<Words> {
        let Client::Chunk(state) = &self.client.state else { return None };
        let ends_message = done && state.last;
        let open = self.transaction.open_mut()?;
        let Chunks::Started(started) = &mut open.chunks else { return None };
        started.size += octets.len() as u64;
        let limits = &self.settings.limits;
        let refusal = started.content.watch(octets, started.size, limits, &mut open.report);
        refusal.or_else(|| if ends_message { started.content.finish(limits, &mut open.report) } else { None })
    }

    /// Puts announcements where they belong among the octets that follow: those of `in_place`, or what was spilled. Returns
    /// which part of `in_place` is sent on as it stands there.
    fn announce(
        &mut self,
        now: Millis,
        done: bool,
        in_place: &[u8],
        spilled_from: usize,
        out: &mut Output,
    ) -> Range<usize> {
        let Client::Chunk(state) = &mut self.client.state else { return 0..0 };
        let Some(started) = self.transaction.started_mut() else { return 0..0 };
        let octets = (in_place.len() + out.to_backend.len() - spilled_from) as u64;
        let room = match &mut state.announced {
            Announced::No if !done && octets == 0 => return 0..0,
            Announced::No => 0,
            Announced::Yes { room, last } if octets <= *room && (!done || *last == state.last) => {
                *room -= octets;
                return 0..in_place.len();
            }
            Announced::Yes { room, .. } => *room,
        };
        let certain = certain(started.text.is_some(), state.remaining, &self.settings.body_rules);
        let last = state.last && (done || certain == state.remaining);
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let head = in_place.len().min(room);
        let first = in_place.get(..2.min(in_place.len())).filter(|head| !head.is_empty());
        let first = first.unwrap_or(&out.to_backend[spilled_from..]).to_vec();
        let trace = if octets > 0 || last { started.take_trace(&first) } else { Vec::new() };
        let mut announcement = in_place[..head].to_vec();
        encode_bdat(octets - room as u64 + trace.len() as u64 + certain, last, &mut announcement);
        announcement.extend_from_slice(&trace);
        let at = if in_place.is_empty() { spilled_from + room } else { out.to_backend.len() };
        out.to_backend.splice(at..at, announcement);
        if let Announced::Yes { .. } = std::mem::replace(&mut state.announced, Announced::Yes { room: certain, last }) {
            self.expect(Expect::Part, now);
        }
        head..in_place.len()
    }

    /// A client may not make the gateway read without end what will be refused.
    fn count_discarded(&mut self, now: Millis, octets: usize, out: &mut Output) {
        let Client::Chunk(state) = &mut self.client.state else { return };
        state.discarded += octets as u64;
        if state.discarded > self.settings.limits.message_size {
            let report = state.report.take();
            self.give_up_message(now, report, out);
        }
    }

    /// The chunk's last octet was taken.
    fn end_chunk(&mut self, now: Millis, out: &mut Output) {
        let state = match std::mem::replace(&mut self.client.state, Client::Commands { skipping: 0 }) {
            Client::Chunk(state) => state,
            other => {
                self.client.state = other;
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
        self.client.deadline = self.command_deadline(now);
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

/// How many of the octets that will still come of a chunk the backend gets for certain. CR CR LF becomes shorter by a third,
/// and a few octets at its end may have to wait for the next.
fn certain(text: bool, remaining: u64, rules: &BodyRules) -> u64 {
    let decided = remaining.saturating_sub(UNDECIDED_MAX as u64);
    match (text, rules.bare_newline) {
        (false, _) => remaining,
        (true, BareNewlineRule::Reject) => decided,
        (true, BareNewlineRule::Normalize) => decided - decided.div_ceil(3),
    }
}
