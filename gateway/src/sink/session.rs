//! One session without I/O: bytes in, replies out, and what to do when there is nothing more to take.
//!
//! Each call of [`Session::take`] works through all that was read, so that a batch of pipelined commands is answered in one
//! write. A step that must wait for a delay takes nothing; it is taken again when the delay is over.

mod commands;
mod transfer;

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::SinkIdentity;
use super::dots::Dots;
use super::event::{By, Client, ClientName, Event};
use super::fault::{self, Action, Point};
use super::message::Incoming;
use super::proxy::{self, Header};
use super::shared::Shared;

/// The longest command line, with its CRLF. What a session leaves untaken is shorter.
pub(super) const LINE_LEN_MAX: usize = 2048;
/// How much of a line that is too long is skipped before the session ends.
const SKIPPED_MAX: usize = 1 << 20;
/// How many commands may fail before the session ends.
const ERRORS_MAX: u32 = 100;

/// What the connection does next, after the replies are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// Reads what the client says next.
    Read,
    /// Waits so long, then hands in again what was not taken.
    Pause(Duration),
    /// Closes the connection.
    End(Farewell),
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Farewell {
    /// It is closed.
    Close,
    /// It is closed when the client has had time to read what was said, though it is still talking.
    Linger,
    /// It is reset.
    Reset,
    /// It is left open and mute until the client goes.
    Hang,
}

/// What [`Session::take`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    /// Bytes taken from the head of the input.
    pub(super) used: usize,
    pub(super) flow: Flow,
}

/// What the next bytes are.
#[derive(Debug)]
enum State {
    Connected,
    ProxyHeader,
    Banner,
    Commands,
    /// The rest of a line that is too long; so much of it was skipped.
    Overlong(usize),
    Data(Dots),
    /// The end of data was seen and is to be answered.
    DataEnd,
    Chunk(Chunk),
    /// All octets of a chunk were taken, and the chunk is to be answered.
    ChunkEnd(Chunk),
}

/// A BDAT being read.
#[derive(Debug, Clone, Copy)]
struct Chunk {
    left: u64,
    last: bool,
    /// What the command is answered with when its octets are gone, if they are not wanted.
    refused: Option<&'static [u8]>,
}

/// A mail transaction.
#[derive(Debug, Default)]
struct Envelope {
    from: String,
    /// Kept only if somebody wants to know them.
    recipients: Vec<String>,
    recipient_count: usize,
    smtputf8: bool,
}

/// One session of the sink: what it was told, and how far it is.
#[derive(Debug)]
pub(super) struct Session {
    shared: Arc<Shared>,
    client: Arc<Client>,
    /// Whether somebody was told of the client.
    announced: bool,
    state: State,
    /// The name of HELO or EHLO; empty before.
    helo: String,
    esmtp: bool,
    envelope: Option<Envelope>,
    message: Option<Box<Incoming>>,
    errors: u32,
    /// The delay of the present step is over.
    delayed: bool,
    /// The fault of the present message's body is done.
    body_begun: bool,
    /// There was no proper banner: nothing but QUIT is welcome (RFC 5321, section 3.1).
    unwelcome: bool,
}

/// `Continue`: so many bytes were taken. `Break`: no further without what the flow says.
type Step = ControlFlow<Flow, usize>;

impl Session {
    pub(super) fn new(shared: Arc<Shared>, peer: SocketAddr) -> Self {
        let session = shared.counts.sessions.fetch_add(1, Ordering::Relaxed) + 1;
        let client = Client {
            session,
            peer,
            believed: Some(peer.ip().to_canonical()),
            port: Some(peer.port()),
            by: By::Connection,
            name: ClientName::Untold,
            proto: None,
            helo: None,
            destination: None,
            destination_port: None,
        };
        Self {
            shared,
            client: Arc::new(client),
            announced: false,
            state: State::Connected,
            helo: String::new(),
            esmtp: false,
            envelope: None,
            message: None,
            errors: 0,
            delayed: false,
            body_begun: false,
            unwelcome: false,
        }
    }

    /// Takes what it can of `input`, and appends the replies to `out`.
    pub(super) fn take(&mut self, input: &[u8], out: &mut Vec<u8>) -> Taken {
        let mut used = 0;
        loop {
            match self.step(&input[used..], out) {
                ControlFlow::Continue(_) if self.errors > ERRORS_MAX => {
                    out.extend_from_slice(b"421 4.7.0 Too many errors\r\n");
                    return Taken { used: input.len(), flow: Flow::End(Farewell::Linger) };
                }
                ControlFlow::Continue(taken) => used += taken,
                ControlFlow::Break(flow) => return Taken { used, flow },
            }
        }
    }

    /// Whether the banner was sent. Nobody waits long for the PROXY header that must precede it.
    pub(super) fn is_greeted(&self) -> bool {
        !matches!(self.state, State::Connected | State::ProxyHeader)
    }

    fn step(&mut self, input: &[u8], out: &mut Vec<u8>) -> Step {
        match &self.state {
            State::Connected => self.connected(out),
            State::ProxyHeader => self.proxy_header(input),
            State::Banner => self.banner(out),
            State::Commands => self.command_line(input, out),
            State::Overlong(skipped) => self.overlong(*skipped, input, out),
            State::Data(_) => self.data_bytes(input, out),
            State::DataEnd => self.data_end(out),
            State::Chunk(chunk) => self.chunk_bytes(*chunk, input, out),
            State::ChunkEnd(chunk) => self.chunk_end(*chunk, out),
        }
    }

