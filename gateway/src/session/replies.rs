//! The backend half once its session is open: each reply finds the command it answers.

use crate::smtp::ehlo::Extensions;
use crate::smtp::reply::{Reply, ReplyParse, read_reply};
use crate::time::Millis;

use super::action::{Action, NotTaken, Output};
use super::backend::Backend;
use super::client::Client;
use super::end::End;
use super::machine::Session;
use super::message::{DataState, RateWindow};
use super::pipeline::{Expect, Owed};
use super::report::MessageReport;
use super::transaction::Transaction;
use super::words::{CONFUSED, LOST, OK, Refusal, Words};

impl Session {
    /// Takes bytes from the backend; returns how many were used. The rest must be handed in again, with more behind it.
    /// `unsent`: some of what was said to it has not left yet.
    pub fn backend_bytes(&mut self, now: Millis, input: &[u8], unsent: bool, out: &mut Output) -> usize {
        let mut used = 0;
        while used < input.len() {
            if let Backend::None = self.backend.state {
                return input.len();
            }
            if self.backend.state.is_redialling() {
                return input.len();
            }
            if self.backend.state.is_opening() {
                match self.opening_bytes(now, &input[used..], out) {
                    0 => break,
                    taken => used += taken,
                }
                continue;
            }
            match read_reply(&input[used..]) {
                ReplyParse::Complete { reply, used: length } => {
                    used += length;
                    self.ready_reply(now, &reply, unsent, out);
                }
                ReplyParse::Incomplete => break,
                ReplyParse::Faulty(_) => {
                    self.backend_failed(now, CONFUSED, out);
                    used = input.len();
                }
            }
        }
        self.after_backend(now, out);
        used
    }

    /// The backend closed or reset its connection.
    pub fn backend_closed(&mut self, now: Millis, out: &mut Output) {
        if !matches!(self.backend.state, Backend::None) && !self.backend.state.is_redialling() {
            self.backend_failed(now, LOST, out);
            self.after_backend(now, out);
        }
    }

    /// The backend takes no more bytes, and closes. `last_words` is what it had said before: a refusal is the client's to
    /// hear, but nothing said before can accept a message whose end did not reach it.
    pub fn backend_broken(&mut self, now: Millis, last_words: &[u8], out: &mut Output) {
        let mut rest = last_words;
        while let ReplyParse::Complete { reply, used } = read_reply(rest) {
            if reply.class() < 4 && self.pipeline.awaits_message() {
                break;
            }
            match &self.backend.state {
                Backend::Opening(held) if held.connected.is_none() => break,
                Backend::Opening(_) => {
                    self.opening_bytes(now, rest, out);
                }
                Backend::Ready(_) => self.ready_reply(now, &reply, false, out),
                Backend::None => break,
            }
            rest = &rest[used..];
        }
        self.backend_closed(now, out);
        self.after_backend(now, out);
    }

    /// Ends what waited for the backend alone: a client's next command, its close, the last words of its session.
    pub(super) fn after_backend(&mut self, now: Millis, out: &mut Output) {
        self.client.wait.end_for_backend();
        if self.pipeline.is_empty() {
            if let Client::Ending(end, words) = self.client.state {
                self.client.state = Client::Commands { skipping: 0 };
                return self.finish_with(end, words, out);
            }
            if matches!(self.client.state, Client::Commands { .. }) {
                self.client.deadline = self.command_deadline(now);
            }
            self.settle_end(out);
        }
    }

