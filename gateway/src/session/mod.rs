//! One SMTP session as a state machine without I/O: bytes and events with the time as an argument go in, bytes and
//! actions come out.
//!
//! The room knows SMTP and nothing else: no socket, no clock, no executor, so a whole session with a dying backend is a
//! text fixture that runs in microseconds. Two halves, joined by a queue of owed replies:
//!
//! - the **client half** (`commands`, `envelope`, `body`, `chunk`) reads commands and bodies, answers what is the gateway's to answer, and
//!   sends on what is the backend's;
//! - the **backend half** (`handshake`, `replies`) opens the backend's session with the client's identity and reads its
//!   replies;
//! - the **pipeline** between them holds, in the client's order, every reply still owed to it.
//!
//! Invariant: a positive reply for mail exists only as the encoding of a reply that was read from the backend.
//! Invariant: nothing of the client's reaches the backend before the identity was delivered and accepted.

mod body;
mod chunk;
mod commands;
mod end;
mod envelope;
mod handshake;
mod pipeline;
mod question;
mod replies;
mod report;
mod settings;
mod starttls;
mod trace;
mod transaction;

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::config::EarlyTalk;
use crate::identity::ClientAddr;
use crate::identity::proxy_in::begins_header;
use crate::identity::xclient::{ClientName, Ipv6Form};
use crate::opening::IdentityFault;
use crate::policy::budget::Budget;
use crate::policy::offences::{Offence, SessionOffences};
use crate::policy::relay_guard::Hold;
use crate::smtp::starttls::NothingBuffered;
use crate::time::{Millis, WallClock};

pub use end::End;
pub use question::{Answer, Question, RecipientVerdict, Ticket};
pub use report::{MessageOutcome, MessageReport, SessionTotals};
pub use settings::{Dialect, Settings};

use body::DataState;
use chunk::ChunkState;
use end::Words;
use handshake::Backend;
use pipeline::Pipeline;
use question::{Tickets, Wait};
use transaction::Transaction;

/// How long a client that has brought no mail may take for a command while places for sessions run out.
const HURRIED_COMMAND: Duration = Duration::from_secs(30);
/// How soon at the latest what was said before the greeting is handed in.
const EARLY_WAIT: Duration = Duration::from_secs(1);

/// What the driver shall do, in order, after it has written what [`Output`] holds.
#[derive(Debug)]
pub enum Action {
    /// Connect to the backend, then call [`Session::backend_connected`] or [`Session::backend_unreachable`].
    Dial,
    /// Begin TLS with the client, once what is left for it was written, then call [`Session::client_secured`] or
    /// [`Session::client_not_secured`].
    SecureClient(NothingBuffered),
    /// Find this out, then call [`Session::answer`] with the same ticket.
    Ask(Ticket, Question),
    /// Close the backend's connection; what was written before may still be delivered.
    CloseBackend,
    /// Write what is left for the client, then close its connection.
    CloseClient,
    /// A message is over, one way or another: for the log and the counters.
    Message(Box<MessageReport>),
    /// A recipient in this domain was refused by the relay guard.
    RelayDenied(Box<str>),
    /// A client talked before it was asked.
    EarlyTalk,
    /// A PROXY header came where none is taken: perhaps a load balancer's that is not listed. No offence.
    ProxyHeader,
    /// A client did something else that speaks against it.
    Offence(Offence),
    /// Begin TLS with the backend once what was written before has left, then call [`Session::backend_secured`] or
    /// [`Session::backend_not_secured`].
    SecureBackend(NothingBuffered),
    /// The backend did not accept the client's identity, or does not know how to: what an administrator must mend.
    IdentityFailed(IdentityFault),
    /// The backend cannot be spoken to over TLS, which it must be: what an administrator must mend.
    BackendTlsFailed(String),
    /// The backend took the client's identity, and offers it XCLIENT as if it had not.
    IdentityDoubted,
    /// The backend took the client's identity, and its session is open.
    IdentityAccepted,
    /// The backend's session does not offer what clients were told: learn it anew.
    DialectStale,
}

