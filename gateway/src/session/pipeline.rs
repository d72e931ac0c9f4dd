//! Replies owed to the client, in the order of its commands (RFC 2920).
//!
//! A reply of the gateway's own waits behind those the backend still owes; with nothing owed it goes straight out and the
//! queue is never touched.

use std::collections::VecDeque;

use super::report::MessageReport;

/// Most replies owed at once; a client that pipelines more waits.
const OWED_MAX: usize = 128;

/// What the backend's next reply answers.
#[derive(Debug)]
pub(super) enum Expect {
    Mail,
    /// MAIL, which the gateway has answered itself; and the RCPT that is to follow if the backend takes it. A refusal is the
    /// RCPT's.
    RoutedMail(Box<[u8]>),
    Rcpt,
    Data,
    /// A BDAT chunk that is not the last.
    Chunk,
    /// A part of a chunk of the client's, which hears of it only with the rest.
    Part,
    /// The end of data, or BDAT LAST: the one reply that says whether there is mail.
    Message(Box<MessageReport>),
    Rset,
    /// An envelope's commands that the client has its answers to, said to another server one by one: so many answers are
    /// still to come.
    Replayed(usize),
    /// DATA, likewise.
    ReplayedData,
    /// RSET, said for a client that says hello once more.
    Hello,
    /// AUTH, or a response in its exchange.
    Auth,
}

#[derive(Debug)]
pub(super) enum Owed {
    Gateway(Box<[u8]>),
    Backend(Expect),
}

#[derive(Debug, Default)]
pub(super) struct Pipeline {
    queue: VecDeque<Owed>,
}

impl Pipeline {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.queue.len() >= OWED_MAX
    }

    /// The backend owes something exactly when anything is queued: [`Pipeline::release`] leaves no reply of the gateway's
    /// own at the head.
    pub(super) fn awaits_backend(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Queues an expectation.
    pub(super) fn expect(&mut self, expect: Expect) {
        self.queue.push_back(Owed::Backend(expect));
    }

    /// Gives a reply of the gateway's own its place: at once if nothing is owed before it.
    pub(super) fn answer(&mut self, to_client: &mut Vec<u8>, encode: impl FnOnce(&mut Vec<u8>)) {
        if self.queue.is_empty() {
            encode(to_client);
        } else {
            let mut reply = Vec::new();
            encode(&mut reply);
            self.queue.push_back(Owed::Gateway(reply.into()));
        }
    }

    /// What the reply that the backend has just sent answers; `None` if it owed nothing.
    pub(super) fn settle(&mut self) -> Option<Expect> {
        match self.queue.pop_front() {
            Some(Owed::Backend(expect)) => Some(expect),
            Some(Owed::Gateway(_)) | None => None,
        }
    }

    /// Takes back what was settled: the reply was none.
    pub(super) fn unsettle(&mut self, expect: Expect) {
        self.queue.push_front(Owed::Backend(expect));
    }

    /// Whether the backend owes one reply only, to what it was told last.
    pub(super) fn owes_one(&self) -> bool {
        self.queue.iter().filter(|owed| matches!(owed, Owed::Backend(_))).count() == 1
    }

    /// Whether the backend's next reply is the verdict on a message.
    pub(super) fn awaits_message(&self) -> bool {
        matches!(self.queue.front(), Some(Owed::Backend(Expect::Message(_))))
    }

    /// Whether the backend's next reply decides whether a RCPT is sent.
    pub(super) fn awaits_routed_mail(&self) -> bool {
        matches!(self.queue.front(), Some(Owed::Backend(Expect::RoutedMail(_))))
    }

    /// Whether what the backend owes first is its answers to what the client has had answered.
    pub(super) fn awaits_replay(&self) -> bool {
        matches!(self.queue.front(), Some(Owed::Backend(Expect::Replayed(_) | Expect::ReplayedData)))
    }

    /// So many commands are said again before all that is owed; DATA too, if there is a `message`. What was still owed of an
    /// earlier replay is forgotten.
    pub(super) fn expect_replay(&mut self, commands: usize, message: bool) {
        while self.awaits_replay() {
            self.queue.pop_front();
        }
        if message {
            self.queue.push_front(Owed::Backend(Expect::ReplayedData));
        }
        self.queue.push_front(Owed::Backend(Expect::Replayed(commands)));
    }

    /// Whether the answer to MAIL is owed.
    pub(super) fn owes_mail(&self) -> bool {
        self.queue.iter().any(|owed| matches!(owed, Owed::Backend(Expect::Mail | Expect::RoutedMail(_))))
    }

    /// Whether nothing is owed but to forget a transaction.
    pub(super) fn owes_only_resets(&self) -> bool {
        self.queue.iter().all(|owed| matches!(owed, Owed::Gateway(_) | Owed::Backend(Expect::Rset | Expect::Hello)))
    }

    /// Whether a verdict on a message is owed at all.
    pub(super) fn owes_message(&self) -> bool {
        self.queue.iter().any(|owed| matches!(owed, Owed::Backend(Expect::Message(_))))
    }

    /// The message whose verdict is owed first. What is owed before it belongs to its transaction.
    pub(super) fn next_message(&mut self) -> Option<&mut MessageReport> {
        self.queue.iter_mut().find_map(|owed| match owed {
            Owed::Backend(Expect::Message(report)) => Some(&mut **report),
            Owed::Gateway(_) | Owed::Backend(_) => None,
        })
    }

    /// Everything owed, to be answered otherwise.
    pub(super) fn take(&mut self) -> VecDeque<Owed> {
        std::mem::take(&mut self.queue)
    }

    /// Puts back what [`Pipeline::take`] took and was not answered.
    pub(super) fn restore(&mut self, owed: VecDeque<Owed>) {
        self.queue = owed;
    }

    /// Releases the gateway's own replies that now stand at the head.
    pub(super) fn release(&mut self, to_client: &mut Vec<u8>) {
        while let Some(Owed::Gateway(_)) = self.queue.front() {
            if let Some(Owed::Gateway(reply)) = self.queue.pop_front() {
                to_client.extend_from_slice(&reply);
            }
        }
        // A long pipeline is rare and a session is long: its memory is not kept.
        if self.queue.is_empty() && self.queue.capacity() > 16 {
            self.queue = VecDeque::new();
        }
    }
}
