//! The backend half until its session is open: connection, identity, hello.
//!
//! Order (wire rules): PROXY header or nothing, banner, EHLO, XCLIENT, 220, then the client's own EHLO or HELO. Until the
//! last answer, the client's commands are held here. Whatever fails on the way fails closed: the held commands are
//! forgotten and the client gets the backend's own refusal, or 4xx where the identity could not be delivered.

use std::borrow::Cow;
use std::net::SocketAddr;

use crate::config::IdentityMode;
use crate::identity::proxy_out;
use crate::identity::xclient::{ClientName, XclientFacts, encode_xclient};
use crate::smtp::command::is_plain_hello;
use crate::smtp::ehlo::{Extensions, Offer, XclientAttributes};
use crate::smtp::reply::{EnhancedCode, Reply};
use crate::time::{Millis, WallClock};

use super::end::Words;
use super::replies::Refusal;
use super::trace::literal;
use super::{Action, Output, Session};

/// The backend's session, as far as it has come.
#[derive(Debug)]
pub(super) enum Backend {
    /// No connection, and none under way.
    None,
    /// On the way to a session.
    Opening(Box<Opening>),
    /// Commands may flow.
    Ready(Extensions),
}

/// A session that is being opened.
#[derive(Debug)]
pub(super) struct Opening {
    step: Step,
    /// Commands that wait, encoded.
    held: Vec<u8>,
}

/// What is awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The connection.
    Connection,
    /// The banner.
    Banner,
    /// The answer to the gateway's own EHLO, which shows whether XCLIENT is offered.
    GatewayHello,
    /// The client's name, to be sent with these attributes.
    Name(XclientAttributes),
    /// 220 to XCLIENT.
    Xclient,
    /// The answer to the client's EHLO or HELO.
    ClientHello,
}

const UNREACHABLE: Words = Words(451, EnhancedCode(4, 4, 1), "The mail server cannot be reached now; try again later");
const NO_IDENTITY: Words =
    Words(451, EnhancedCode(4, 3, 5), "The mail server cannot be told who you are; try again later");
pub(super) const STALE: Words =
    Words(451, EnhancedCode(4, 3, 0), "The mail server's abilities have changed; try again");

impl Backend {
    /// Whether the session is on its way.
    pub(super) fn is_opening(&self) -> bool {
        matches!(self, Self::Opening(_))
    }

    /// Where commands wait while the session opens.
    pub(super) fn held_mut(&mut self) -> Option<&mut Vec<u8>> {
        match self {
            Self::Opening(opening) => Some(&mut opening.held),
            Self::None | Self::Ready(_) => None,
        }
    }

    /// Bytes that wait.
    pub(super) fn held(&self) -> usize {
        match self {
            Self::Opening(opening) => opening.held.len(),
            Self::None | Self::Ready(_) => 0,
        }
    }
}

impl Session {
    /// Asks for a connection.
    pub(super) fn dial(&mut self, now: Millis, out: &mut Output) {
        self.backend = Backend::Opening(Box::new(Opening { step: Step::Connection, held: Vec::new() }));
        self.backend_deadline = now.after(self.settings.timeouts.connect + self.settings.timeouts.handshake);
        out.actions.push(Action::Dial);
        let tells_name = matches!(self.settings.identity, IdentityMode::Xclient | IdentityMode::TraceHeader);
        if tells_name && self.name.is_none() {
            out.actions.push(Action::LookUpName);
        }
    }

    /// The connection stands, at the time that the clock was looked at. `destination` is the address of the gateway that the
    /// client connected to.
    pub fn backend_connected(&mut self, clock: WallClock, destination: SocketAddr, out: &mut Output) {
        let Backend::Opening(opening) = &mut self.backend else { return };
        opening.step = Step::Banner;
        self.destination = Some(destination);
        self.clock = Some(clock);
        self.backend_deadline = clock.at.after(self.settings.timeouts.handshake);
        match self.settings.identity {
            IdentityMode::ProxyV1 => proxy_out::encode_v1(self.client_addr, destination, &mut out.to_backend),
            IdentityMode::ProxyV2 => proxy_out::encode_v2(self.client_addr, destination, &mut out.to_backend),
            IdentityMode::Xclient | IdentityMode::Transparent | IdentityMode::TraceHeader | IdentityMode::None => {}
        }
    }