    fn ready_reply(&mut self, now: Millis, reply: &Reply<'_>, unsent: bool, out: &mut Output) {
        if reply.code == 421 && self.fail_over(now, &Refusal::from_reply(reply), out) {
            return;
        }
        // What has not left cannot have been answered; only a refusal may come before the end.
        let too_soon = unsent && self.pipeline.owes_one();
        let Some(expect) = self.pipeline.settle() else {
            return self.unasked_reply(now, reply, out);
        };
        if let Expect::Auth = expect {
            return self.auth_answered(now, reply, too_soon, out);
        }
        let class = reply.class();
        let understood = match expect {
            // A go-ahead without a transaction would make content of what are commands to the gateway, or the reverse.
            Expect::Data => (reply.code == 354 && self.transaction.open_mut().is_some()) || class >= 4,
            Expect::ReplayedData => reply.code == 354 || class >= 4,
            _ => class == 2 || class >= 4,
        };
        if !understood || (too_soon && class < 4) {
            self.pipeline.unsettle(expect);
            return self.backend_failed(now, CONFUSED, out);
        }
        let expect = match expect {
            Expect::Part => return self.part_answered(now, reply, out),
            Expect::RoutedMail(rcpt) => return self.routed_mail_answered(now, reply, &rcpt, out),
            Expect::Replayed(left) => return self.replay_answered(now, reply, left, out),
            Expect::ReplayedData => return self.data_replayed(now, reply, out),
            expect => expect,
        };
        if matches!(expect, Expect::Hello) && class == 2 {
            self.answer_hello(out);
            self.pipeline.release(&mut out.to_client);
            return self.await_next(now);
        }
        reply.encode_into(self.utf8(), &mut out.to_client);
        if reply.code != 421 {
            // At once, for the next reply may be in the same packet.
            self.pipeline.release(&mut out.to_client);
        }
        match expect {
            Expect::Mail if class != 2 => self.transaction = Transaction::None,
            Expect::Rcpt => {
                self.recipient_answered(class == 2);
                if class != 2 {
                    self.count_not_taken(NotTaken::Refused, out);
                }
                if class == 5 {
                    self.conduct.unknown_recipient(out);
                    self.charge_error(out);
                }
            }
            Expect::Data => self.data_answered(now, reply.code == 354, out),
            Expect::Chunk if class != 2 => {
                if let Some(report) = self.break_chunks() {
                    self.message_answered(now, report, reply.code, &reply.text(), out);
                }
            }
            Expect::Message(report) => self.message_answered(now, report, reply.code, &reply.text(), out),
            Expect::Mail
            | Expect::RoutedMail(_)
            | Expect::Replayed(_)
            | Expect::ReplayedData
            | Expect::Chunk
            | Expect::Part
            | Expect::Rset
            | Expect::Hello
            | Expect::Auth => {}
        }
        if too_soon {
            // What is still to leave would be read as something else.
            self.drop_backend(out);
            self.fail_owed(now, &Refusal::from(CONFUSED), out);
        }
        if reply.code == 421 {
            // It closes of its own accord; QUIT would reach nobody.
            self.drop_backend(out);
            self.finish(End::BackendClosing, out);
        } else {
            self.await_next(now);
        }
    }

    /// Of a message that was sent behind it without waiting, as BDAT may be, or else of the transaction that is open.
    fn recipient_answered(&mut self, is_accepted: bool) {
        if let Some(report) = self.pipeline.next_message() {
            report.recipients_accepted += u32::from(is_accepted);
        } else if let Some(open) = self.transaction.open_mut() {
            open.rcpt_answered(is_accepted);
        }
    }

    /// Gives the backend its time for the next reply it owes.
    pub(super) fn await_next(&mut self, now: Millis) {
        if self.pipeline.awaits_backend() {
            let timeouts = &self.settings.timeouts;
            let span = if self.pipeline.awaits_message() { timeouts.end_of_data } else { timeouts.reply };
            self.give_backend(now, span);
        }
    }

    /// The answer to a part of a chunk: good ones are nobody's to hear, and a refusal is the whole chunk's.
    fn part_answered(&mut self, now: Millis, reply: &Reply<'_>, out: &mut Output) {
        if reply.class() == 2 {
            self.await_next(now);
        } else {
            self.refuse_body(now, Refusal::from_reply(reply), out);
        }
    }

    /// The answer to DATA. Without 354 the client is back among commands, and what it sent early must not become some.
    fn data_answered(&mut self, now: Millis, go_ahead: bool, out: &mut Output) {
        let Client::AwaitGoAhead { early } = self.client.state else { return };
        self.client.state = Client::Commands { skipping: 0 };
        if !go_ahead {
            if early {
                self.reject_early_talk(out);
            } else {
                // A client may ask again, but not without end.
                self.spend_idle(out);
            }
            return;
        }
        if let Some(open) = self.transaction.take() {
            let needs = open.needs;
            self.client.deadline = now.after(self.settings.timeouts.body);
            let trace = self.trace(now, needs);
            let rate = RateWindow::new(now, self.client.hurried);
            let mut open = open;
            let kept = open.kept.take().map(|mut kept| {
                kept.needs = needs;
                kept
            });
            let report = open.into_report();
            let state = DataState::new(report, rate, trace, self.settings.header_keeps());
            self.client.state = Client::Data(Box::new(DataState { kept, ..state }));
        }
    }

    /// The one reply that says whether there is mail.
    pub(super) fn message_answered(
        &mut self,
        now: Millis,
        mut report: Box<MessageReport>,
        code: u16,
        text: &str,
        out: &mut Output,
    ) {
        report.answer(code, text, now);
        self.conduct.message_answered(report.outcome);
        out.actions.push(Action::Message(report));
    }

    /// A reply with nothing owed: the verdict on a message that is still coming, a farewell, or a backend out of step.
    fn unasked_reply(&mut self, now: Millis, reply: &Reply<'_>, out: &mut Output) {
        let refuses = reply.class() >= 4;
        match &self.client.state {
            Client::Data(_) | Client::Chunk(_) if refuses => self.refuse_body(now, Refusal::from_reply(reply), out),
            Client::Commands { .. } if reply.code == 421 => {
                reply.encode_into(false, &mut out.to_client);
                self.drop_backend(out);
                self.finish(End::BackendClosing, out);
            }
            _ => self.backend_failed(now, CONFUSED, out),
        }
    }

