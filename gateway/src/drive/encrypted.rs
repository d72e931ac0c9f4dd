//! A socket with TLS on it, a client's or a backend's: what it brings is decrypted in the worker's scratch space, what it is to
//! take is encrypted there.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;

use crate::tls::{Channel, Received, TlsFault};

use super::buffers::{Pending, READ_MAX, with_tls_scratch};
use super::sending::poll_send_last;

/// What a read of the socket came to.
pub(super) enum Read {
    /// Nothing more will come.
    End,
    Received(Received),
    /// TLS is over.
    Fault(TlsFault),
}

/// Reads from the socket what TLS can be made of; its text goes to the head of `plain`. What TLS has to say is added to
/// `pending`. A fault is told when all text before it was.
pub(super) fn poll_receive(
    channel: &mut Channel,
    stream: &mut TcpStream,
    cx: &mut Context<'_>,
    plain: &mut [u8],
    pending: &mut Pending,
) -> Poll<io::Result<Read>> {
    if let Some(fault) = channel.fault() {
        return Poll::Ready(Ok(Read::Fault(fault.clone())));
    }
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

/// Encrypts `head` and `body` and sends them. `last`: the connection closes as soon as they are gone, and TLS says so. What
/// the socket does not take is added to `pending`, and a broken connection shows itself when that is flushed.
pub(super) fn send(
    channel: &mut Channel,
    stream: &mut TcpStream,
    cx: &mut Context<'_>,
    (head, body): (&[u8], &[u8]),
    last: bool,
    pending: &mut Pending,
) -> Result<(), TlsFault> {
    with_tls_scratch(|scratch| {
        channel.send(head, body, &mut scratch.wire)?;
        if last {
            channel.close(&mut scratch.wire);
        }
        let bytes = scratch.wire.as_slice();
        let mut sent = 0;
        if pending.is_empty() && !bytes.is_empty() {
            let written = if last { poll_send_last(stream, bytes, cx) } else { Pin::new(stream).poll_write(cx, bytes) };
            if let Poll::Ready(Ok(count)) = written {
                sent = count;
            }
        }
        pending.push(&bytes[sent..]);
        Ok(())
    })
}
