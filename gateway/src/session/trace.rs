//! The field that tells readers of headers who the client is (`identity = "trace-header"`): a `Received:` of the gateway's
//! own, above all others (RFC 5321 section 4.4; RFC 6531 section 3.7.3 for `UTF8SMTP`).
//!
//! Below it the client may have written what it likes, forged fields of this kind too: who trusts the gateway reads the
//! first and stops there. What the client wrote cannot become part of it, either: a message that begins with white space
//! would continue it, so an empty line is put between.

use std::net::{IpAddr, SocketAddr};

use mail_parser::DateTime;

use crate::identity::xclient::ClientName;
use crate::smtp::address::is_domain;
use crate::smtp::ehlo::Extensions;
use crate::time::Millis;

use super::{Name, Session};

/// A field that waits for the first octet of its message.
#[derive(Debug)]
pub(super) struct Trace(Box<[u8]>);

impl Trace {
    /// What stands before a message that begins with these octets, if with any.
    pub(super) fn before(self, head: &[u8]) -> Vec<u8> {
        let mut field = self.0.into_vec();
        // What cannot begin a field, nor end the header section, might continue this one.
        if !matches!(head, [] | [b'!'..=b'~', ..] | [b'\r', b'\n', ..]) {
            field.extend_from_slice(b"\r\n");
        }
        field
    }
}

impl Session {
    /// For a message that begins now and uses these extensions; `None` for backends that are told otherwise.
    pub(super) fn trace(&self, now: Millis, used: Extensions) -> Option<Trace> {
        if !self.settings.identity.is_trace_header() {
            return None;
        }
        let hello = self.hello.as_ref()?;
        let name = match &self.name {
            Name::Known(ClientName::Verified(name)) => format!("{name} "),
            _ => String::new(),
        };
        let protocol = match hello.esmtp {
            _ if used.contains(Extensions::SMTPUTF8) => "UTF8SMTP",
            true => "ESMTP",
            false => "SMTP",
        };
        let date = DateTime::from_timestamp(self.clock?.unix_seconds(now)).to_rfc822();
        let client = literal(self.client_addr.socket_addr());
        // Clients name themselves in many ways, and not each is a word that this field may have there.
        let named = if is_domain(&hello.name) { &*hello.name } else { &*client };
        let field = format!(
            "Received: from {named} ({name}{client})\r\n\tby {} with {protocol};\r\n\t{date}\r\n",
            self.settings.hostname
        );
        Some(Trace(field.into_bytes().into()))
    }
}

/// An address as RFC 5321 section 4.1.3 writes it.
pub(super) fn literal(address: SocketAddr) -> String {
    match address.ip() {
        IpAddr::V4(ip) => format!("[{ip}]"),
        IpAddr::V6(ip) => format!("[IPv6:{ip}]"),
    }
}
