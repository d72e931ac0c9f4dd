//! Drives a session over its socket: reads, hands in, writes once, and does what the session says.
//!
//! A thread's sessions share one read buffer and one write buffer, which each uses only while it is polled. An idle
//! session holds none.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::session::{Farewell, Flow, LINE_LEN_MAX, Session, Taken};
use super::shared::Shared;

/// Bytes read at once.
const READ_LEN_MAX: usize = 64 * 1024;
/// A write buffer that grew beyond this is not kept.
const KEPT_LEN_MAX: usize = 256 * 1024;
/// How long a client may be silent (RFC 5321, section 4.5.3.2.7).
const IDLE_MAX: Duration = Duration::from_secs(300);
/// How long the PROXY header may take.
const HEADER_MAX: Duration = Duration::from_secs(10);
/// How long a client that is sent away may go on talking.
const LINGER_MAX: Duration = Duration::from_secs(2);
/// How long a sink that hangs keeps a client that does not go.
const HANG_MAX: Duration = Duration::from_secs(3600);

struct Scratch {
    read: Box<[u8]>,
    out: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> =
        RefCell::new(Scratch { read: vec![0; READ_LEN_MAX + LINE_LEN_MAX].into(), out: Vec::new() });
}

struct Connection {
    stream: TcpStream,
    session: Session,
    /// Input that the session has not taken.
    held: Vec<u8>,
    /// Replies that the socket has not taken.
    unsent: Vec<u8>,
    /// What is held is handed in again before more is read.
    again: bool,
    /// When the client was last heard.
    heard: Instant,
}

/// Serves one client until it or the session ends.
pub(super) async fn serve(stream: TcpStream, peer: SocketAddr, shared: Arc<Shared>) {
    let session = Session::new(shared, peer);
    let heard = Instant::now();
    let mut connection = Connection { stream, session, held: Vec::new(), unsent: Vec::new(), again: true, heard };
    let mut idle = pin!(sleep(HEADER_MAX));
    loop {
        let flow = match poll_fn(|cx| connection.poll_turn(cx, idle.as_mut())).await {
            // The client is gone, or the socket is broken, which is the same to a sink.
            Ok(None) | Err(_) => return,
            Ok(Some(flow)) => flow,
        };
        match flow {
            Flow::Read => {}
            Flow::Pause(delay) => {
                if connection.flush().await.is_err() {
                    return;
                }
                sleep(delay).await;
                connection.again = true;
            }
            Flow::End(farewell) => {
                // Whoever does not read the last words does without.
                let _ = connection.end(farewell).await;
                return;
            }
        }
    }
}

impl Connection {
    /// Writes what is unsent, reads once, and hands in. `None`: the client is gone.
    fn poll_turn(&mut self, cx: &mut Context<'_>, mut idle: Pin<&mut Sleep>) -> Poll<io::Result<Option<Flow>>> {
        let turned = match self.poll_flush(cx)? {
            Poll::Ready(()) => self.poll_session(cx),
            Poll::Pending => Poll::Pending,
        };
        if turned.is_ready() {
            return turned;
        }
        // The timer is moved when it fires, not with each read.
        loop {
            ready!(idle.as_mut().poll(cx));
            let patience = if self.session.is_greeted() { IDLE_MAX } else { HEADER_MAX };
            if self.heard.elapsed() >= patience {
                return Poll::Ready(Ok(self.time_out()));
            }
            idle.as_mut().reset(self.heard + patience);
        }
    }

    /// A client that is silent hears so; one that does not read would not.
    fn time_out(&mut self) -> Option<Flow> {
        let hears = self.unsent.is_empty() && self.session.is_greeted();
        hears.then(|| {
            self.unsent.extend_from_slice(b"421 4.4.2 Timeout\r\n");
            Flow::End(Farewell::Close)
        })
    }

    fn poll_session(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Flow>>> {
        SCRATCH.with_borrow_mut(|Scratch { read, out }| {
            let mut len = self.held.len();
            read[..len].copy_from_slice(&self.held);
            if !self.again {
                let mut buffer = ReadBuf::new(&mut read[len..]);
                ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
                match buffer.filled().len() {
                    0 => return Poll::Ready(Ok(None)),
                    more => len += more,
                }
                self.heard = Instant::now();
            }
            self.again = false;
            out.clear();
            let Taken { used, flow } = self.session.take(&read[..len], out);
            self.hold(&read[used..len]);
            self.send(out)?;
            if out.capacity() > KEPT_LEN_MAX {
                *out = Vec::new();
            }
            Poll::Ready(Ok(Some(flow)))
        })
    }

    fn hold(&mut self, rest: &[u8]) {
        if rest.is_empty() && !self.held.is_empty() {
            self.held = Vec::new();
        } else {
            self.held.clear();
            self.held.extend_from_slice(rest);
        }
    }

    /// Writes at once what the socket takes. The banner goes out this way before the runtime knows of the socket at all.
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let sent = match SockRef::from(&self.stream).send(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            sent => sent?,
        };
        self.unsent.extend_from_slice(&bytes[sent..]);
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.unsent))?;
            self.unsent.drain(..sent);
        }
        Poll::Ready(Ok(()))
    }

    async fn flush(&mut self) -> io::Result<()> {
        timeout(IDLE_MAX, poll_fn(|cx| self.poll_flush(cx))).await?
    }

    async fn end(&mut self, farewell: Farewell) -> io::Result<()> {
        self.flush().await?;
        match farewell {
            Farewell::Close => {}
            Farewell::Reset => SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))?,
            Farewell::Linger => {
                poll_fn(|cx| Pin::new(&mut self.stream).poll_shutdown(cx)).await?;
                timeout(LINGER_MAX, self.discard()).await??;
            }
            Farewell::Hang => timeout(HANG_MAX, self.discard()).await??,
        }
        Ok(())
    }

    /// Reads and forgets until the client is gone.
    async fn discard(&mut self) -> io::Result<()> {
        let mut read_once = |cx: &mut Context<'_>| {
            SCRATCH.with_borrow_mut(|Scratch { read, .. }| {
                let mut buffer = ReadBuf::new(read);
                ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
                Poll::Ready(Ok::<_, io::Error>(buffer.filled().len()))
            })
        };
        while poll_fn(&mut read_once).await? > 0 {}
        Ok(())
    }
}
