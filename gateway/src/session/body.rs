//! The client half inside a message, and DATA (RFC 5321 section 4.1.1.4); BDAT is `chunk`'s.
//!
//! A body is a stream through a transcoder, never lines or events. It has a fate: forwarded, or, once something is wrong
//! with it or with the backend, discarded to its end so that client and gateway stay in step.
//!
//! What is said of a faulty body does not depend on how it was packed: faults are judged in the order in which they stand
//! in it, the header before the size.

use mail_parser::DateTime;

use crate::identity::xclient::ClientName;
use crate::policy::offences::Offence;
use crate::smtp::address::is_domain;
use crate::smtp::body::BodyFault;
use crate::smtp::ehlo::Extensions;
use crate::time::Millis;

use super::action::{Action, Output, Taken};
use super::backend::Name;
use super::client::{Client, UNENDED_WAIT};
use super::end::End;
use super::machine::Session;
use super::message::{Fate, fault_words};
use super::pipeline::Expect;
use super::report::{MessageOutcome, MessageReport};
use super::trace_header::{TraceHeader, literal};
use super::transaction::Transaction;
use super::words::{ENDLESS_MESSAGE, Refusal, UNENDED_MESSAGE, Words};

impl Session {
    /// Takes a piece of a dot-stuffed message.
    pub(super) fn take_data(&mut self, now: Millis, input: &mut [u8], out: &mut Output) -> Taken {
        let Client::Data(mut state) = std::mem::replace(&mut self.client.state, Client::Commands { skipping: 0 })
        else {
            return Taken::default();
        };
        let spilled_from = out.to_backend.len();
        let step = state.transcoder.step(input, &self.settings.body_rules, &mut out.to_backend);
        state.rate.count(step.used);
        state.taken += step.used as u64;
        state.kept = None;
        if step.fault == Some(BodyFault::Smuggling) {
            self.conduct.offend(Offence::SmugglingAttempt, out);
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
            self.client.state = Client::Data(state);
            return taken;
        }
        state.report.size = state.transcoder.content_octets();
        state.report.ended = now;
        match state.fate {
            Fate::Forward => self.expect_message(now, state.report),
            Fate::Discard(refusal) => self.refuse_message(now, state.report, &refusal, out),
        }
        self.client.deadline = now.after(self.settings.timeouts.command);
        taken
    }

    pub(super) fn expect_message(&mut self, now: Millis, report: Box<MessageReport>) {
        let first = !self.backend_owes();
        self.expect(Expect::Message(report), now);
        if first {
            self.backend.deadline = now.after(self.settings.timeouts.end_of_data);
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
        match &mut self.client.state {
            Client::Data(state) => state.fate = Fate::Discard(refusal),
            Client::Chunk(state) => state.fate = Fate::Discard(refusal),
            _ => {}
        }
    }

    /// Ends the session of a client whose refused message does not end.
    pub(super) fn give_up_message(&mut self, now: Millis, report: Option<Box<MessageReport>>, out: &mut Output) {
        let Words(code, _, text) = ENDLESS_MESSAGE;
        if let Some(mut report) = report {
            report.ended = now;
            self.message_answered(now, report, code, text, out);
        }
        self.finish_with(End::Flood, ENDLESS_MESSAGE, out);
    }

    /// Reports a message that will never end, and lets go of a backend that waits for the rest of it: nothing that is still
    /// said to it may be taken for content.
    pub(super) fn abort_message(&mut self, now: Millis, out: &mut Output) {
        let report = match std::mem::replace(&mut self.client.state, Client::Commands { skipping: 0 }) {
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
                self.client.state = other;
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
        let rate = match &mut self.client.state {
            Client::Data(state) => &mut state.rate,
            Client::Chunk(state) => &mut state.rate,
            _ => return,
        };
        if hurried {
            rate.hurry(now);
        }
    }

    /// Refuses a message whose end the client seems to have sent in its own way, if it has waited for the answer for long
    /// enough. What follows cannot be told from content, so the session ends with it. False if that is not so. While the
    /// backend takes nothing the client is not read, and is not silent: its wait begins anew.
    pub(super) fn refuse_unended(&mut self, now: Millis, backend_stalled: bool, out: &mut Output) -> bool {
        let Client::Data(state) = &mut self.client.state else { return false };
        if state.told_at.is_none_or(|at| now < at) {
            return false;
        }
        if backend_stalled {
            state.told_at = Some(now.after(UNENDED_WAIT));
            return false;
        }
        let Client::Data(state) = std::mem::replace(&mut self.client.state, Client::Commands { skipping: 0 }) else {
            return false;
        };
        self.drop_backend(out);
        let Words(code, _, text) = UNENDED_MESSAGE;
        let mut report = state.report;
        report.size = state.transcoder.content_octets();
        report.ended = now;
        self.message_answered(now, report, code, text, out);
        self.finish_with(End::ClientTimeout, UNENDED_MESSAGE, out);
        true
    }

    /// When the minimum rate is checked next, or a client is told that its message has not ended; `None` outside a body.
    pub(super) fn rate_check_at(&self) -> Option<Millis> {
        match &self.client.state {
            Client::Data(state) => Some(state.told_at.map_or(state.rate.due(), |at| at.min(state.rate.due()))),
            Client::Chunk(state) => Some(state.rate.due()),
            _ => None,
        }
    }

    /// Checks the rate if that is due, and opens the next window.
    pub(super) fn rate_holds(&mut self, now: Millis) -> bool {
        let (minimum, hurried) = (self.settings.limits.minimum_rate, self.client.hurried);
        let rate = match &mut self.client.state {
            Client::Data(state) => &mut state.rate,
            Client::Chunk(state) => &mut state.rate,
            _ => return true,
        };
        rate.holds(now, minimum, hurried)
    }

    /// For a message that begins now and uses these extensions; `None` for backends that are told otherwise.
    pub(super) fn trace(&self, now: Millis, used: Extensions) -> Option<TraceHeader> {
        if !self.target().identity.is_trace_header() {
            return None;
        }
        let hello = self.client.hello.as_ref()?;
        let name = match &self.backend.name {
            Name::Known(ClientName::Verified(name)) => format!("{name} "),
            _ => String::new(),
        };
        let protocol = match hello.esmtp {
            _ if used.contains(Extensions::SMTPUTF8) && self.client.secured => "UTF8SMTPS",
            _ if used.contains(Extensions::SMTPUTF8) => "UTF8SMTP",
            true if self.client.secured => "ESMTPS",
            true => "ESMTP",
            // TLS has no word of its own behind HELO.
            false => "SMTP",
        };
        let date = DateTime::from_timestamp(self.backend.clock.as_ref()?.unix_seconds(now)).to_rfc822();
        let client = literal(self.client_addr.socket_addr());
        // Clients name themselves in many ways, and not each is a word that this field may have there.
        let named = if is_domain(&hello.name) { &*hello.name } else { &*client };
        let field = format!(
            "Received: from {named} ({name}{client})\r\n\tby {} with {protocol};\r\n\t{date}\r\n",
            self.settings.hostname
        );
        Some(TraceHeader::new(field))
    }
}
