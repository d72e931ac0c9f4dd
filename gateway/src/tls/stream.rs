//! A [`Channel`] with its socket, for callers that may wait and may hold a buffer: health checks, the relay proof.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::channel::Channel;
use super::connector::Connector;
use super::fault::TlsFault;
use super::wire::Wire;

/// Bytes read at once.
const READ_MAX: usize = 16 * 1024;
/// A record that has not come whole, and what is read behind it.
const BUFFER: usize = 96 * 1024;

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
    cipher: Vec<u8>,
    plain: Vec<u8>,
    closed: bool,
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
        let (cipher, plain) = (vec![0; BUFFER], vec![0; BUFFER]);
        let tls = self.tls.insert(Box::new(Tls { channel, wire, cipher, plain, closed: false }));
        tls.flush(&mut self.socket).await?;
        while !tls.channel.is_established() {
            if tls.receive(&mut self.socket).await?.is_none() {
                return Err(io::Error::other(TlsFault::GivenUp));
            }
        }
        Ok(())
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
        loop {
            if tls.closed {
                return Ok(0);
            }
            match tls.receive(&mut self.socket).await? {
                None => return Err(io::Error::other(TlsFault::Truncated)),
                Some(0) => {}
                Some(count) => {
                    buffer.extend_from_slice(&tls.plain[..count]);
                    return Ok(count);
                }
            }
        }
    }

    /// Sends all bytes.
    ///
    /// # Errors
    /// As [`TlsStream::secure`].
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return self.socket.write_all(bytes).await };
        tls.channel.send(&[bytes], &mut tls.wire).map_err(io::Error::other)?;
        tls.flush(&mut self.socket).await
    }
}

impl Tls {
    /// Reads from the socket; how many bytes of text that made. `None` at its end.
    async fn receive(&mut self, socket: &mut TcpStream) -> io::Result<Option<usize>> {
        let held = self.channel.held().len();
        self.cipher[..held].copy_from_slice(self.channel.held());
        let count = socket.read(&mut self.cipher[held..held + READ_MAX]).await?;
        if count == 0 {
            return Ok(None);
        }
        let received = self.channel.receive(&mut self.cipher[..held + count], &mut self.plain, &mut self.wire);
        // Before a fault is told: the alert that the peer should hear.
        let flushed = self.flush(socket).await;
        let received = received.map_err(io::Error::other)?;
        flushed?;
        self.closed |= received.closed;
        Ok(Some(received.plain))
    }

    async fn flush(&mut self, socket: &mut TcpStream) -> io::Result<()> {
        let sent = socket.write_all(self.wire.as_slice()).await;
        self.wire.clear();
        sent
    }
}
