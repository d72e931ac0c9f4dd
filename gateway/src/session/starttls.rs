//! The client half's way into TLS (RFC 3207), by STARTTLS or from the first byte.
//!
//! Nothing crosses: what was said in clear behind STARTTLS ends the session, and all that was learned before TLS (the name,
//! a transaction, the backend's session) is forgotten with it.

use crate::smtp::ehlo::Extensions;
use crate::smtp::reply::EnhancedCode;
use crate::smtp::starttls::NothingBuffered;
use crate::time::Millis;

use super::action::{Action, Output, Refused};
use super::client::{Client, TlsOffer};
use super::end::End;
use super::machine::Session;
use super::words::Words;

impl Session {
    /// TLS stands.
    pub fn client_secured(&mut self, now: Millis, out: &mut Output) {
        if self.is_securing() {
            self.client.secured = true;
            self.client.state = Client::Commands { skipping: 0 };
            self.client.deadline = now.after(self.settings.timeouts.command);
            if self.client.tls == TlsOffer::Implicit {
                self.greet(now, out);
            }
        }
    }

    /// TLS does not come about. Nothing can be said to this client any more.
    pub fn client_not_secured(&mut self, out: &mut Output) {
        if self.is_securing() {
            self.finish(End::TlsFailed, out);
        }
    }

    /// Nor in time.
    pub(super) fn client_not_secured_in_time(&mut self, out: &mut Output) {
        self.finish(End::TlsTimeout, out);
    }

    /// A TLS handshake where a command is due. Whoever begins one so hears it in clear text at best.
    pub(super) fn refuse_handshake(&mut self, out: &mut Output) {
        out.actions.push(Action::Refused(Refused::TlsUnasked));
        let words = Words(554, EnhancedCode(5, 5, 0), "This port begins in clear text; TLS begins behind STARTTLS");
        self.finish_with(End::TlsUnasked, words, out);
    }

    /// Whether TLS is being begun.
    pub fn is_securing(&self) -> bool {
        matches!(self.client.state, Client::Securing)
    }

    /// STARTTLS; `rest` was read behind it. False if it must wait for the backend first.
    pub(super) fn starttls(&mut self, now: Millis, rest: &[u8], out: &mut Output) -> bool {
        if !self.offers_starttls() {
            let words = match self.client.secured {
                true => Words(503, EnhancedCode(5, 5, 1), "TLS is active already"),
                false => Words(502, EnhancedCode(5, 5, 1), "STARTTLS is not offered"),
            };
            self.error(words, out);
            return true;
        }
        if self.login.is_some() {
            self.error(Words(503, EnhancedCode(5, 5, 1), "STARTTLS comes before AUTH"), out);
            return true;
        }
        if !self.pipeline.is_empty() {
            return false;
        }
        let Some(nothing) = NothingBuffered::check(rest) else {
            let words = Words(554, EnhancedCode(5, 5, 0), "Nothing may follow STARTTLS before TLS has begun");
            self.finish_with(End::TalkBehindStartTls, words, out);
            return true;
        };
        if self.client.tls == TlsOffer::StartTlsLater {
            out.actions.push(Action::Refused(Refused::TooManyHandshakes));
            let words = Words(421, EnhancedCode(4, 7, 0), "Too many TLS handshakes from your address, try again later");
            self.finish_with(End::TooManyHandshakes, words, out);
            return true;
        }
        if !self.spend_idle(out) {
            return true;
        }
        self.leave_backend(out);
        self.client.hello = None;
        Words(220, EnhancedCode(2, 0, 0), "Ready to start TLS").encode(&mut out.to_client);
        self.client.state = Client::Securing;
        self.client.deadline = now.after(self.settings.timeouts.tls_handshake);
        out.actions.push(Action::SecureClient(nothing));
        true
    }

    pub(super) fn offers_starttls(&self) -> bool {
        matches!(self.client.tls, TlsOffer::StartTls | TlsOffer::StartTlsLater) && !self.client.secured
    }

    /// The answer to EHLO, with what only this client is offered, or only now: AUTH, STARTTLS in clear text, REQUIRETLS over
    /// TLS (RFC 8689 section 3).
    pub(super) fn answer_ehlo(&self, out: &mut Output) {
        if self.settings.submission.is_none() {
            out.to_client.extend_from_slice(&self.dialect.mx.ehlo_reply);
        } else {
            out.to_client.extend_from_slice(&self.dialect.users.ehlo_reply);
            add_line(&self.auth_line(), &mut out.to_client);
        }
        if self.offers_starttls() {
            add_line("STARTTLS", &mut out.to_client);
        } else if self.client.secured && self.dialect.offered.contains(Extensions::REQUIRETLS) {
            add_line("REQUIRETLS", &mut out.to_client);
        }
    }
}

/// Adds a line to the 250 at the end of `out`, unless it is empty.
fn add_line(line: &str, out: &mut Vec<u8>) {
    if line.is_empty() {
        return;
    }
    let lines = out.strip_suffix(b"\r\n").unwrap_or(out);
    let last = lines.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    // What was the last line is so no longer.
    if let Some(separator) = out.get_mut(last + 3) {
        *separator = b'-';
    }
    out.extend_from_slice(b"250 ");
    out.extend_from_slice(line.as_bytes());
    out.extend_from_slice(b"\r\n");
}
