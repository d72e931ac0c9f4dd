//! Mailboxes and paths as RFC 5321 section 4.1.2 and RFC 6531 section 3.3 write them.
//!
//! Borrowed views over the command line: parsed, never unescaped in place, so that what is sent on is what was judged.

use std::net::IpAddr;

/// The part behind the `@`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Domain<'a> {
    /// A domain name, as written (any case, perhaps with U-labels).
    Name(&'a str),
    /// An address literal: `[192.0.2.1]`, `[IPv6:2001:db8::1]`.
    Literal(IpAddr),
    /// `[tag:content]` with a tag other than IPv6.
    GeneralLiteral(&'a str),
}

/// `local-part@domain`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mailbox<'a> {
    /// The whole mailbox as written, without angle brackets and without a source route.
    pub text: &'a str,
    /// The local part as written, quotes included.
    pub local_part: &'a str,
    /// The domain.
    pub domain: Domain<'a>,
}

/// The argument of MAIL FROM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReversePath<'a> {
    /// `<>`
    Null,
    /// A mailbox; a source route before it was dropped (RFC 5321 section 4.1.1.3, appendix C).
    Mailbox(Mailbox<'a>),
}

/// The argument of RCPT TO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardPath<'a> {
    /// `<postmaster>` without a domain, in any case (RFC 5321 section 4.5.1).
    Postmaster,
    /// A mailbox; a source route before it was dropped.
    Mailbox(Mailbox<'a>),
}