/// What one call produced. The driver owns it, empties it by writing, and hands it in again.
#[derive(Debug, Default)]
pub struct Output {
    /// Bytes for the client.
    pub to_client: Vec<u8>,
    /// Bytes for the backend; they precede the forwarded range of the same call.
    pub to_backend: Vec<u8>,
    /// In order.
    pub actions: Vec<Action>,
    /// While somebody follows the client: its command lines, as they came, one behind the other.
    pub heard: Option<Vec<u8>>,
}

/// How much of the client's bytes a call used up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Taken {
    /// Bytes consumed from the head of the input. The rest must be handed in again, with more behind it.
    pub used: usize,
    /// Part of the consumed input that goes to the backend as it now stands in the buffer, behind `to_backend`.
    pub forward: Range<usize>,
}

/// The client half's state: what its next bytes mean.
#[derive(Debug)]
enum Client {
    /// The next bytes are commands. `skipping`: they still belong to a line that was too long.
    Commands { skipping: usize },
    /// DATA was sent on; nothing may come before the backend's 354. `early`: something did, and was let pass.
    AwaitGoAhead { early: bool },
    /// The next bytes are a message, dot-stuffed.
    Data(Box<DataState>),
    /// The next bytes are counted octets.
    Chunk(Box<ChunkState>),
    /// TLS is being begun; the next bytes are its own.
    Securing,
    /// Nothing is read before the greeting, which is sent at this time; who talks before it talks too early.
    Greeting(Millis),
    /// Nothing more is read, but the verdict on a message is still owed; then these words end the session.
    Ending(End, Words),
    /// Nothing more is read.
    Closed,
}

/// The client's host name.
#[derive(Debug, Default)]
enum Name {
    #[default]
    Unasked,
    Asked(Ticket),
    Known(ClientName),
}

/// The name a client gave.
#[derive(Debug, Clone)]
struct Hello {
    name: Box<str>,
    esmtp: bool,
}

/// Client flags that outlive states.
#[derive(Debug, Default, Clone, Copy)]
struct Flags {
    /// The client sent its last byte; what is owed is still delivered.
    half_closed: bool,
    /// The greeting waits for TLS.
    greets_secured: bool,
    /// STARTTLS is offered.
    offers_starttls: bool,
    /// TLS stands.
    secured: bool,
    /// The client cannot be written to any more.
    gone: bool,
    /// The gateway is going down: no further transaction begins.
    draining: bool,
    /// What was read last of a command ends as no line does; if no more comes, that is said.
    unended: bool,
    /// Places for sessions run out, so that slow ones must make room.
    hurried: bool,
}

/// One client's session, and the backend session that serves it.
#[derive(Debug)]
pub struct Session {
    settings: Arc<Settings>,
    dialect: Arc<Dialect>,
    client_addr: ClientAddr,
    client: Client,
    backend: Backend,
    pipeline: Pipeline,
    transaction: Transaction,
    hello: Option<Hello>,
    name: Name,
    tickets: Tickets,
    wait: Wait,
    destination: Option<SocketAddr>,
    clock: Option<WallClock>,
    budget: Budget,
    offences: SessionOffences,
    flags: Flags,
    hold: Hold,
    ipv6_form: Ipv6Form,
    end: Option<End>,
    totals: SessionTotals,
    /// When the client's present phase must be over.
    client_deadline: Millis,
    /// When the backend must have answered; meaningful while it owes something.
    backend_deadline: Millis,
}

