//! The client's connection, and what is on its way through it.

use std::future::Future as _;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use tokio::io::Interest;
use tokio::net::TcpStream;

use zeroize::Zeroize as _;

use crate::tls::Channel;

use super::buffers::{Pending, keep};

/// One client's side of a session.
pub(super) struct ClientSide {
    pub(super) stream: TcpStream,
    /// Once it speaks TLS.
    pub(super) tls: Option<Box<Channel>>,
    /// Read, not yet used by the core.
    pub(super) unread: Box<[u8]>,
    /// There may be a secret in it.
    pub(super) holds_secret: bool,
    /// What the socket has not taken yet.
    pub(super) pending: Pending,
    /// Of that nobody waits for anything: a ticket for its next session leaves with the next reply.
    pub(super) pending_may_wait: bool,
    /// It sends no more, which the core has yet to hear.
    pub(super) eof: bool,
    /// Code of the last reply; 0 for none.
    pub(super) last_reply: u16,
    /// Bytes of SMTP that it sent.
    pub(super) bytes_in: u64,
}

impl ClientSide {
    pub(super) fn new(stream: TcpStream, unread: Box<[u8]>) -> Self {
        Self {
            stream,
            tls: None,
            unread,
            holds_secret: false,
            pending: Pending::default(),
            pending_may_wait: false,
            eof: false,
            last_reply: 0,
            bytes_in: 0,
        }
    }

    /// Whether it has closed its side, as far as the runtime has noticed: no call of the system is made for it.
    pub(super) fn has_hung_up(&self) -> bool {
        let ready = pin!(self.stream.ready(Interest::READABLE));
        // Who waits for bytes is woken by the read that follows.
        let ready = ready.poll(&mut Context::from_waker(Waker::noop()));
        matches!(ready, Poll::Ready(Ok(ready)) if ready.is_read_closed())
    }

    /// What was kept of its bytes is used up, and this is left. `secret`: there may be a secret in what was and what is.
    pub(super) fn keep_unread(&mut self, left: &[u8], secret: bool) {
        if secret | self.holds_secret {
            self.unread.zeroize();
        }
        keep(&mut self.unread, left);
        self.holds_secret = secret && !left.is_empty();
    }
}

impl Drop for ClientSide {
    fn drop(&mut self) {
        if self.holds_secret {
            self.unread.zeroize();
        }
    }
}
