//! The client's connection, and what is on its way through it.

use tokio::net::TcpStream;

use zeroize::Zeroize as _;

use crate::tls::Channel;

use super::buffers::Pending;

/// One client's side of a session.
pub(super) struct ClientSide {
    pub(super) stream: TcpStream,
    /// Once it speaks TLS.
    pub(super) tls: Option<Box<Channel>>,
    /// Read, not yet used by the core.
    pub(super) unread: Vec<u8>,
    /// What the socket has not taken yet.
    pub(super) pending: Pending,
    /// It sends no more, which the core has yet to hear.
    pub(super) eof: bool,
    /// Code of the last reply; 0 for none.
    pub(super) last_reply: u16,
    /// Bytes of SMTP that it sent.
    pub(super) bytes_in: u64,
}

impl ClientSide {
    /// What was kept of its bytes is used up. `secret`: nothing of it may be left.
    pub(super) fn forget_unread(&mut self, secret: bool) {
        if secret {
            self.unread.zeroize();
        }
        self.unread.clear();
    }

    pub(super) fn new(stream: TcpStream, unread: Vec<u8>) -> Self {
        Self { stream, tls: None, unread, pending: Pending::default(), eof: false, last_reply: 0, bytes_in: 0 }
    }
}
