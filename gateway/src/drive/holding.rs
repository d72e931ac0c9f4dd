//! What a session holds while it lasts.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::task::SessionTask;

/// A session with something that is let go when it ends.
struct Holding<H> {
    /// Let go of first: when the log says that a session is over, its place is free.
    _held: H,
    session: SessionTask,
}

impl SessionTask {
    /// The session with something that is let go when it ends. An async block would keep the session twice: as what it
    /// captured and as what it awaits.
    pub(super) fn holding<H: Send + 'static>(self, held: H) -> impl Future<Output = ()> + Send + 'static {
        Holding { _held: held, session: self }
    }
}

impl<H> Unpin for Holding<H> {}

impl<H> Future for Holding<H> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.session).poll(cx)
    }
}
