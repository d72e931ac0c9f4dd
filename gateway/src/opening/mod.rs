//! The opening of a backend's session: from a connection to the point where commands may flow.
//!
//! One machine without I/O, which a client's session, a health check and the relay proof drive alike: replies go in, bytes
//! to send and the next event come out. The order is that of the specifications, and there is no other:
//!
//! PROXY header, implicit TLS, banner, EHLO, STARTTLS, TLS, EHLO, XCLIENT and its 220, the client's own EHLO or HELO.
//!
//! Each step is taken only where the backend's configuration wants it. What is not delivered fails closed, and a failure says
//! whose fault it was: the backend's own refusal is the client's to hear, but that the backend cannot be told who the client
//! is, or be spoken to in private, is an administrator's to mend. Nothing that a client's bytes can bring about counts as
//! such a fault.
//!
//! The room knows the identity modes, so that nobody else must. It knows no clock: whoever drives it has deadlines.

mod fault;
mod record;
mod told;

pub use fault::{Failure, IdentityFault, TlsFailure};
pub use record::Record;
pub use told::{Hello, Identity, ProxyVersion};

use crate::config::BackendTls;
use crate::identity::proxy_out;
use crate::identity::xclient::{ClientName, XclientFacts, encode_xclient};
use crate::smtp::ehlo::{Extensions, Offer, XclientAttributes};
use crate::smtp::reply::{Reply, ReplyParse, read_reply};
use crate::smtp::starttls::NothingBuffered;

/// What is to be said to this backend, for this client.
#[derive(Debug, Clone, Copy)]
pub struct Script<'a> {
    /// The gateway's name, said to learn what is offered before the client is named.
    pub hostname: &'a str,
    /// Whether the connection is encrypted.
    pub tls: BackendTls,
    /// Who the client is.
    pub identity: Identity<'a>,
    /// Its hello.
    pub hello: Hello<'a>,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// More bytes of the backend.
    Reply,
    /// Send what was to be sent, begin TLS, then call [`Opening::secured`].
    Secure(NothingBuffered),
    /// The client's name is wanted: call [`Opening::named`] when the script has it, or never will.
    Name,
    /// The session is open, and offers this. All that was learned before counts no more.
    Open(Offer),
    /// It will not open.
    Failed(Failure),
}

/// Which reply comes next, for those who keep a [`Record`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaited {
    /// The banner.
    Banner,
    /// A reply to EHLO or HELO.
    Hello,
    /// Another.
    Other,
}

/// A session that is being opened.
#[derive(Debug, Default)]
pub struct Opening {
    step: Step,
    /// TLS stands, or was refused where it may be.
    tls_settled: bool,
    /// Something of a client was said.
    client_named: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Step {
    /// The connection.
    #[default]
    Connection,
    /// TLS from the first byte.
    ImplicitTls,
    Banner,
    /// The answer to the gateway's own EHLO, which shows whether STARTTLS and XCLIENT are offered.
    GatewayHello,
    /// 220 to STARTTLS.
    StartTls,
    /// TLS behind that.
    Tls,
    /// The client's name, to be sent with these attributes.
    Name(XclientAttributes),
    /// 220 to XCLIENT.
    Xclient,
    /// The answer to the client's EHLO or HELO.
    ClientHello,
    /// The client's hello was refused as no command. Whether the PROXY header was, the gateway's own name tells.
    NameCheck(Box<[u8]>),
    /// The gateway's was taken; whether replies are still in order, 221 tells.
    OrderCheck(Box<[u8]>),
    Over,
}

impl Opening {
    /// For a connection that is yet to be made.
    pub fn new() -> Self {
        Self::default()
    }

    /// For a connection on which STARTTLS is not to be asked for: on the one before, TLS failed and was not demanded
    /// (RFC 7435 section 3).
    pub fn in_clear_text() -> Self {
        Self { tls_settled: true, ..Self::default() }
    }

    /// Whether TLS is being begun.
    pub fn awaits_tls(&self) -> bool {
        matches!(self.step, Step::ImplicitTls | Step::Tls)
    }

    /// The connection stands.
    pub fn connected(&mut self, script: &Script<'_>, out: &mut Vec<u8>) -> Progress {
        if let Identity::Proxy { version, client, destination } = script.identity {
            self.client_named = true;
            match version {
                ProxyVersion::V1 => proxy_out::encode_v1(client, destination, out),
                ProxyVersion::V2 => proxy_out::encode_v2(client, destination, out),
            }
        }
        if script.tls == BackendTls::Implicit {
            self.step = Step::ImplicitTls;
            // Nobody has read yet.
            return NothingBuffered::check(&[]).map_or(Progress::Failed(Failure::Unexpected), Progress::Secure);
        }
        self.await_reply(Step::Banner)
    }

