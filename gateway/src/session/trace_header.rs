//! The field that tells readers of headers who the client is (`identity = "trace-header"`): a `Received:` of the gateway's
//! own, above all others (RFC 5321 section 4.4; RFC 3848 for `ESMTPS`, RFC 6531 section 3.7.3 for `UTF8SMTP`).
//!
//! Below it the client may have written what it likes, forged fields of this kind too: who trusts the gateway reads the
//! first and stops there. What the client wrote cannot become part of it, either: a message that begins with white space
//! would continue it, so an empty line is put between.

use std::net::{IpAddr, SocketAddr};

/// A field that waits for the first octet of its message.
#[derive(Debug)]
pub(super) struct TraceHeader(Box<[u8]>);

impl TraceHeader {
    pub(super) fn new(field: String) -> Self {
        Self(field.into_bytes().into())
    }

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

/// An address as RFC 5321 section 4.1.3 writes it.
pub(super) fn literal(address: SocketAddr) -> String {
    match address.ip() {
        IpAddr::V4(ip) => format!("[{ip}]"),
        IpAddr::V6(ip) => format!("[IPv6:{ip}]"),
    }
}
