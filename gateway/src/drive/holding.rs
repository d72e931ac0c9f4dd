//! What a session holds while it lasts.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::task::SessionTask;

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
