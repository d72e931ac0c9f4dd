//! The session itself: what it is made of, how it begins, and where its client's bytes go.

use std::sync::Arc;
use std::time::Duration;

use crate::config::EarlyTalk;
use crate::identity::ClientAddr;
use crate::identity::proxy_in::begins_header;
use crate::policy::offences::Offence;
use crate::policy::relay_guard::Hold;
use crate::route::RouteId;
use crate::smtp::starttls::begins_handshake;
use crate::time::Millis;

use super::action::{Action, Output, Refused, Taken};
use super::backend::{BackendHalf, Name};
use super::chunks::Chunks;
use super::client::{Client, ClientHalf, HURRIED_COMMAND, TlsOffer, Wait};
use super::conduct::Conduct;
use super::end::End;
use super::exchange::User;
use super::message::Content;
use super::pipeline::Pipeline;
use super::question::{Answer, Ticket, Tickets};
use super::report::SessionTotals;
use super::settings::{Dialect, Settings, Target};
use super::transaction::Transaction;

/// How soon at the latest what was said before the greeting is handed in.
const EARLY_WAIT: Duration = Duration::from_secs(1);

/// What a session is made of; none of it changes.
#[derive(Debug)]
pub struct Start {
    /// The listener's.
    pub settings: Arc<Settings>,
    /// What clients are told that the backend offers.
    pub dialect: Arc<Dialect>,
    /// Who the client is.
    pub client_addr: ClientAddr,
    /// How it may come to TLS.
    pub tls: TlsOffer,
}

/// One client's session, and the backend session that serves it.
#[derive(Debug)]
pub struct Session {
    pub(super) settings: Arc<Settings>,
    pub(super) dialect: Arc<Dialect>,
    pub(super) client_addr: ClientAddr,
    pub(super) client: ClientHalf,
    pub(super) backend: BackendHalf,
    pub(super) pipeline: Pipeline,
    pub(super) transaction: Transaction,
    pub(super) conduct: Conduct,
    pub(super) tickets: Tickets,
    /// Who has logged in; as long as the backend's session that let it.
    pub(super) login: Option<Box<User>>,
    pub(super) end: Option<End>,
}

impl Session {
    /// A session for a client that has just connected. Nothing is said until [`Session::begin`].
    pub fn new(start: Start, now: Millis) -> Self {
        let Start { settings, dialect, client_addr, tls } = start;
        Self {
            client: ClientHalf::new(tls, &settings.timeouts, now),
            backend: BackendHalf::new(now),
            settings,
            dialect,
            client_addr,
            pipeline: Pipeline::default(),
            transaction: Transaction::None,
            conduct: Conduct::default(),
            tickets: Tickets::default(),
            login: None,
            end: None,
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
            self.client.state = Client::Greeting(now.after(delay.max(EARLY_WAIT)));
        }
    }

    pub(super) fn greet(&mut self, now: Millis, out: &mut Output) {
        out.to_client.extend_from_slice(&self.settings.greeting);
        self.client.state = Client::Commands { skipping: 0 };
        self.client.deadline = now.after(self.settings.timeouts.command);
    }

    fn talked_before_greeting(&mut self, input: &[u8], out: &mut Output) {
        if self.client_addr.is_direct() && begins_header(input) {
            return self.refuse_proxy_header(out);
        }
        if begins_handshake(input) {
            return self.refuse_handshake(out);
        }
        out.actions.push(Action::Refused(Refused::EarlyTalk));
        if brings_mail(input) {
            self.conduct.offend(Offence::EarlyTalk, out);
        }
        match self.settings.early_talk {
            EarlyTalk::Reject => self.reject_early_talk(out),
            EarlyTalk::Log => {
                out.to_client.extend_from_slice(&self.settings.greeting);
                self.client.state = Client::Commands { skipping: 0 };
            }
        }
    }

    /// Takes bytes from the client. `input` must begin with what the last call left over.
    ///
    /// The call returns early, with input left, when a part of it is to be forwarded, or when the session must first
    /// hear from the backend ([`Session::wants_client`] is false then). `hold` restricts what the backend gets.
    pub fn client_bytes(&mut self, now: Millis, hold: Hold, input: &mut [u8], out: &mut Output) -> Taken {
        self.client.hold = hold;
        let taken = self.take(now, input, out);
        if self.client.draining {
            self.settle_end(out);
        }
        taken
    }

