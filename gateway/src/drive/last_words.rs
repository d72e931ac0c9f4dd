//! The end of a session: its last words leave, and a client that may still be talking is heard out.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use crate::session::End;
use crate::time::Millis;
use crate::time::clock::now;

use super::buffers::{Scratch, with_tls_scratch};
use super::closing::{Closing, linger_end};
use super::task::SessionTask;

/// How much more a client may send meanwhile, in bytes.
const LINGER_BYTES: u32 = 256 * 1024;

impl SessionTask {
    /// Writes the last words, then lets go; a client that did not say QUIT is heard out first.
    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Poll<()> {
        if let Some(channel) = &mut self.client.tls {
            with_tls_scratch(|scratch| {
                channel.close(&mut scratch.wire);
                self.client.pending.push(scratch.wire.as_slice());
            });
        }
        if let Closing::Flushing { until } = self.closing {
            let left = self.client.pending.len();
            if self.poll_flush_client(cx).is_pending() {
                // One that goes on reading is waited for, within the deadline that it had anyway.
                let until = if self.client.pending.len() < left { linger_end() } else { until };
                self.closing = Closing::Flushing { until };
                return self.poll_deadline(cx, self.session.deadline().min(until));
            }
            let end = self.session.end();
            if end == Some(End::Quit) {
                return Poll::Ready(());
            }
            if !self.has_turn(now()) {
                self.arm_timer(cx);
                return Poll::Pending;
            }
            if self.client.eof || matches!(end, Some(End::ClientClosed | End::ClientLost)) {
                return Poll::Ready(());
            }
            // If it cannot be shut down it is gone, and reading will say so.
            let _ = Pin::new(&mut self.client.stream).poll_shutdown(cx);
            self.closing = Closing::Lingering { until: linger_end(), bytes: 0 };
        }
        let Closing::Lingering { until, bytes } = &mut self.closing else { return Poll::Ready(()) };
        let until = *until;
        loop {
            let mut buffer = ReadBuf::new(&mut scratch.read);
            match Pin::new(&mut self.client.stream).poll_read(cx, &mut buffer) {
                Poll::Pending => break,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(())) => {}
            }
            *bytes += u32::try_from(buffer.filled().len()).unwrap_or(LINGER_BYTES);
            if buffer.filled().is_empty() || *bytes > LINGER_BYTES {
                return Poll::Ready(());
            }
        }
        self.poll_deadline(cx, until)
    }

    pub(super) fn poll_flush_client(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.client.pending.is_empty() {
            let count = ready!(Pin::new(&mut self.client.stream).poll_write(cx, self.client.pending.as_slice()))?;
            self.client.pending.advance(count);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>, deadline: Millis) -> Poll<()> {
        self.timer.set(deadline);
        self.timer.poll(cx)
    }
}
