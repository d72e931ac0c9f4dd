//! EHLO keywords: what a backend offers, and what of it a client is told (RFC 5321 section 4.1.1.1).

use super::reply::Reply;

/// Extensions the gateway itself can parse, as bits; nothing else is ever offered to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extensions(u16);

impl Extensions {
    /// RFC 2920.
    pub const PIPELINING: Self = Self(1);
    /// RFC 1870.
    pub const SIZE: Self = Self(1 << 1);
    /// RFC 6152.
    pub const EIGHT_BIT_MIME: Self = Self(1 << 2);
    /// RFC 6531.
    pub const SMTPUTF8: Self = Self(1 << 3);
    /// RFC 3461.
    pub const DSN: Self = Self(1 << 4);
    /// RFC 2034.
    pub const ENHANCED_STATUS_CODES: Self = Self(1 << 5);
    /// RFC 3030.
    pub const CHUNKING: Self = Self(1 << 6);
    /// RFC 3030.
    pub const BINARYMIME: Self = Self(1 << 7);
    /// Postfix XCLIENT; never offered to a client.
    pub const XCLIENT: Self = Self(1 << 8);
    /// RFC 3207, the backend's; never passed on.
    pub const STARTTLS: Self = Self(1 << 9);

    /// Whether every bit of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
    /// Both.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    /// Those of `self` that are in `other` too.
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// XCLIENT attributes offered, as bits (Postfix XCLIENT_README).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct XclientAttributes(u16);

impl XclientAttributes {
    /// Client host name.
    pub const NAME: Self = Self(1);
    /// Client address.
    pub const ADDR: Self = Self(1 << 1);
    /// Client TCP port.
    pub const PORT: Self = Self(1 << 2);
    /// SMTP or ESMTP.
    pub const PROTO: Self = Self(1 << 3);
    /// HELO argument.
    pub const HELO: Self = Self(1 << 4);
    /// SASL login.
    pub const LOGIN: Self = Self(1 << 5);
    /// Server address the client connected to.
    pub const DESTADDR: Self = Self(1 << 6);
    /// Server port the client connected to.
    pub const DESTPORT: Self = Self(1 << 7);

    /// Whether every bit of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What one EHLO reply of a backend says, without allocation: enough for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offer {
    /// Extensions offered.
    pub extensions: Extensions,
    /// SIZE's value in bytes; `None` without SIZE or where it names none (0 means no fixed maximum).
    pub size_max: Option<u64>,
    /// Attributes behind XCLIENT.
    pub xclient: XclientAttributes,
}

impl Offer {
    /// Reads an EHLO reply; keywords are compared without case, repeated spaces tolerated.
    pub fn from_reply(reply: &Reply<'_>) -> Self {
        let _ = reply;
        todo!()
    }
}

/// Every keyword line of an EHLO reply in order, unknown ones kept: what `status` shows and health compares.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Keywords(Vec<String>);

impl Keywords {
    /// From an EHLO reply; the first line (the server's name) is left out.
    pub fn from_reply(reply: &Reply<'_>) -> Self {
        let _ = reply;
        todo!()
    }

    /// The keyword lines as sent, in order.
    pub fn lines(&self) -> &[String] {
        &self.0
    }

    /// What of these a client is told, as the gateway's whole EHLO reply: the backend's order, only extensions in
    /// `allowed`, SIZE lowered to `size_max` (bytes, 0 for none), PIPELINING always.
    pub fn encode_for_client(&self, hostname: &str, allowed: Extensions, size_max: u64, out: &mut Vec<u8>) {
        let _ = (hostname, allowed, size_max, out);
        todo!()
    }
}
