//! What a session holds while it lasts, and what is told of it at its end.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::observe::log::{self, SessionRecord};
use crate::session::End;
use crate::time::clock::now;

use super::task::SessionTask;
use super::worker::unregister;

/// A session with something that is let go when it ends.
pub(super) struct Holding<H> {
    /// Let go of first: when the log says that a session is over, its place is free.
    _held: H,
    session: SessionTask,
}

impl<H> Holding<H> {
    pub(super) fn new(session: SessionTask, held: H) -> Self {
        Self { _held: held, session }
    }
}

impl<H> Unpin for Holding<H> {}

impl<H> Future for Holding<H> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.session).poll(cx)
    }
}

impl Drop for SessionTask {
    fn drop(&mut self) {
        unregister(self.id);
        let (counters, totals) = (&self.worker.counters, self.session.totals());
        let record = SessionRecord {
            id: self.id,
            client: self.session.client_addr(),
            peer: self.peer,
            helo: self.session.hello(),
            backend: &self.worker.backend.name,
            accepted: totals.accepted,
            rejected: totals.rejected,
            deferred: totals.deferred,
            relay_denied: totals.relay_denied,
            errors: totals.errors,
            bytes_in: self.bytes_in,
            duration_ms: now().since(self.started),
            end: self.session.end().map_or("gateway stopped", End::as_str),
        };
        counters.sessions_closed_total.increment();
        counters.client_bytes_total.add(self.bytes_in);
        counters.session_seconds.observe(record.duration_ms);
        if record.is_empty() {
            counters.sessions_empty_total.increment();
        }
        log::session_closed(&record);
    }
}
