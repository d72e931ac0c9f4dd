//! The load: SMTP clients that know nothing but how to send, one thread, many at once.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use super::stream::{Security, Stream};

/// `user` with the password `password` (RFC 4616).
const LOGIN: &[u8] = b"AUTH PLAIN AHVzZXIAcGFzc3dvcmQ=\r\n";

/// One kind of work.
#[derive(Debug, Clone)]
pub(super) struct Work {
    pub(super) name: &'static str,
    /// Sessions at once.
    pub(super) at_once: usize,
    /// Sessions all in all.
    pub(super) sessions: usize,
    /// Messages a session; none: connect, greeting, QUIT.
    pub(super) messages: usize,
    /// Bytes a message.
    pub(super) size: usize,
    /// MAIL, RCPT and DATA in one write.
    pub(super) pipelined: bool,
    /// AUTH PLAIN before the first message.
    pub(super) login: bool,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Measured {
    pub(super) seconds: f64,
    /// Microseconds, a message each (a session each where there are no messages); the first of a session counts from its
    /// connect.
    pub(super) latencies: Vec<u64>,
    /// Sessions whose TLS took an earlier one up.
    pub(super) resumed: usize,
}

impl Work {
    /// Messages, or sessions where there are none.
    pub(super) fn units(&self) -> usize {
        self.sessions * self.messages.max(1)
    }
}

/// Does the work against `server`; the first failure ends it.
pub(super) async fn run(work: &Work, server: SocketAddr, security: &Security) -> io::Result<Measured> {
    let body: Rc<[u8]> = message(work.size).into();
    let left = Rc::new(RefCell::new(work.sessions));
    let measured = Rc::new(RefCell::new(Measured::default()));
    measured.borrow_mut().latencies.reserve(work.units());
    let started = Instant::now();
    let set = LocalSet::new();
    let clients: Vec<_> = (0..work.at_once)
        .map(|client| {
            let (work, body, left, measured) = (work.clone(), body.clone(), left.clone(), measured.clone());
            let security = security.clone();
            set.spawn_local(async move {
                while take_one(&left) {
                    session(&work, server, client, &security, &body, &measured).await?;
                }
                io::Result::Ok(())
            })
        })
        .collect();
    set.run_until(async {
        for client in clients {
            client.await.map_err(io::Error::other)??;
        }
        io::Result::Ok(())
    })
    .await?;
    let seconds = started.elapsed().as_secs_f64();
    Ok(Measured { seconds, ..measured.take() })
}

fn take_one(left: &RefCell<usize>) -> bool {
    let mut left = left.borrow_mut();
    *left = match left.checked_sub(1) {
        Some(fewer) => fewer,
        None => return false,
    };
    true
}

async fn session(
    work: &Work,
    server: SocketAddr,
    number: usize,
    security: &Security,
    body: &[u8],
    measured: &RefCell<Measured>,
) -> io::Result<()> {
    let push = |elapsed: Duration| {
        let us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        measured.borrow_mut().latencies.push(us);
    };
    let mut since = Instant::now();
    let mut client = Client::open(server, security, number).await?;
    measured.borrow_mut().resumed += usize::from(client.stream.is_resumed());
    if work.messages > 0 {
        client.ask(b"EHLO client.example\r\n", b"2").await?;
    }
    if work.login {
        client.ask(LOGIN, b"2").await?;
    }
    for _ in 0..work.messages {
        client.send(body, work.pipelined).await?;
        push(since.elapsed());
        since = Instant::now();
    }
    client.ask(b"QUIT\r\n", b"2").await?;
    if work.messages == 0 {
        push(since.elapsed());
    }
    Ok(())
}

/// One connection.
pub(super) struct Client {
    stream: Stream,
    input: Vec<u8>,
}

impl Client {
    /// Connects, reads the greeting, and is secured as the client with this number. After STARTTLS all that was said before is forgotten.
    pub(super) async fn open(server: SocketAddr, security: &Security, number: usize) -> io::Result<Self> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        let mut client = Self { stream: Stream::Plain(stream), input: Vec::with_capacity(1024) };
        if let Security::Implicit(config) = security {
            client.stream.secure(config, number).await?;
        }
        client.replies(b"2").await?;
        if let Security::StartTls(config) = security {
            client.ask(b"EHLO client.example\r\n", b"2").await?;
            client.ask(b"STARTTLS\r\n", b"2").await?;
            client.stream.secure(config, number).await?;
        }
        Ok(client)
    }

    /// What TLS was agreed upon.
    pub(super) fn agreed(&self) -> String {
        self.stream.agreed()
    }

    /// Whether EHLO says that users can log in.
    pub(super) async fn is_offered_auth(&mut self) -> io::Result<bool> {
        self.stream.write_all(b"EHLO client.example\r\n").await?;
        self.stream.flush().await?;
        while reply_length(&self.input).is_none() {
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let lines = std::mem::take(&mut self.input);
        Ok(lines.split(|&byte| byte == b'\n').any(|line| line.get(4..8) == Some(b"AUTH")))
    }

    /// Sends a command and reads its reply, whose code must begin with `expected`.
    pub(super) async fn ask(&mut self, command: &[u8], expected: &[u8; 1]) -> io::Result<()> {
        self.stream.write_all(command).await?;
        self.stream.flush().await?;
        self.replies(expected).await
    }

    async fn send(&mut self, body: &[u8], pipelined: bool) -> io::Result<()> {
        const ENVELOPE: [&[u8]; 3] =
            [b"MAIL FROM:<sender@client.example>\r\n", b"RCPT TO:<user@example.com>\r\n", b"DATA\r\n"];
        if pipelined {
            self.stream.write_all(&ENVELOPE.concat()).await?;
            self.stream.flush().await?;
            self.replies(b"223").await?;
        } else {
            for (command, expected) in ENVELOPE.into_iter().zip([b"2", b"2", b"3"]) {
                self.ask(command, expected).await?;
            }
        }
        self.stream.write_all(body).await?;
        self.stream.flush().await?;
        self.replies(b"2").await
    }

    /// Reads as many replies as `expected` has first digits.
    async fn replies(&mut self, expected: &[u8]) -> io::Result<()> {
        for digit in expected {
            let used = loop {
                if let Some(used) = reply_length(&self.input) {
                    break used;
                }
                if self.stream.read_buf(&mut self.input).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            };
            if self.input[0] != *digit {
                let reply = String::from_utf8_lossy(&self.input[..used]).into_owned();
                return Err(io::Error::other(format!("expected {}xx: {reply}", char::from(*digit))));
            }
            self.input.drain(..used);
        }
        Ok(())
    }
}

/// Length of the first whole reply.
fn reply_length(input: &[u8]) -> Option<usize> {
    let mut start = 0;
    loop {
        let line = input[start..].iter().position(|&byte| byte == b'\n')? + 1;
        let is_last = input.get(start + 3) != Some(&b'-');
        start += line;
        if is_last {
            return Some(start);
        }
    }
}

/// A message of about `size` bytes, dot-stuffed and ended.
fn message(size: usize) -> Vec<u8> {
    let mut message = b"From: <sender@client.example>\r\nTo: <user@example.com>\r\nSubject: load\r\n\
        Message-ID: <1@client.example>\r\nDate: Tue, 24 Nov 2026 03:00:00 +0000\r\n\r\n"
        .to_vec();
    while message.len() + 78 < size {
        message.extend_from_slice(&[b'x'; 76]);
        message.extend_from_slice(b"\r\n");
    }
    message.extend_from_slice(b".\r\n");
    message
}