impl Session {
    /// A session for a client that has just connected. Nothing is said until [`Session::begin`].
    pub fn new(settings: Arc<Settings>, dialect: Arc<Dialect>, client_addr: ClientAddr, now: Millis) -> Self {
        let client_deadline = now.after(settings.timeouts.command);
        Self {
            settings,
            dialect,
            client_addr,
            client: Client::Commands { skipping: 0 },
            backend: Backend::None,
            pipeline: Pipeline::default(),
            transaction: Transaction::None,
            hello: None,
            name: Name::Unasked,
            tickets: Tickets::default(),
            wait: Wait::Nothing,
            destination: None,
            clock: None,
            budget: Budget::default(),
            offences: SessionOffences::default(),
            flags: Flags::default(),
            hold: Hold::None,
            ipv6_form: Ipv6Form::default(),
            end: None,
            totals: SessionTotals::default(),
            client_deadline,
            backend_deadline: now,
        }
    }

    /// Begins: the greeting is sent after `delay`, during which a client that talks talks too early. `early`: it has talked
    /// already. A load balancer that speaks for itself, and so knows that it is served, is neither early nor kept waiting.
    pub fn begin(&mut self, now: Millis, delay: Duration, early: bool, out: &mut Output) {
        if self.is_securing() {
            return;
        }
        let is_client = self.client_addr.is_named();
        if !is_client || (delay.is_zero() && !early) {
            self.greet(now, out);
        } else {
            // What was said already is handed in before this is over.
            self.client = Client::Greeting(now.after(delay.max(EARLY_WAIT)));
        }
    }

    fn greet(&mut self, now: Millis, out: &mut Output) {
        out.to_client.extend_from_slice(&self.settings.greeting);
        self.client = Client::Commands { skipping: 0 };
        self.client_deadline = now.after(self.settings.timeouts.command);
    }

    fn talked_before_greeting(&mut self, input: &[u8], out: &mut Output) {
        if self.client_addr.is_direct() && begins_header(input) {
            return self.refuse_proxy_header(out);
        }
        out.actions.push(Action::EarlyTalk);
        if brings_mail(input) {
            self.offend(Offence::EarlyTalk, out);
        }
        match self.settings.early_talk {
            EarlyTalk::Reject => self.reject_early_talk(out),
            EarlyTalk::Log => {
                out.to_client.extend_from_slice(&self.settings.greeting);
                self.client = Client::Commands { skipping: 0 };
            }
        }
    }

    /// Takes bytes from the client. `input` must begin with what the last call left over.
    ///
    /// The call returns early, with input left, when a part of it is to be forwarded, or when the session must first
    /// hear from the backend ([`Session::wants_client`] is false then).
    pub fn client_bytes(&mut self, now: Millis, input: &mut [u8], out: &mut Output) -> Taken {
        let taken = self.take(now, input, out);
        if self.flags.draining {
            self.settle_end(out);
        }
        taken
    }

    fn take(&mut self, now: Millis, input: &mut [u8], out: &mut Output) -> Taken {
        let mut used = 0;
        while used < input.len() {
            let forward = match &self.client {
                Client::Commands { .. } => match self.take_command(now, &input[used..], out) {
                    0 => break,
                    taken => {
                        used += taken;
                        continue;
                    }
                },
                Client::AwaitGoAhead { early } => {
                    if *early || !self.early_body(out) {
                        break;
                    }
                    continue;
                }
                Client::Data(_) => self.take_data(now, &mut input[used..], out),
                Client::Chunk(_) => self.take_chunk(now, &mut input[used..], out),
                Client::Greeting(_) => {
                    self.talked_before_greeting(&input[used..], out);
                    continue;
                }
                Client::Securing => break,
                Client::Ending(..) | Client::Closed => return Taken { used: input.len(), forward: 0..0 },
            };
            let start = used;
            used += forward.used;
            if !forward.forward.is_empty() {
                return Taken { used, forward: start + forward.forward.start..start + forward.forward.end };
            }
            if forward.used == 0 {
                break;
            }
        }
        Taken { used, forward: 0..0 }
    }

