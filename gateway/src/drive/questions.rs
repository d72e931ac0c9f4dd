//! What the core has asked, while it is being found out. Dropped with its session.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::identity::ClientAddr;
use crate::session::{Answer, Question, RecipientVerdict, Ticket};

use super::worker::Worker;

type LookUp = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// Questions under way; without any, no memory is held.
#[derive(Default)]
pub(super) struct Questions(Box<[(Ticket, LookUp)]>);

impl Questions {
    /// Begins to find out.
    pub(super) fn ask(&mut self, worker: &Worker, client: ClientAddr, ticket: Ticket, question: Question) {
        let look_up: LookUp = match question {
            Question::ClientName => {
                let (names, ip) = (worker.names.clone(), client.ip());
                Box::pin(async move { Answer::ClientName(names.look_up(ip).await) })
            }
            // Nobody has a say in recipients but the guard and the backend.
            Question::Recipient(_) => Box::pin(std::future::ready(Answer::Recipient(RecipientVerdict::Pass))),
        };
        self.0 = std::mem::take(&mut self.0).into_iter().chain([(ticket, look_up)]).collect();
    }

    /// An answer that has come, if one has.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Option<(Ticket, Answer)> {
        for index in 0..self.0.len() {
            let (ticket, look_up) = &mut self.0[index];
            if let Poll::Ready(answer) = look_up.as_mut().poll(cx) {
                let answered = *ticket;
                let others = std::mem::take(&mut self.0).into_iter().filter(|(ticket, _)| *ticket != answered);
                self.0 = others.collect();
                return Some((answered, answer));
            }
        }
        None
    }
}
