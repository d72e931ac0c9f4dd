//! A [`Channel`] with its socket, for callers that may wait and may hold a buffer: health checks, the relay proof.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::channel::Channel;
use super::connector::Connector;
use super::fault::TlsFault;
use super::wire::Wire;

/// Bytes read at once: a server's part of a handshake, mostly.
const READ_MAX: usize = 8 * 1024;

/// A connection to a backend, in clear or under TLS.
#[derive(Debug)]
pub struct TlsStream {
    socket: TcpStream,
    tls: Option<Box<Tls>>,
}

#[derive(Debug)]
struct Tls {
    channel: Channel,
    wire: Wire,
    /// Text that came with the end of the handshake.
    early: Vec<u8>,
    closed: bool,
}

/// A connection whose TLS stands, taken apart.
#[derive(Debug)]
pub struct SecuredStream {
    /// The socket.
    pub socket: TcpStream,
    /// Its TLS; `None` if it is in clear.
    pub channel: Option<Channel>,
    /// Text that came with the end of the handshake.
    pub early: Vec<u8>,
}

impl TlsStream {
    /// In clear.
    pub fn plain(socket: TcpStream) -> Self {
        Self { socket, tls: None }
    }

    /// Goes over to TLS. Whoever calls has seen that nothing is left of what was read in clear.
    ///
    /// # Errors
    /// An error of the socket, or one whose source is the [`TlsFault`] that the handshake ended in.
    pub async fn secure(&mut self, connector: &Connector) -> io::Result<()> {
        let mut wire = Wire::default();
        let channel = connector.connect(&mut wire).map_err(io::Error::other)?;
        let tls = self.tls.insert(Box::new(Tls { channel, wire, early: Vec::new(), closed: false }));
        tls.flush(&mut self.socket).await?;
        let mut early = Vec::new();
        while !tls.channel.is_established() {
            if !tls.receive(&mut self.socket, &mut early).await? {
                return Err(io::Error::other(TlsFault::GivenUp));
            }
        }
        tls.early = early;
        Ok(())
    }

    /// Takes it apart.
    pub fn into_parts(self) -> SecuredStream {
        let Self { socket, tls } = self;
        let (channel, early) = tls.map(|tls| (tls.channel, tls.early)).unzip();
        SecuredStream { socket, channel, early: early.unwrap_or_default() }
    }

    /// TLS as it was agreed upon.
    pub fn channel(&self) -> Option<&Channel> {
        self.tls.as_ref().map(|tls| &tls.channel)
    }

    /// The socket's addresses.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Reads some bytes and appends them; 0 at the end.
    ///
    /// # Errors
    /// As [`TlsStream::secure`]; an end that was not announced is [`TlsFault::Truncated`].
    pub async fn read_buf(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.socket.read_buf(buffer).await };
        if !tls.early.is_empty() {
            let count = tls.early.len();
            buffer.append(&mut tls.early);
            return Ok(count);
        }
        let before = buffer.len();
        while buffer.len() == before {
            if tls.closed {
                return Ok(0);
            }
            if !tls.receive(&mut self.socket, buffer).await? {
                return Err(io::Error::other(TlsFault::Truncated));
            }
        }
        Ok(buffer.len() - before)
    }

    /// Sends all bytes.
    ///
    /// # Errors
    /// As [`TlsStream::secure`].
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return self.socket.write_all(bytes).await };
        tls.channel.send(bytes, &[], &mut tls.wire).map_err(io::Error::other)?;
        tls.flush(&mut self.socket).await
    }
}

impl Tls {
    /// Reads from the socket, and adds the text of it to `text`. False at the socket's end.
    async fn receive(&mut self, socket: &mut TcpStream, text: &mut Vec<u8>) -> io::Result<bool> {
        if let Some(fault) = self.channel.fault() {
            return Err(io::Error::other(fault.clone()));
        }
        let received = loop {
            // A server that hangs costs no buffer.
            socket.readable().await?;
            match self.try_receive(socket, text) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                received => break received,
            }
        };
        // Before a fault is told: the alert that the peer should hear.
        let flushed = self.flush(socket).await;
        let received = received?;
        flushed?;
        Ok(received)
    }

    fn try_receive(&mut self, socket: &TcpStream, text: &mut Vec<u8>) -> io::Result<bool> {
        let held = self.channel.held().len();
        let mut cipher = vec![0; held + READ_MAX];
        let count = socket.try_read(&mut cipher[held..])?;
        if count == 0 {
            return Ok(false);
        }
        cipher[..held].copy_from_slice(self.channel.held());
        let before = text.len();
        text.resize(before + held + count, 0);
        let received = self.channel.receive(&mut cipher[..held + count], &mut text[before..], &mut self.wire);
        text.truncate(before + received.as_ref().map_or(0, |received| received.plain));
        self.closed |= received.map_err(io::Error::other)?.closed;
        Ok(true)
    }

    async fn flush(&mut self, socket: &mut TcpStream) -> io::Result<()> {
        let sent = socket.write_all(self.wire.as_slice()).await;
        self.wire.clear();
        sent
    }
}
