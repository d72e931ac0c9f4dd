//! A connection of the load's, in clear or inside TLS.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How a server is spoken to.
#[derive(Debug, Clone)]
pub(super) enum Security {
    /// In clear.
    None,
    /// STARTTLS after EHLO (RFC 3207).
    StartTls(Arc<ClientConfig>),
    /// TLS before the greeting (RFC 8314).
    Implicit(Arc<ClientConfig>),
}

#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// While one becomes the other.
    Nothing,
}

impl Stream {
    /// Makes a plain connection a secured one, of the client with this number.
    pub(super) async fn secure(&mut self, config: &Arc<ClientConfig>, client: usize) -> io::Result<()> {
        let Self::Plain(stream) = std::mem::replace(self, Self::Nothing) else {
            return Err(io::Error::other("secured twice"));
        };
        let name = ServerName::try_from(format!("client{client}.{}", super::tls::NAME)).map_err(io::Error::other)?;
        *self = Self::Tls(Box::new(TlsConnector::from(config.clone()).connect(name, stream).await?));
        Ok(())
    }

    /// Whether the handshake took an earlier session up.
    pub(super) fn is_resumed(&self) -> bool {
        matches!(self, Self::Tls(stream) if stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed))
    }

    /// Version, cipher suite and group.
    pub(super) fn agreed(&self) -> String {
        let Self::Tls(stream) = self else { return "in clear".to_owned() };
        let connection = stream.get_ref().1;
        let version = connection.protocol_version().map(|version| format!("{version:?}"));
        let suite = connection.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite()));
        let group = connection.negotiated_key_exchange_group().map(|group| format!("{:?}", group.name()));
        [version, suite, group].into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Nothing => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Nothing => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Nothing => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Nothing => Poll::Ready(Ok(())),
        }
    }
}