    /// No address of the backend could be connected to.
    pub fn backend_unreachable(&mut self, now: Millis, out: &mut Output) {
        self.backend = Backend::None;
        self.fail_owed(now, &Refusal::from(UNREACHABLE), out);
    }

    /// The client's name was looked up, or will not be known.
    pub fn client_name(&mut self, now: Millis, name: ClientName, out: &mut Output) {
        self.name = Some(name);
        if let Backend::Opening(opening) = &self.backend
            && let Step::Name(attributes) = opening.step
        {
            self.send_xclient(now, attributes, out);
        }
    }

    /// DNS may delay a client, and not hold it: what was not looked up when the backend's session should have been open is
    /// done without. False if that is not what is awaited.
    pub(super) fn give_up_name(&mut self, now: Millis, out: &mut Output) -> bool {
        let Backend::Opening(opening) = &self.backend else { return false };
        let Step::Name(attributes) = opening.step else { return false };
        self.backend_deadline = now.after(self.settings.timeouts.handshake);
        self.send_xclient(now, attributes, out);
        true
    }

    /// One reply while the session opens. `more`: bytes follow it that nobody asked for.
    pub(super) fn opening_reply(&mut self, now: Millis, reply: &Reply<'_>, more: bool, out: &mut Output) {
        let Backend::Opening(opening) = &self.backend else { return };
        let step = opening.step;
        if more {
            return self.talks_out_of_turn(now, out);
        }
        match step {
            Step::Connection | Step::Name(_) => self.talks_out_of_turn(now, out),
            Step::Banner if reply.code == 220 => match self.settings.identity {
                IdentityMode::Xclient => {
                    out.to_backend.extend_from_slice(b"EHLO ");
                    out.to_backend.extend_from_slice(self.settings.hostname.as_bytes());
                    out.to_backend.extend_from_slice(b"\r\n");
                    self.await_step(Step::GatewayHello);
                }
                IdentityMode::ProxyV1
                | IdentityMode::ProxyV2
                | IdentityMode::Transparent
                | IdentityMode::TraceHeader
                | IdentityMode::None => self.send_client_hello(out),
            },
            Step::GatewayHello if reply.code == 250 => self.identify(now, &Offer::from_reply(reply), out),
            // What the gateway is refused says nothing about the client.
            Step::GatewayHello if reply.class() == 5 => {
                self.identity_failed(now, "the backend refused EHLO, and so cannot offer XCLIENT", out);
            }
            Step::Xclient if reply.code == 220 => self.send_client_hello(out),
            Step::Xclient => self.identity_failed(now, "the backend refused XCLIENT", out),
            Step::ClientHello if reply.code == 250 => self.opened(now, reply, out),
            Step::ClientHello if self.speaks_proxy() && is_syntax_error(reply.code) => {
                self.identity_failed(now, "the backend took the PROXY header for a command", out);
            }
            Step::Banner | Step::GatewayHello | Step::ClientHello => {
                let refusal =
                    if matches!(reply.class(), 4 | 5) { Refusal::from_reply(reply) } else { UNREACHABLE.into() };
                self.drop_backend(out);
                self.fail_owed(now, &refusal, out);
            }
        }
    }

    fn identify(&mut self, now: Millis, offer: &Offer, out: &mut Output) {
        if !offer.extensions.contains(Extensions::XCLIENT) || !offer.xclient.contains(XclientAttributes::ADDR) {
            self.identity_failed(now, "the backend does not offer XCLIENT ADDR to the gateway", out);
        } else if offer.xclient.contains(XclientAttributes::NAME) && self.name.is_none() {
            self.await_step(Step::Name(offer.xclient));
        } else {
            self.send_xclient(now, offer.xclient, out);
        }
    }