    /// TLS stands.
    pub fn secured(&mut self, script: &Script<'_>, out: &mut Vec<u8>) -> Progress {
        self.tls_settled = true;
        match self.step {
            Step::ImplicitTls => self.await_reply(Step::Banner),
            Step::Tls => self.greet(script, out),
            _ => self.fail(Failure::Unexpected),
        }
    }

    /// The client's name is in the script, unless it will not be known.
    pub fn named(&mut self, script: &Script<'_>, out: &mut Vec<u8>) -> Progress {
        match self.step {
            Step::Name(attributes) => self.send_xclient(script, attributes, out),
            _ => Progress::Reply,
        }
    }

    /// Whether it waits for the client's name.
    pub fn awaits_name(&self) -> bool {
        matches!(self.step, Step::Name(_))
    }

    /// Whether nothing of a client was said so far: whatever went wrong, no client brought it about.
    pub fn is_before_the_client(&self) -> bool {
        !self.client_named
    }

    /// Which reply comes next.
    pub fn awaits(&self) -> Awaited {
        match self.step {
            Step::Banner => Awaited::Banner,
            Step::GatewayHello | Step::ClientHello => Awaited::Hello,
            _ => Awaited::Other,
        }
    }

    /// Takes at most one reply from the head of `input`; how many bytes it was, 0 if more are needed.
    pub fn reply(&mut self, script: &Script<'_>, input: &[u8], out: &mut Vec<u8>) -> (usize, Progress) {
        match read_reply(input) {
            ReplyParse::Complete { reply, used } => {
                let (raw, rest) = input.split_at(used);
                let progress = match NothingBuffered::check(rest) {
                    Some(nothing) => self.take(script, &reply, raw, nothing, out),
                    // A refusal and a farewell are no answer too many.
                    None if self.step == Step::ClientHello && reply.class() >= 4 && is_farewell(rest) => {
                        self.fail(Failure::Refused(raw.into()))
                    }
                    None => self.fail(self.out_of_step(script)),
                };
                (used, progress)
            }
            ReplyParse::Incomplete => (0, Progress::Reply),
            ReplyParse::Faulty(_) => (input.len(), self.fail(Failure::NotSmtp)),
        }
    }

    fn take(
        &mut self,
        script: &Script<'_>,
        reply: &Reply<'_>,
        raw: &[u8],
        nothing: NothingBuffered,
        out: &mut Vec<u8>,
    ) -> Progress {
        let proxy = script.identity.is_proxy();
        match std::mem::replace(&mut self.step, Step::Over) {
            Step::Banner if reply.code == 220 => self.greet(script, out),
            // No banner has these codes: they answer the header.
            Step::Banner if proxy && matches!(reply.code, 500..=503) => self.fail(IdentityFault::ProxyRefused.into()),
            Step::GatewayHello if reply.code == 250 => self.learned(script, &Offer::from_reply(reply), out),
            // The gateway's own name is no reason to refuse a command.
            Step::GatewayHello if proxy && is_syntax_error(reply.code) => self.fail(IdentityFault::ProxyRefused.into()),
            // What the gateway is refused says nothing about the client.
            Step::GatewayHello if matches!(script.identity, Identity::Xclient { .. }) && reply.class() == 5 => {
                self.fail(IdentityFault::EhloRefused.into())
            }
            Step::StartTls if reply.code == 220 => {
                self.step = Step::Tls;
                Progress::Secure(nothing)
            }
            // Refused, it leaves the session as it was (RFC 3207 section 4.1).
            Step::StartTls if script.tls == BackendTls::Opportunistic && matches!(reply.class(), 4 | 5) => {
                self.tls_settled = true;
                self.greet(script, out)
            }
            Step::StartTls => self.fail(Failure::Tls(TlsFailure::Refused)),
            Step::Xclient if reply.code == 220 => self.send_hello(script, out),
            Step::Xclient => self.fail(IdentityFault::XclientRefused.into()),
            Step::ClientHello if reply.code == 250 => {
                Progress::Open(if script.hello.esmtp { Offer::from_reply(reply) } else { Offer::default() })
            }
            Step::ClientHello if proxy && is_syntax_error(reply.code) => {
                put_hello(true, script.hostname, out);
                self.await_reply(Step::NameCheck(raw.into()))
            }
            Step::NameCheck(refusal) if reply.code == 250 => {
                out.extend_from_slice(b"QUIT\r\n");
                self.await_reply(Step::OrderCheck(refusal))
            }
            Step::NameCheck(_) if is_syntax_error(reply.code) => self.fail(IdentityFault::ProxyRefused.into()),
            Step::NameCheck(_) if reply.class() == 2 => self.fail(IdentityFault::ProxyAnswered.into()),
            Step::OrderCheck(_) if reply.code == 250 => self.fail(IdentityFault::ProxyAnswered.into()),
            // It was the client's name that was refused.
            Step::NameCheck(refusal) | Step::OrderCheck(refusal) => self.fail(Failure::Refused(refusal)),
            Step::Banner | Step::GatewayHello | Step::ClientHello if matches!(reply.class(), 4 | 5) => {
                self.fail(Failure::Refused(raw.into()))
            }
            Step::Banner | Step::GatewayHello | Step::ClientHello => self.fail(Failure::Unexpected),
            Step::Connection | Step::ImplicitTls | Step::Tls | Step::Name(_) | Step::Over => {
                self.fail(self.out_of_step(script))
            }
        }
    }