    fn take(&mut self, now: Millis, input: &mut [u8], out: &mut Output) -> Taken {
        let mut used = 0;
        while used < input.len() {
            let forward = match &self.client.state {
                Client::Commands { .. } => match self.take_command(now, &input[used..], out) {
                    0 => break,
                    taken => {
                        used += taken;
                        continue;
                    }
                },
                Client::Auth(_) => match self.take_response(now, &input[used..], out) {
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
                Client::Data(_) if self.pipeline.awaits_replay() => break,
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

    /// Places for sessions run out, or do so no more: a body that hardly moves is waited for less.
    pub fn hurry(&mut self, now: Millis, hurried: bool) {
        if self.client.hurried != hurried {
            self.client.hurried = hurried;
            self.hurry_body(now, hurried);
            if hurried && !self.conduct.has_brought_mail() && matches!(self.client.state, Client::Commands { .. }) {
                self.client.deadline = self.client.deadline.min(now.after(HURRIED_COMMAND));
            }
        }
    }

    /// All sessions together hold as much as they may, or do so no more: no message begins until then, and what has begun goes
    /// on.
    pub fn set_crammed(&mut self, crammed: bool) {
        self.client.crammed = crammed;
    }

    /// What it keeps of what its client has sent: commands for a backend that is not open yet, lines of a header section.
    pub fn octets_held(&self) -> usize {
        let content = match (&self.client.state, &self.transaction) {
            (Client::Data(state), _) => Some(&state.content),
            (_, Transaction::Open(open)) => match &open.chunks {
                Chunks::Started(started) => Some(&started.content),
                Chunks::None | Chunks::Broken => None,
            },
            (_, Transaction::None | Transaction::Lost) => None,
        };
        self.backend.state.held() + content.map_or(0, Content::octets_held)
    }

    /// What was asked is known.
    pub fn answer(&mut self, now: Millis, ticket: Ticket, answer: Answer, out: &mut Output) {
        match answer {
            Answer::ClientName(name) => {
                if matches!(self.backend.name, Name::Asked(asked) if asked == ticket) {
                    self.client_name(now, name, out);
                }
            }
            Answer::Recipient(verdict) => {
                if matches!(&self.client.wait, Wait::Recipient(asked) if asked.ticket == ticket) {
                    self.recipient_judged(now, verdict, out);
                }
            }
        }
    }

    /// Whether bytes of the client are of use now.
    pub fn wants_client(&self) -> bool {
        match &self.client.state {
            Client::Commands { .. } => !self.client.half_closed && self.client.wait.is_nothing(),
            Client::AwaitGoAhead { early } => !early,
            Client::Auth(_) => !self.client.half_closed && self.pipeline.is_empty(),
            Client::Data(_) => !self.pipeline.awaits_replay(),
            Client::Greeting(_) | Client::Chunk(_) | Client::Securing => true,
            Client::Ending(..) | Client::Closed => false,
        }
    }

    /// Which of the listener's backends it has, or is to have.
    pub fn place(&self) -> usize {
        self.backend.place
    }

    /// By which route it came there last.
    pub fn route_taken(&self) -> RouteId {
        self.backend.route
    }

    /// What each of the listener's backends may be given, where there are several.
    pub fn set_holds(&mut self, holds: impl Iterator<Item = Hold>) {
        if self.backend.holds.is_empty() {
            self.backend.holds = holds.collect();
        } else {
            self.backend.holds.iter_mut().zip(holds).for_each(|(known, hold)| *known = hold);
        }
    }

    /// The backend that it has, or is to have.
    pub(super) fn target(&self) -> &Target {
        &self.settings.targets[self.backend.place]
    }

    /// Whether the session is over, and why. The connections close once what is left has been written.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// What happened so far, for the log.
    pub fn totals(&self) -> SessionTotals {
        self.conduct.totals()
    }

    /// The name the client gave, for the log.
    pub fn hello(&self) -> Option<&str> {
        self.client.hello.as_ref().map(|h| &*h.name)
    }

    /// What it is doing, for people.
    pub fn state(&self) -> &'static str {
        match &self.client.state {
            Client::Greeting(_) => "connected",
            Client::Securing => "handshake",
            Client::Ending(..) => "verdict",
            Client::Closed => "ending",
            Client::Data(_) | Client::Chunk(_) => "message",
            Client::AwaitGoAhead { .. } => "data",
            Client::Auth(_) => "login",
            Client::Commands { .. } if self.pipeline.owes_message() => "verdict",
            Client::Commands { .. } if self.backend.state.is_opening() => "opening",
            Client::Commands { .. } if !self.transaction.is_none() => "envelope",
            Client::Commands { .. } if self.client.hello.is_none() => "greeted",
            Client::Commands { .. } => "idle",
        }
    }

    /// Whether a message is on its way, from MAIL to the verdict.
    pub fn has_message(&self) -> bool {
        let comes_in = matches!(self.client.state, Client::AwaitGoAhead { .. } | Client::Data(_) | Client::Chunk(_));
        comes_in || !self.transaction.is_none() || self.pipeline.owes_message()
    }

    /// Who the gateway believes the client to be.
    pub fn client_addr(&self) -> ClientAddr {
        self.client_addr
    }

    /// Whether something is awaited from the backend: a reply, or its session's opening.
    pub(super) fn backend_owes(&self) -> bool {
        self.pipeline.awaits_backend() || self.backend.state.is_opening()
    }
}

/// Whether what a client said too early is more than a monitor says, which greets and leaves: it means to send mail.
fn brings_mail(input: &[u8]) -> bool {
    input.split(|&byte| byte == b'\n').any(|line| line.get(..5).is_some_and(|head| head.eq_ignore_ascii_case(b"MAIL ")))
}