    fn send_xclient(&mut self, now: Millis, offered: XclientAttributes, out: &mut Output) {
        let (Some(hello), Some(destination)) = (&self.hello, self.destination) else { return };
        let unknown = ClientName::TemporarilyUnavailable;
        let facts = XclientFacts {
            client: self.client_addr,
            name: self.name.as_ref().unwrap_or(&unknown),
            helo: &hello.name,
            esmtp: hello.esmtp,
            destination,
            ipv6_form: self.ipv6_form,
        };
        match encode_xclient(&facts, offered, &mut out.to_backend) {
            Ok(()) => self.await_step(Step::Xclient),
            Err(_) => self.identity_failed(now, "XCLIENT cannot carry the client's address", out),
        }
    }

    fn send_client_hello(&mut self, out: &mut Output) {
        let Some(hello) = &self.hello else { return };
        out.to_backend.extend_from_slice(if hello.esmtp { b"EHLO " } else { b"HELO " });
        // What could be misread there is not repeated: the client's address literal stands for it (RFC 5321 section 4.1.4).
        let told = match (is_plain_hello(&hello.name), self.client_addr.is_named()) {
            (true, _) => Cow::Borrowed(&*hello.name),
            (false, true) => Cow::Owned(literal(self.client_addr.socket_addr())),
            (false, false) => Cow::Borrowed("unnamed.invalid"),
        };
        out.to_backend.extend_from_slice(told.as_bytes());
        out.to_backend.extend_from_slice(b"\r\n");
        self.await_step(Step::ClientHello);
    }

    /// The session is open: what was held flows, if the backend offers what it uses.
    fn opened(&mut self, now: Millis, reply: &Reply<'_>, out: &mut Output) {
        out.actions.push(Action::IdentityAccepted);
        let esmtp = self.hello.as_ref().is_some_and(|h| h.esmtp);
        let offered = if esmtp { Offer::from_reply(reply).extensions } else { Extensions::default() };
        let mut needs = self.transaction.open_mut().map_or(Extensions::default(), |open| open.needs);
        if self.pipeline.len() > 1 {
            needs = needs.union(Extensions::PIPELINING);
        }
        if self.settings.identity == IdentityMode::Xclient && offered.contains(Extensions::XCLIENT) {
            // Whoever believed who the client is would not let it name another, unless it is a proxy itself.
            out.actions.push(Action::IdentityDoubted);
        }
        if esmtp && !self.dialect.learned.is_some_and(|learned| offered.contains(learned)) {
            out.actions.push(Action::DialectStale);
        }
        if !offered.contains(needs) {
            self.drop_backend(out);
            return self.fail_owed(now, &Refusal::from(STALE), out);
        }
        if let Backend::Opening(opening) = std::mem::replace(&mut self.backend, Backend::Ready(offered)) {
            out.to_backend.extend_from_slice(&opening.held);
        }
        self.backend_deadline = now.after(self.settings.timeouts.reply);
    }

    fn await_step(&mut self, step: Step) {
        if let Backend::Opening(opening) = &mut self.backend {
            opening.step = step;
        }
    }

    fn speaks_proxy(&self) -> bool {
        matches!(self.settings.identity, IdentityMode::ProxyV1 | IdentityMode::ProxyV2)
    }

    /// Bytes that nobody asked for. Behind a PROXY header they mean that the backend does not understand it.
    fn talks_out_of_turn(&mut self, now: Millis, out: &mut Output) {
        if self.speaks_proxy() {
            self.identity_failed(now, "the backend answered the PROXY header as if it were a command", out);
        } else {
            self.identity_failed(now, "the backend's replies are out of step", out);
        }
    }

    /// Fails closed: the client is asked to come again, the backend hears nothing of it.
    fn identity_failed(&mut self, now: Millis, why: &'static str, out: &mut Output) {
        out.actions.push(Action::IdentityFailed(why));
        self.drop_backend(out);
        self.fail_owed(now, &Refusal::from(NO_IDENTITY), out);
    }
}

/// Codes for "what was that?": the PROXY header read as a command.
fn is_syntax_error(code: u16) -> bool {
    matches!(code, 500..=503 | 521 | 555)
}