    /// Behind the banner, and again behind TLS.
    fn greet(&mut self, script: &Script<'_>, out: &mut Vec<u8>) -> Progress {
        let wants_tls = script.tls.is_by_starttls() && !self.tls_settled;
        if wants_tls || matches!(script.identity, Identity::Xclient { .. }) {
            put_hello(true, script.hostname, out);
            self.await_reply(Step::GatewayHello)
        } else {
            self.send_hello(script, out)
        }
    }

    /// What the backend offers to the gateway.
    fn learned(&mut self, script: &Script<'_>, offer: &Offer, out: &mut Vec<u8>) -> Progress {
        if script.tls.is_by_starttls() && !self.tls_settled {
            if offer.extensions.contains(Extensions::STARTTLS) {
                out.extend_from_slice(b"STARTTLS\r\n");
                return self.await_reply(Step::StartTls);
            }
            if script.tls == BackendTls::Required {
                return self.fail(Failure::Tls(TlsFailure::NotOffered));
            }
        }
        let Identity::Xclient { name, .. } = script.identity else { return self.send_hello(script, out) };
        if !offer.extensions.contains(Extensions::XCLIENT) || !offer.xclient.contains(XclientAttributes::ADDR) {
            return self.fail(IdentityFault::XclientNotOffered.into());
        }
        let names = offer.xclient.intersects(XclientAttributes::NAME.union(XclientAttributes::REVERSE_NAME));
        if names && name.is_none() {
            self.step = Step::Name(offer.xclient);
            return Progress::Name;
        }
        self.send_xclient(script, offer.xclient, out)
    }

    fn send_xclient(&mut self, script: &Script<'_>, offered: XclientAttributes, out: &mut Vec<u8>) -> Progress {
        let Identity::Xclient { client, name, destination, ipv6_form } = script.identity else {
            return self.fail(Failure::Unexpected);
        };
        self.client_named = true;
        let unknown = ClientName::TemporarilyUnavailable;
        let facts = XclientFacts {
            client,
            name: name.unwrap_or(&unknown),
            helo: script.hello.name,
            esmtp: script.hello.esmtp,
            login: script.hello.login,
            destination,
            ipv6_form,
        };
        match encode_xclient(&facts, offered, out) {
            Ok(()) => self.await_reply(Step::Xclient),
            Err(_) => self.fail(IdentityFault::XclientNotOffered.into()),
        }
    }

    fn send_hello(&mut self, script: &Script<'_>, out: &mut Vec<u8>) -> Progress {
        self.client_named = true;
        put_hello(script.hello.esmtp, &script.hello.word(), out);
        self.await_reply(Step::ClientHello)
    }

    fn await_reply(&mut self, step: Step) -> Progress {
        self.step = step;
        Progress::Reply
    }

    fn fail(&mut self, failure: Failure) -> Progress {
        self.step = Step::Over;
        Progress::Failed(failure)
    }

    /// Bytes that nobody asked for. Behind a PROXY header they mean that the backend does not understand it; behind the 220
    /// to STARTTLS, that somebody puts words into TLS that were said before it (RFC 3207 section 6).
    fn out_of_step(&self, script: &Script<'_>) -> Failure {
        match self.step {
            Step::StartTls => Failure::Tls(TlsFailure::BytesBehind220),
            _ if script.identity.is_proxy() => IdentityFault::ProxyAnswered.into(),
            _ => IdentityFault::OutOfStep.into(),
        }
    }
}

fn put_hello(esmtp: bool, name: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(if esmtp { b"EHLO " } else { b"HELO " });
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Whether what was read of a reply can be of 421, the only one that comes unasked (RFC 5321 section 3.8).
fn is_farewell(rest: &[u8]) -> bool {
    b"421".starts_with(&rest[..rest.len().min(3)])
}

/// Codes for "what was that?": the PROXY header read as a command.
fn is_syntax_error(code: u16) -> bool {
    matches!(code, 500..=503 | 521 | 555)
}

#[cfg(test)]
mod tests;