    fn connected(&mut self, out: &mut Vec<u8>) -> Step {
        if self.fault(Point::Connect, out)? {
            self.unwelcome = true;
            self.state = State::Commands;
            return ControlFlow::Continue(0);
        }
        self.state = match self.shared.options.identity {
            SinkIdentity::Xclient | SinkIdentity::None => State::Banner,
            SinkIdentity::ProxyV1 | SinkIdentity::ProxyV2 | SinkIdentity::Proxy => State::ProxyHeader,
        };
        ControlFlow::Continue(0)
    }

    fn proxy_header(&mut self, input: &[u8]) -> Step {
        match proxy::parse(self.shared.options.identity, input) {
            Header::Partial => ControlFlow::Break(Flow::Read),
            Header::Malformed => ControlFlow::Break(Flow::End(Farewell::Close)),
            Header::Whole(len, named, by) => {
                let mut client = Client { by, ..(*self.client).clone() };
                if let Some(named) = named {
                    named.apply(&mut client);
                }
                self.client = Arc::new(client);
                self.state = State::Banner;
                ControlFlow::Continue(len)
            }
        }
    }

    fn banner(&mut self, out: &mut Vec<u8>) -> Step {
        if self.fault(Point::Banner, out)? {
            self.unwelcome = true;
        } else {
            out.extend_from_slice(&self.shared.banner);
        }
        if self.shared.options.identity != SinkIdentity::Xclient {
            self.announce();
        }
        self.state = State::Commands;
        ControlFlow::Continue(0)
    }

    fn command_line(&mut self, input: &[u8], out: &mut Vec<u8>) -> Step {
        match memchr::memmem::find(input, b"\r\n") {
            Some(end) if end + 2 <= LINE_LEN_MAX => {
                self.command(&input[..end], out)?;
                ControlFlow::Continue(end + 2)
            }
            None if input.len() < LINE_LEN_MAX => ControlFlow::Break(Flow::Read),
            _ => {
                self.state = State::Overlong(0);
                ControlFlow::Continue(0)
            }
        }
    }

    fn overlong(&mut self, skipped: usize, input: &[u8], out: &mut Vec<u8>) -> Step {
        if skipped > SKIPPED_MAX {
            out.extend_from_slice(b"421 4.7.0 The line does not end\r\n");
            return ControlFlow::Break(Flow::End(Farewell::Linger));
        }
        if let Some(end) = memchr::memmem::find(input, b"\r\n") {
            self.state = State::Commands;
            self.error(b"500 5.5.2 Line too long\r\n", out);
            return ControlFlow::Continue(end + 2);
        }
        // A CR at the end may be the first half of the line's.
        match input.len() - usize::from(input.ends_with(b"\r")) {
            0 => ControlFlow::Break(Flow::Read),
            skip => {
                self.state = State::Overlong(skipped + skip);
                ControlFlow::Continue(skip)
            }
        }
    }

    /// Does what is to go wrong here. `Continue(true)`: a reply was given, and the command is not carried out.
    fn fault(&mut self, point: Point, out: &mut Vec<u8>) -> ControlFlow<Flow, bool> {
        let faults = &self.shared.options.faults;
        if faults.is_empty() {
            return ControlFlow::Continue(false);
        }
        let delay = fault::delay_at(faults, point);
        if !delay.is_zero() && !std::mem::replace(&mut self.delayed, true) {
            return ControlFlow::Break(Flow::Pause(delay));
        }
        self.delayed = false;
        let end = |farewell| ControlFlow::Break(Flow::End(farewell));
        match fault::action_at(faults, point) {
            None | Some(Action::Delay(_)) => return ControlFlow::Continue(false),
            Some(Action::Close) => return end(Farewell::Close),
            Some(Action::Reset) => return end(Farewell::Reset),
            Some(Action::Hang) => return end(Farewell::Hang),
            Some(Action::Half) => {
                out.extend_from_slice(point.half_reply());
                return end(Farewell::Close);
            }
            Some(Action::Junk) => out.extend_from_slice(fault::JUNK),
            Some(Action::Reply(code)) => {
                let reply = format!("{code} {}.3.0 A fault that was asked for\r\n", code / 100);
                out.extend_from_slice(reply.as_bytes());
                if code == 421 {
                    return end(Farewell::Linger);
                }
            }
        }
        ControlFlow::Continue(true)
    }

    /// A command failed.
    fn error(&mut self, reply: &[u8], out: &mut Vec<u8>) {
        self.errors += 1;
        out.extend_from_slice(reply);
    }

    fn reset(&mut self) {
        self.envelope = None;
        self.message = None;
    }

    fn announce(&mut self) {
        self.announced = true;
        if self.shared.is_watched() {
            self.shared.tell(&Event::Client(Arc::clone(&self.client)));
        }
    }
}

impl Drop for Session {
    /// With XCLIENT a session that came to nothing has still had a client.
    fn drop(&mut self) {
        if !self.announced && self.is_greeted() {
            self.announce();
        }
    }
}
