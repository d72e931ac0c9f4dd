//! The backend's socket, from dialling to close.

use std::future::Future;
use std::io::{self, Read as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead as _, AsyncWrite as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;

use crate::backend::{Attempts, BackendState, ChosenServer};
use crate::smtp::starttls::NothingBuffered;
use crate::time::Millis;
use crate::tls::{Channel, Received, SecuredStream, TlsFacts, TlsFault};

use super::buffers::Pending;
use super::encrypted::{self, Read};
use super::sending::poll_send_last;

/// Most bytes read of a backend that takes none any more.
const LAST_WORDS_MAX: usize = 16 * 1024;

type Connecting = Pin<Box<dyn Future<Output = io::Result<Dialed>> + Send>>;
type Securing = Pin<Box<dyn Future<Output = io::Result<Box<Connection>>> + Send>>;

/// A connection, and to whom.
pub(super) struct Dialed {
    pub(super) stream: TcpStream,
    pub(super) chosen: ChosenServer,
    pub(super) attempts: Attempts,
    /// When dialling began.
    pub(super) since: Millis,
}

/// The connection as it stands.
#[derive(Default)]
pub(super) enum BackendSide {
    #[default]
    None,
    /// On the way to one.
    Dialing(Connecting),
    /// The connection stands, and TLS is being begun on it.
    Securing(Securing),
    Open(Box<Connection>),
}

/// An open connection.
pub(super) struct Connection {
    stream: TcpStream,
    /// A reply whose end has not come.
    pub(super) unread: Box<[u8]>,
    pending: Pending,
    /// Once TLS stands.
    tls: Option<Box<Channel>>,
    /// Text that came with the end of the handshake.
    early: Box<[u8]>,
    /// When it was made or, once it was greeted, when the backend said its first word.
    since: Millis,
    greeted: bool,
}

impl BackendSide {
    pub(super) fn dial(dialing: impl Future<Output = io::Result<Dialed>> + Send + 'static) -> Self {
        Self::Dialing(Box::pin(dialing))
    }

    pub(super) fn connection(&mut self) -> Option<&mut Connection> {
        match self {
            Self::Open(connection) => Some(connection),
            Self::None | Self::Dialing(..) | Self::Securing(..) => None,
        }
    }

    /// What was agreed upon, once TLS stands.
    pub(super) fn tls_facts(&self) -> Option<TlsFacts> {
        match self {
            Self::Open(connection) => connection.tls.as_ref()?.facts(),
            Self::None | Self::Dialing(..) | Self::Securing(..) => None,
        }
    }

    /// Whether what was given last has left.
    pub(super) fn is_flushed(&self) -> bool {
        match self {
            Self::Open(connection) => connection.pending.is_empty(),
            Self::None | Self::Dialing(..) | Self::Securing(..) => true,
        }
    }

    /// Ready once, when dialling has come to its end: with whom, and for how many milliseconds it went on.
    pub(super) fn poll_dialed(
        &mut self,
        cx: &mut Context<'_>,
        now: Millis,
    ) -> Poll<io::Result<(ChosenServer, Attempts, u64)>> {
        let Self::Dialing(dialing) = self else { return Poll::Pending };
        let dialed = ready!(dialing.as_mut().poll(cx));
        *self = Self::None;
        Poll::Ready(dialed.map(|Dialed { stream, chosen, attempts, since }| {
            *self = Self::Open(Box::new(Connection::over(stream, now)));
            (chosen, attempts, now.since(since))
        }))
    }
}

impl BackendSide {
    /// Begins TLS on the open connection, behind what was said in clear.
    pub(super) fn secure(&mut self, _nothing: NothingBuffered, backend: Arc<BackendState>) {
        if let Self::Open(connection) = std::mem::take(self) {
            let Connection { mut stream, pending, since, greeted, .. } = *connection;
            let securing = async move {
                stream.write_all(pending.as_slice()).await?;
                let SecuredStream { socket, channel, early } = backend.secure(stream).await?;
                let (tls, early) = (channel.map(Box::new), early.into());
                Ok(Box::new(Connection { tls, early, greeted, ..Connection::over(socket, since) }))
            };
            *self = Self::Securing(Box::pin(securing));
        }
    }

    /// Ready once, when TLS stands or does not come about.
    pub(super) fn poll_secured(&mut self, cx: &mut Context<'_>, now: Millis) -> Poll<io::Result<()>> {
        let Self::Securing(securing) = self else { return Poll::Pending };
        let secured = ready!(securing.as_mut().poll(cx));
        *self = Self::None;
        Poll::Ready(secured.map(|mut connection| {
            if !connection.greeted {
                connection.since = now;
            }
            *self = Self::Open(connection);
        }))
    }
}

impl Connection {
    fn over(stream: TcpStream, now: Millis) -> Self {
        let (unread, early) = Default::default();
        Self { stream, unread, pending: Pending::default(), tls: None, early, since: now, greeted: false }
    }

    /// The backend has said something. If it is its first word: how long it took to, in milliseconds.
    pub(super) fn greeted(&mut self, now: Millis) -> Option<u64> {
        let first = !std::mem::replace(&mut self.greeted, true);
        first.then(|| now.since(std::mem::replace(&mut self.since, now)))
    }

    /// How long ago that was, in milliseconds.
    pub(super) fn since_greeting(&self, now: Millis) -> u64 {
        now.since(self.since)
    }

    /// Sends both parts, in one system call where the socket takes them; the rest is kept. `last`: the connection closes
    /// as soon as they are gone.
    pub(super) fn send(&mut self, cx: &mut Context<'_>, head: &[u8], body: &[u8], last: bool) -> io::Result<()> {
        if let Some(channel) = &mut self.tls {
            let sent = encrypted::send(channel, &mut self.stream, cx, (head, body), last, &mut self.pending);
            return sent.map_err(io::Error::other);
        }
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

    /// What was sent last, as far as it is kept, is wiped when it has left.
    pub(super) fn keep_secret(&mut self) {
        self.pending.keep_secret();
    }

    /// Read and not used yet, or not taken yet.
    pub(super) fn octets_held(&self) -> usize {
        let tls = self.tls.as_ref().map_or(0, |channel| channel.held().len());
        self.unread.len() + self.pending.len() + self.early.len() + tls
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
        if self.tls.is_some() {
            return self.poll_read_tls(cx, buffer);
        }
        let mut buffer = ReadBuf::new(buffer);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    fn poll_read_tls(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if !self.early.is_empty() {
            let early = std::mem::take(&mut self.early);
            buffer[..early.len()].copy_from_slice(&early);
            return Poll::Ready(Ok(early.len()));
        }
        let Some(channel) = &mut self.tls else { return Poll::Pending };
        loop {
            match ready!(encrypted::poll_receive(channel, &mut self.stream, cx, buffer, &mut self.pending))? {
                Read::End => return Poll::Ready(Err(io::Error::other(TlsFault::Truncated))),
                Read::Fault(fault) => return Poll::Ready(Err(io::Error::other(fault))),
                Read::Received(Received { plain: 0, closed: false, .. }) => {}
                Read::Received(received) => return Poll::Ready(Ok(received.plain)),
            }
        }
    }

    /// What it said before it hung up, as far as that was not read yet. The runtime may not have heard of it yet, so the
    /// socket itself is asked.
    pub(super) fn last_words(&mut self) -> Vec<u8> {
        let mut words = match &self.tls {
            None => std::mem::take(&mut self.unread).into_vec(),
            Some(channel) => channel.held().to_vec(),
        };
        let mut end = words.len();
        words.resize(end + LAST_WORDS_MAX, 0);
        let socket = socket2::SockRef::from(&self.stream);
        while let Ok(count @ 1..) = (&*socket).read(&mut words[end..]) {
            end += count;
        }
        words.truncate(end);
        match &mut self.tls {
            None => words,
            Some(channel) => [&*self.unread, &channel.last_text(words)].concat(),
        }
    }
}