    /// How the backend wants IPv6 addresses written in XCLIENT.
    pub fn write_ipv6(&mut self, form: Ipv6Form) {
        self.ipv6_form = form;
    }

    /// From the next command on, the backend gets no more than this.
    pub fn hold(&mut self, hold: Hold) {
        self.hold = hold;
    }

    /// Places for sessions run out, or do so no more: a body that hardly moves is waited for less.
    pub fn hurry(&mut self, now: Millis, hurried: bool) {
        if self.flags.hurried != hurried {
            self.flags.hurried = hurried;
            self.hurry_body(now, hurried);
            if hurried && self.totals.accepted == 0 && matches!(self.client, Client::Commands { .. }) {
                self.client_deadline = self.client_deadline.min(now.after(HURRIED_COMMAND));
            }
        }
    }

    /// What was asked is known.
    pub fn answer(&mut self, now: Millis, ticket: Ticket, answer: Answer, out: &mut Output) {
        match answer {
            Answer::ClientName(name) => {
                if matches!(self.name, Name::Asked(asked) if asked == ticket) {
                    self.client_name(now, name, out);
                }
            }
            Answer::Recipient(verdict) => {
                if matches!(&self.wait, Wait::Recipient(asked) if asked.ticket == ticket) {
                    self.recipient_judged(now, verdict, out);
                }
            }
        }
    }

    /// Whether bytes of the client are of use now.
    pub fn wants_client(&self) -> bool {
        match &self.client {
            Client::Commands { .. } => !self.flags.half_closed && self.wait.is_nothing(),
            Client::AwaitGoAhead { early } => !early,
            Client::Greeting(_) | Client::Data(_) | Client::Chunk(_) | Client::Securing => true,
            Client::Ending(..) | Client::Closed => false,
        }
    }

    /// When [`Session::tick`] must be called at the latest.
    pub fn deadline(&self) -> Millis {
        let mut deadline = match (&self.client, self.wait.until()) {
            (Client::Greeting(until), _) => *until,
            (_, Some(until)) => until,
            _ if self.backend_owes() => self.backend_deadline,
            _ => self.client_deadline,
        };
        if let Some(check) = self.rate_check_at() {
            deadline = deadline.min(check);
        }
        deadline
    }

    /// Whether the session is over, and why. The connections close once what is left has been written.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// What happened so far, for the log.
    pub fn totals(&self) -> SessionTotals {
        self.totals
    }

    /// The name the client gave, for the log.
    pub fn hello(&self) -> Option<&str> {
        self.hello.as_ref().map(|h| &*h.name)
    }

    /// What it is doing, for people.
    pub fn state(&self) -> &'static str {
        match &self.client {
            Client::Greeting(_) => "connected",
            Client::Securing => "handshake",
            Client::Ending(..) => "verdict",
            Client::Closed => "ending",
            Client::Data(_) | Client::Chunk(_) => "message",
            Client::AwaitGoAhead { .. } => "data",
            Client::Commands { .. } if self.pipeline.owes_message() => "verdict",
            Client::Commands { .. } if self.backend.is_opening() => "opening",
            Client::Commands { .. } if !self.transaction.is_none() => "envelope",
            Client::Commands { .. } if self.hello.is_none() => "greeted",
            Client::Commands { .. } => "idle",
        }
    }

    /// Who the gateway believes the client to be.
    pub fn client_addr(&self) -> ClientAddr {
        self.client_addr
    }

    /// Whether something is awaited from the backend: a reply, or its session's opening.
    fn backend_owes(&self) -> bool {
        self.pipeline.awaits_backend() || self.backend.is_opening()
    }
}

/// Whether what a client said too early is more than a monitor says, which greets and leaves: it means to send mail.
fn brings_mail(input: &[u8]) -> bool {
    input.split(|&byte| byte == b'\n').any(|line| line.get(..5).is_some_and(|head| head.eq_ignore_ascii_case(b"MAIL ")))
}
