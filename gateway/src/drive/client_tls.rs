//! TLS with the client: what its socket brings is decrypted in the worker's scratch space, what it gets is encrypted there.
//!
//! The channel hangs on the session's task only once there is TLS, so that sessions in clear are no larger for it, and their
//! bytes take the same way as ever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;
use tracing::debug;

use crate::observe::refusals::RefusalCause;
use crate::session::Output;
use crate::smtp::starttls::NothingBuffered;
use crate::time::Millis;
use crate::tls::{Channel, Received, TlsFault};

use super::buffers::{Pending, READ_MAX, Scratch, with_tls_scratch};
use super::task::SessionTask;
use super::worker::ClientTls;

/// What a read of the socket came to.
pub(super) enum Read {
    /// Nothing more will come.
    End,
    Received(Received),
    /// TLS is over.
    Fault(TlsFault),
}

/// Reads from the socket what TLS can be made of; its text goes to the head of `plain`. What TLS has to say is added to
/// `pending`.
pub(super) fn poll_receive(
    channel: &mut Channel,
    stream: &mut TcpStream,
    cx: &mut Context<'_>,
    plain: &mut [u8],
    pending: &mut Pending,
) -> Poll<io::Result<Read>> {
    with_tls_scratch(|scratch| {
        let held = channel.held().len();
        // No record makes more text than it has bytes.
        let end = (held + READ_MAX).min(plain.len()).min(scratch.cipher.len());
        let mut buffer = ReadBuf::new(&mut scratch.cipher[held..end]);
        ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
        let count = buffer.filled().len();
        if count == 0 {
            return Poll::Ready(Ok(Read::End));
        }
        scratch.cipher[..held].copy_from_slice(channel.held());
        let received = channel.receive(&mut scratch.cipher[..held + count], plain, &mut scratch.wire);
        pending.push(scratch.wire.as_slice());
        Poll::Ready(Ok(received.map_or_else(Read::Fault, Read::Received)))
    })
}

/// Encrypts and sends; what the socket does not take is added to `pending`, and a broken connection shows itself when that is
/// flushed.
pub(super) fn send(
    channel: &mut Channel,
    stream: &mut TcpStream,
    cx: &mut Context<'_>,
    parts: &[&[u8]],
    last: bool,
    pending: &mut Pending,
) -> Result<(), TlsFault> {
    with_tls_scratch(|scratch| {
        channel.send(parts, &mut scratch.wire)?;
        if last {
            channel.close(&mut scratch.wire);
        }
        let bytes = scratch.wire.as_slice();
        let mut sent = 0;
        if pending.is_empty()
            && !bytes.is_empty()
            && let Poll::Ready(Ok(count)) = Pin::new(stream).poll_write(cx, bytes)
        {
            sent = count;
        }
        pending.push(&bytes[sent..]);
        Ok(())
    })
}

impl SessionTask {
    /// Begins TLS with a client that begins with it.
    pub(super) fn begin_tls(&mut self) {
        if let Some(ClientTls { acceptor, implicit: true, .. }) = &self.worker.tls {
            self.client.tls = acceptor.accept().ok().map(Box::new);
        }
    }

    /// The client has asked for TLS.
    pub(super) fn secure_client(&mut self, _nothing: NothingBuffered) {
        if let Some(ClientTls { acceptor, .. }) = &self.worker.tls {
            self.client.tls = acceptor.accept().ok().map(Box::new);
        }
    }

    /// What a client says over TLS, and the end of its handshake.
    pub(super) fn move_client_tls(&mut self, cx: &mut Context<'_>, now: Millis, scratch: &mut Scratch) -> bool {
        let Some(channel) = &mut self.client.tls else { return false };
        let held = self.client.unread.len();
        let received =
            poll_receive(channel, &mut self.client.stream, cx, &mut scratch.read[held..], &mut self.client.pending);
        let received = match received {
            Poll::Pending => return false,
            Poll::Ready(Err(error)) if self.session.is_securing() => {
                debug!(session = self.id, %error, "client lost");
                return self.client_not_secured(cx, now, &TlsFault::GivenUp, scratch);
            }
            Poll::Ready(Err(error)) => return self.client_lost(cx, now, &error, scratch),
            Poll::Ready(Ok(Read::End)) if self.session.is_securing() => {
                return self.client_not_secured(cx, now, &TlsFault::GivenUp, scratch);
            }
            // Whether the end was announced matters to nobody: inside a message either end loses it.
            Poll::Ready(Ok(Read::End)) => {
                self.client.eof = true;
                return true;
            }
            Poll::Ready(Ok(Read::Fault(fault))) if self.session.is_securing() => {
                return self.client_not_secured(cx, now, &fault, scratch);
            }
            Poll::Ready(Ok(Read::Fault(fault))) => {
                return self.client_lost(cx, now, &io::Error::other(fault), scratch);
            }
            Poll::Ready(Ok(Read::Received(received))) => received,
        };
        if received.established {
            self.client_secured(cx, now, &mut scratch.out);
        }
        self.client.eof |= received.closed;
        if received.plain > 0 {
            self.client.bytes_in += received.plain as u64;
            scratch.read[..held].copy_from_slice(&self.client.unread);
            self.hand_in(cx, now, held + received.plain, scratch);
        }
        true
    }

    fn client_secured(&mut self, cx: &mut Context<'_>, now: Millis, out: &mut Output) {
        if let Some(facts) = self.client.tls.as_ref().and_then(|channel| channel.facts()) {
            debug!(session = self.id, tls = %facts, resumed = facts.resumed, "client's TLS stands");
        }
        self.session.client_secured(now, out);
        self.carry_out(cx, now, out, &[]);
    }

    /// An alert may be under way, by which the client learns why.
    fn client_not_secured(
        &mut self,
        cx: &mut Context<'_>,
        now: Millis,
        fault: &TlsFault,
        scratch: &mut Scratch,
    ) -> bool {
        debug!(session = self.id, client = %self.session.client_addr(), %fault, "no TLS with the client");
        self.worker.refused(RefusalCause::Tls, self.session.client_addr().ip());
        self.session.client_not_secured(&mut scratch.out);
        self.carry_out(cx, now, &mut scratch.out, &[]);
        true
    }
}
