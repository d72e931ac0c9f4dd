//! The backend's socket, from dialling to close.

use std::future::Future;
use std::io::{self, Read as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::SendFlags;
use tokio::io::{AsyncRead as _, AsyncWrite as _, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::smtp::starttls::NothingBuffered;
use crate::time::Millis;

use super::buffers::Pending;

/// Most bytes read of a backend that takes none any more.
const LAST_WORDS_MAX: usize = 16 * 1024;

type Connecting = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

/// The connection as it stands.
#[derive(Default)]
pub(super) enum BackendSide {
    #[default]
    None,
    /// Since when.
    Dialing(Connecting, Millis),
    /// The connection stands, and TLS is being begun on it.
    Securing(Connecting),
    Open(Box<Connection>),
}

/// An open connection.
pub(super) struct Connection {
    stream: TcpStream,
    /// A reply whose end has not come.
    pub(super) unread: Vec<u8>,
    pending: Pending,
    /// When it was made.
    pub(super) since: Millis,
}

impl BackendSide {
    pub(super) fn dial(dialing: impl Future<Output = io::Result<TcpStream>> + Send + 'static, now: Millis) -> Self {
        Self::Dialing(Box::pin(dialing), now)
    }

    pub(super) fn connection(&mut self) -> Option<&mut Connection> {
        match self {
            Self::Open(connection) => Some(connection),
            Self::None | Self::Dialing(..) | Self::Securing(_) => None,
        }
    }

    /// Whether what was given last has left.
    pub(super) fn is_flushed(&self) -> bool {
        match self {
            Self::Open(connection) => connection.pending.is_empty(),
            Self::None | Self::Dialing(..) | Self::Securing(_) => true,
        }
    }

    /// Ready once, when dialling has come to its end: for how many milliseconds it went on.
    pub(super) fn poll_dialed(&mut self, cx: &mut Context<'_>, now: Millis) -> Poll<io::Result<u64>> {
        let Self::Dialing(dialing, since) = self else { return Poll::Pending };
        let dialed = ready!(dialing.as_mut().poll(cx));
        let took = now.since(*since);
        *self = Self::None;
        Poll::Ready(dialed.map(|stream| {
            *self = Self::Open(Box::new(Connection::over(stream, now)));
            took
        }))
    }
}

impl BackendSide {
    /// Begins TLS on the open connection.
    pub(super) fn secure(&mut self, _nothing: NothingBuffered) {
        if let Self::Open(connection) = std::mem::take(self) {
            let unsupported = async move {
                drop(connection);
                Err(io::Error::new(io::ErrorKind::Unsupported, "this version speaks no TLS with backends"))
            };
            *self = Self::Securing(Box::pin(unsupported));
        }
    }

    /// Ready once, when TLS stands or does not come about.
    pub(super) fn poll_secured(&mut self, cx: &mut Context<'_>, now: Millis) -> Poll<io::Result<()>> {
        let Self::Securing(securing) = self else { return Poll::Pending };
        let secured = ready!(securing.as_mut().poll(cx));
        *self = Self::None;
        Poll::Ready(secured.map(|stream| *self = Self::Open(Box::new(Connection::over(stream, now)))))
    }
}

/// Writes what is followed by the connection's close at once: the kernel keeps it until then, and one segment carries both.
pub(super) fn poll_send_last(stream: &TcpStream, bytes: &[u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    ready!(stream.poll_write_ready(cx))?;
    let send = || Ok(rustix::net::send(stream, bytes, SendFlags::MORE | SendFlags::NOSIGNAL)?);
    match stream.try_io(Interest::WRITABLE, send) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        sent => Poll::Ready(sent),
    }
}

impl Connection {
    fn over(stream: TcpStream, now: Millis) -> Self {
        Self { stream, unread: Vec::new(), pending: Pending::default(), since: now }
    }

    /// Sends both parts, in one system call where the socket takes them; the rest is kept. `last`: the connection closes
    /// as soon as they are gone.
    pub(super) fn send(&mut self, cx: &mut Context<'_>, head: &[u8], body: &[u8], last: bool) -> io::Result<()> {
        let mut sent = 0;
        if self.pending.is_empty() {
            let slices = [io::IoSlice::new(head), io::IoSlice::new(body)];
            let written = match (head.is_empty(), body.is_empty()) {
                (true, true) => return Ok(()),
                (false, false) => Pin::new(&mut self.stream).poll_write_vectored(cx, &slices),
                (false, true) if last => poll_send_last(&self.stream, head, cx),
                (false, true) => Pin::new(&mut self.stream).poll_write(cx, head),
                (true, false) => Pin::new(&mut self.stream).poll_write(cx, body),
            };
            if let Poll::Ready(count) = written {
                sent = count?;
            }
        }
        self.pending.push(&head[sent.min(head.len())..]);
        self.pending.push(&body[sent.saturating_sub(head.len())..]);
        Ok(())
    }

    /// Whether all that was to be sent has left.
    pub(super) fn is_flushed(&self) -> bool {
        self.pending.is_empty()
    }

    /// Sends what was kept. Ready when nothing is left.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.pending.is_empty() {
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, self.pending.as_slice()))?;
            self.pending.advance(count);
        }
        Poll::Ready(Ok(()))
    }

    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// What it said before it hung up, as far as that was not read yet. The runtime may not have heard of it yet, so the
    /// socket itself is asked.
    pub(super) fn last_words(&mut self) -> Vec<u8> {
        let mut words = std::mem::take(&mut self.unread);
        let mut end = words.len();
        words.resize(end + LAST_WORDS_MAX, 0);
        let socket = socket2::SockRef::from(&self.stream);
        while let Ok(count @ 1..) = (&*socket).read(&mut words[end..]) {
            end += count;
        }
        words.truncate(end);
        words
    }
}
