//! Messages: the bytes of DATA and BDAT, and the reply at their end.

use std::fmt::Write;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::{Chunk, Flow, Session, State, Step};
use crate::sink::event::{Event, Message};
use crate::sink::fault::Point;
use crate::sink::message::Verdict;

impl Session {
    pub(super) fn data_bytes(&mut self, input: &[u8], out: &mut Vec<u8>) -> Step {
        if input.is_empty() {
            return ControlFlow::Break(Flow::Read);
        }
        self.body_begins(out)?;
        let (State::Data(dots), Some(message)) = (&mut self.state, &mut self.message) else {
            return ControlFlow::Break(Flow::Read);
        };
        let (used, ended) = dots.take(input, |bytes| message.push(bytes));
        if ended {
            self.state = State::DataEnd;
        }
        ControlFlow::Continue(used)
    }

    pub(super) fn data_end(&mut self, out: &mut Vec<u8>) -> Step {
        self.finish_message(out)?;
        self.state = State::Commands;
        ControlFlow::Continue(0)
    }

    pub(super) fn chunk_bytes(&mut self, chunk: Chunk, input: &[u8], out: &mut Vec<u8>) -> Step {
        if chunk.left == 0 {
            self.state = State::ChunkEnd(chunk);
            return ControlFlow::Continue(0);
        }
        if input.is_empty() {
            return ControlFlow::Break(Flow::Read);
        }
        let used = usize::try_from(chunk.left).map_or(input.len(), |left| left.min(input.len()));
        if chunk.refused.is_none() {
            self.body_begins(out)?;
            if let Some(message) = &mut self.message {
                message.push(&input[..used]);
            }
        }
        let left = chunk.left - u64::try_from(used).unwrap_or(chunk.left);
        self.state = State::Chunk(Chunk { left, ..chunk });
        ControlFlow::Continue(used)
    }

    pub(super) fn chunk_end(&mut self, chunk: Chunk, out: &mut Vec<u8>) -> Step {
        if let Some(refused) = chunk.refused {
            self.error(refused, out);
        } else if self.fault(Point::Bdat, out)? {
            if chunk.last {
                self.report(false);
            }
            self.reset();
        } else if chunk.last {
            self.state = State::DataEnd;
            return ControlFlow::Continue(0);
        } else {
            out.extend_from_slice(b"250 2.0.0 Ok, go on\r\n");
        }
        self.state = State::Commands;
        ControlFlow::Continue(0)
    }

    /// The fault of `body`, once a message.
    fn body_begins(&mut self, out: &mut Vec<u8>) -> ControlFlow<Flow> {
        if !self.body_begun {
            self.fault(Point::Body, out)?;
            self.body_begun = true;
        }
        ControlFlow::Continue(())
    }

    /// Answers the end of a message.
    fn finish_message(&mut self, out: &mut Vec<u8>) -> ControlFlow<Flow> {
        let verdict = match self.fault(Point::EndOfData, out) {
            ControlFlow::Continue(false) => self.message.as_mut().map(|message| message.finish()),
            ControlFlow::Continue(true) => None,
            ControlFlow::Break(Flow::Pause(delay)) => return ControlFlow::Break(Flow::Pause(delay)),
            ControlFlow::Break(flow) => {
                self.report(false);
                return ControlFlow::Break(flow);
            }
        };
        match verdict {
            None => {}
            Some(Verdict::Taken) => out.extend_from_slice(b"250 2.0.0 Ok: taken\r\n"),
            Some(Verdict::TooBig) => self.error(b"552 5.3.4 The message is too big\r\n", out),
            Some(Verdict::NotStored) => self.error(b"451 4.3.0 The message cannot be stored\r\n", out),
        }
        self.report(verdict == Some(Verdict::Taken));
        ControlFlow::Continue(())
    }

    /// Ends the transaction and tells of its message.
    fn report(&mut self, accepted: bool) {
        let (Some(envelope), Some(message)) = (self.envelope.take(), self.message.take()) else {
            return;
        };
        if accepted {
            self.shared.count_message(message.size());
        }
        if self.shared.is_watched() {
            self.shared.tell(&Event::Message(Message {
                client: Arc::clone(&self.client),
                helo: self.helo.clone(),
                from: envelope.from,
                recipients: envelope.recipients,
                size: message.size(),
                digest: message.digest(),
                accepted,
            }));
        }
    }

    /// What a message in the Maildir begins with: its envelope, and who the client was believed to be.
    pub(super) fn trace(&self) -> String {
        let Some(envelope) = &self.envelope else { return String::new() };
        let mut text = format!("Return-Path: <{}>\r\n", envelope.from);
        for recipient in &envelope.recipients {
            // Writing to a string does not fail.
            let _ = write!(text, "Delivered-To: {recipient}\r\n");
        }
        let _ = write!(text, "X-Sink-Client: {}; helo={}\r\n", self.client, self.helo);
        text
    }
}
