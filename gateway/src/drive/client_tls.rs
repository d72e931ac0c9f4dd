//! TLS with the client: when it begins, whether it came about, and what is said over it.
//!
//! The channel hangs on the session's task only once there is TLS, so that sessions in clear are no larger for it, and their
//! bytes take the same way as ever.

use std::io;
use std::task::{Context, Poll};

use tracing::debug;

use crate::identity::Source;
use crate::observe::counters::Counters;
use crate::observe::handshakes::{AgreedCipher, AgreedGroup, AgreedVersion, HandshakeFault, by_name};
use crate::observe::refusals::RefusalCause;
use crate::session::Output;
use crate::smtp::starttls::NothingBuffered;
use crate::time::Millis;
use crate::time::clock::now;
use crate::tls::{FaultCause, TlsFacts, TlsFault};

use super::buffers::Scratch;
use super::encrypted::{Read, poll_receive};
use super::task::SessionTask;
use super::worker::ClientTls;

impl SessionTask {
    /// Begins TLS with a client that begins with it.
    pub(super) fn begin_tls(&mut self, out: &mut Output) {
        let Some(ClientTls { acceptor, implicit: true, handshakes, .. }) = &self.worker.tls else { return };
        if handshakes.begins(Source::of(self.session.client_addr().ip()), now()) {
            self.client.tls = acceptor.accept().ok().map(Box::new);
        } else {
            self.count_fault(HandshakeFault::TooMany);
            self.session.client_not_secured(out);
        }
    }

    /// The client has asked for TLS.
    pub(super) fn secure_client(&mut self, _nothing: NothingBuffered) {
        if let Some(ClientTls { acceptor, handshakes, .. }) = &self.worker.tls {
            // Whether it may was asked when its session began.
            handshakes.begins(Source::of(self.session.client_addr().ip()), now());
            self.client.tls = acceptor.accept().ok().map(Box::new);
        }
    }

    /// A handshake did not come about.
    pub(super) fn count_fault(&self, fault: HandshakeFault) {
        self.worker.counters.tls_faults_total.increment(fault);
        self.worker.refused(RefusalCause::Tls, self.session.client_addr().ip());
    }

    /// What a client says over TLS, and the end of its handshake.
    pub(super) fn move_client_tls(&mut self, cx: &mut Context<'_>, now: Millis, scratch: &mut Scratch) -> bool {
        let Some(channel) = &mut self.client.tls else { return false };
        let held = self.client.unread.len();
        let received =
            poll_receive(channel, &mut self.client.stream, cx, &mut scratch.read[held..], &mut self.client.pending);
        let received = match received {
            Poll::Pending => return false,
            Poll::Ready(Err(error)) if self.session.is_securing() => {
                debug!(session = self.id, %error, "client lost");
                return self.client_not_secured(cx, now, &TlsFault::GivenUp, scratch);
            }
            Poll::Ready(Err(error)) => return self.client_lost(cx, now, &error, scratch),
            Poll::Ready(Ok(Read::End)) if self.session.is_securing() => {
                return self.client_not_secured(cx, now, &TlsFault::GivenUp, scratch);
            }
            // Whether the end was announced matters to nobody: inside a message either end loses it.
            Poll::Ready(Ok(Read::End)) => {
                self.client.eof = true;
                return true;
            }
            Poll::Ready(Ok(Read::Fault(fault))) if self.session.is_securing() => {
                return self.client_not_secured(cx, now, &fault, scratch);
            }
            Poll::Ready(Ok(Read::Fault(fault))) => {
                return self.client_lost(cx, now, &io::Error::other(fault), scratch);
            }
            Poll::Ready(Ok(Read::Received(received))) => received,
        };
        if received.established {
            self.client_secured(cx, now, &mut scratch.out);
        }
        self.client.eof |= received.closed;
        if received.plain > 0 {
            self.client.bytes_in += received.plain as u64;
            scratch.read[..held].copy_from_slice(&self.client.unread);
            self.hand_in(cx, now, held + received.plain, scratch);
        }
        true
    }

    fn client_secured(&mut self, cx: &mut Context<'_>, now: Millis, out: &mut Output) {
        if let Some(facts) = self.client.tls.as_ref().and_then(|channel| channel.facts()) {
            // The server's part of the handshake was over before the client's, but for a ticket.
            self.client.pending_may_wait = facts.has_tickets_last();
            debug!(session = self.id, tls = %facts, resumed = facts.resumed, "client's TLS stands");
            count_agreed(&self.worker.counters, &facts);
        }
        self.session.client_secured(now, out);
        self.carry_out(cx, now, out, &[]);
    }

    /// An alert may be under way, by which the client learns why.
    fn client_not_secured(
        &mut self,
        cx: &mut Context<'_>,
        now: Millis,
        fault: &TlsFault,
        scratch: &mut Scratch,
    ) -> bool {
        debug!(session = self.id, client = %self.session.client_addr(), %fault, "no TLS with the client");
        self.count_fault(cause(fault));
        self.client.eof |= matches!(fault, TlsFault::GivenUp);
        self.session.client_not_secured(&mut scratch.out);
        self.carry_out(cx, now, &mut scratch.out, &[]);
        true
    }
}

fn count_agreed(counters: &Counters, facts: &TlsFacts) {
    counters.tls_handshakes_total.increment(by_name(facts.version, AgreedVersion::Tls12));
    counters.tls_ciphers_total.increment(by_name(&facts.cipher(), AgreedCipher::Other));
    let group = if facts.group.is_empty() { AgreedGroup::None } else { by_name(facts.group, AgreedGroup::Other) };
    counters.tls_groups_total.increment(group);
    if facts.resumed {
        counters.tls_resumed_total.increment();
    }
}

/// What it counts as. A client's certificate is never asked for, and no session is there that could be cut short.
fn cause(fault: &TlsFault) -> HandshakeFault {
    match fault.cause() {
        FaultCause::ClearText => HandshakeFault::ClearText,
        FaultCause::NotTls => HandshakeFault::NotTls,
        FaultCause::NoCommonVersion => HandshakeFault::NoCommonVersion,
        FaultCause::NoCommonCipher => HandshakeFault::NoCommonCipher,
        FaultCause::OtherProtocol => HandshakeFault::OtherProtocol,
        FaultCause::CertificateRefused => HandshakeFault::CertificateRefused,
        FaultCause::Alert => HandshakeFault::Alert,
        FaultCause::GivenUp => HandshakeFault::GivenUp,
        FaultCause::TimedOut => HandshakeFault::TimedOut,
        FaultCause::Certificate | FaultCause::Truncated | FaultCause::Protocol => HandshakeFault::Protocol,
    }
}