    /// The backend can no longer be spoken to. What it owes is answered 4xx; a body still coming is read to its end and
    /// answered 4xx; a client that waits for nothing is told 421.
    pub(super) fn backend_failed(&mut self, now: Millis, words: Words, out: &mut Output) {
        if self.backend.state.is_opening() && self.target().has_several {
            return self.opening_failed(now, words.into(), self.blame(), out);
        }
        if !self.fail_over(now, &words.into(), out) {
            self.lose_backend(now, words, out);
        }
    }

    /// The backend is lost, and with it what it was told.
    pub(super) fn lose_backend(&mut self, now: Millis, words: Words, out: &mut Output) {
        let idle = !self.backend_owes();
        self.drop_backend(out);
        match &self.client.state {
            Client::Commands { .. } if idle => {
                let Words(_, enhanced, text) = words;
                self.finish_with(End::BackendLost, Words(421, enhanced, text), out);
            }
            Client::Auth(_) if idle => self.backend_lost_in_auth(),
            Client::Greeting(_)
            | Client::Auth(_)
            | Client::Commands { .. }
            | Client::AwaitGoAhead { .. }
            | Client::Ending(..)
            | Client::Securing
            | Client::Closed => {
                self.fail_owed(now, &Refusal::from(words), out);
            }
            Client::Data(_) | Client::Chunk(_) => {
                self.fail_owed(now, &Refusal::from(words), out);
                self.discard_body(words.into());
            }
        }
    }

    /// Gives every reply that the backend owes to the client in the words of `refusal`.
    pub(super) fn fail_owed(&mut self, now: Millis, refusal: &Refusal, out: &mut Output) {
        let mut early_body = false;
        if let Client::AwaitGoAhead { early } = self.client.state {
            self.client.state = Client::Commands { skipping: 0 };
            early_body = early;
        }
        self.client.wait.end_for_backend();
        let lost = Refusal::from(LOST);
        let mut refusal = refusal;
        let mut rest = self.pipeline.take();
        while let Some(owed) = rest.pop_front() {
            match owed {
                Owed::Gateway(reply) => out.to_client.extend_from_slice(&reply),
                // With the backend's session, its transaction is gone: that is all RSET asks for.
                Owed::Backend(Expect::Rset) => OK.encode(&mut out.to_client),
                Owed::Backend(Expect::Hello) => self.answer_hello(out),
                Owed::Backend(Expect::Auth) => self.auth_failed(now, refusal, out),
                Owed::Backend(Expect::Part) => {}
                // What another server took is not refused for good.
                Owed::Backend(Expect::Replayed(_) | Expect::ReplayedData) => {
                    refusal = &lost;
                    self.discard_body(lost.clone());
                }
                Owed::Backend(expect) => {
                    out.to_client.extend_from_slice(&refusal.encoded);
                    if let Expect::Rcpt | Expect::RoutedMail(_) = expect {
                        self.count_not_taken(NotTaken::Unavailable, out);
                    }
                    if let Expect::Message(report) = expect {
                        self.message_answered(now, report, refusal.code, &refusal.text, out);
                    }
                    if refusal.code == 421 {
                        self.pipeline.restore(rest);
                        return self.finish(End::BackendClosing, out);
                    }
                }
            }
        }
        if !self.transaction.is_none() && !self.may_be_routed_again() {
            if let Some(report) = self.break_chunks() {
                self.lose_started(now, report, refusal, out);
            }
            self.transaction = Transaction::Lost;
        }
        if early_body {
            self.reject_early_talk(out);
        }
    }

    /// A message of which some chunks were taken is lost: it is answered with the chunk that is still coming, or was just
    /// now.
    fn lose_started(&mut self, now: Millis, report: Box<MessageReport>, refusal: &Refusal, out: &mut Output) {
        match &mut self.client.state {
            Client::Chunk(state) => state.report = Some(report),
            _ => self.message_answered(now, report, refusal.code, &refusal.text, out),
        }
    }

    /// Puts the refusal of a discarded message in its place.
    pub(super) fn refuse_message(
        &mut self,
        now: Millis,
        report: Box<MessageReport>,
        refusal: &Refusal,
        out: &mut Output,
    ) {
        self.pipeline.answer(&mut out.to_client, |to| to.extend_from_slice(&refusal.encoded));
        self.message_answered(now, report, refusal.code, &refusal.text, out);
        if refusal.code == 421 {
            self.finish(End::BackendClosing, out);
        }
    }

    /// Whether the transaction may hold UTF-8.
    pub(super) fn utf8(&self) -> bool {
        match &self.transaction {
            Transaction::Open(open) => open.needs.contains(Extensions::SMTPUTF8),
            Transaction::None | Transaction::Lost => false,
        }
    }
}
