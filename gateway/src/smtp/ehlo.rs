//! EHLO keywords: what a backend offers, and what of it a client is told (RFC 5321 section 4.1.1.1).
//!
//! Two views of one reply: [`Offer`], sets that a session can hold without allocation, and [`Keywords`], every line in
//! order, for `status` and for the gateway's own EHLO reply. What a client is told is an allow-list: an extension that the
//! gateway cannot parse would let bytes pass uninterpreted.

use bitflags::bitflags;

use super::auth::Mechanisms;
use super::reply::{Reply, encode_reply};

bitflags! {
    /// Extensions the gateway itself can parse; nothing else is ever offered to a client.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct Extensions: u16 {
        /// RFC 2920.
        const PIPELINING = 1;
        /// RFC 1870.
        const SIZE = 1 << 1;
        /// RFC 6152.
        const EIGHT_BIT_MIME = 1 << 2;
        /// RFC 6531.
        const SMTPUTF8 = 1 << 3;
        /// RFC 3461.
        const DSN = 1 << 4;
        /// RFC 2034.
        const ENHANCED_STATUS_CODES = 1 << 5;
        /// RFC 3030.
        const CHUNKING = 1 << 6;
        /// RFC 3030.
        const BINARYMIME = 1 << 7;
        /// Postfix XCLIENT; never offered to a client.
        const XCLIENT = 1 << 8;
        /// RFC 3207, the backend's; never passed on.
        const STARTTLS = 1 << 9;
        /// RFC 4954; told with [`Mechanisms`] of its own.
        const AUTH = 1 << 11;
        /// RFC 8689; offered to a client only over TLS, and while the way to the backend is verified.
        const REQUIRETLS = 1 << 10;
    }
}

bitflags! {
    /// XCLIENT attributes offered (Postfix XCLIENT_README).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct XclientAttributes: u16 {
        /// Client host name.
        const NAME = 1;
        /// Client address.
        const ADDR = 1 << 1;
        /// Client TCP port.
        const PORT = 1 << 2;
        /// SMTP or ESMTP.
        const PROTO = 1 << 3;
        /// HELO argument.
        const HELO = 1 << 4;
        /// SASL login.
        const LOGIN = 1 << 5;
        /// Server address the client connected to.
        const DESTADDR = 1 << 6;
        /// Server port the client connected to.
        const DESTPORT = 1 << 7;
        /// Client host name that only the reverse look-up vouches for (Postfix).
        const REVERSE_NAME = 1 << 8;
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
    /// Mechanisms behind AUTH that the gateway knows.
    pub mechanisms: Mechanisms,
}

impl Offer {
    /// Reads an EHLO reply; keywords are compared without case, repeated spaces tolerated.
    pub fn from_reply(reply: &Reply<'_>) -> Self {
        let mut offer = Self::default();
        for line in reply.lines().skip(1) {
            let Some((keyword, rest)) = first_word(line) else { continue };
            let Some(extension) = extension_of(keyword) else { continue };
            let mut words = words(rest);
            offer.extensions |= extension;
            if extension == Extensions::SIZE {
                offer.size_max = words.next().and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
            } else if extension == Extensions::XCLIENT {
                offer.xclient = words.filter_map(attribute_of).collect();
            } else if extension == Extensions::AUTH {
                offer.mechanisms |= mechanisms(line);
            }
        }
        offer
    }
}

fn words(mut line: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (word, rest) = first_word(line)?;
        line = rest;
        Some(word)
    })
}

/// The line's first word, and what is behind it.
fn first_word(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let line = &line[line.iter().position(|byte| !is_blank(byte))?..];
    Some(line.split_at(line.iter().position(is_blank).unwrap_or(line.len())))
}

/// Those of a line `AUTH PLAIN LOGIN` or `AUTH=PLAIN LOGIN`.
fn mechanisms(line: &[u8]) -> Mechanisms {
    let names = line.split(|byte| matches!(byte, b' ' | b'\t' | b'='));
    names.map(Mechanisms::named).collect()
}

fn extension_of(keyword: &[u8]) -> Option<Extensions> {
    // As it was written before there was a standard.
    if keyword.get(..5).is_some_and(|head| head.eq_ignore_ascii_case(b"AUTH=")) {
        return Some(Extensions::AUTH);
    }
    const NAMES: [(&str, Extensions); 12] = [
        ("PIPELINING", Extensions::PIPELINING),
        ("SIZE", Extensions::SIZE),
        ("8BITMIME", Extensions::EIGHT_BIT_MIME),
        ("SMTPUTF8", Extensions::SMTPUTF8),
        ("DSN", Extensions::DSN),
        ("ENHANCEDSTATUSCODES", Extensions::ENHANCED_STATUS_CODES),
        ("CHUNKING", Extensions::CHUNKING),
        ("BINARYMIME", Extensions::BINARYMIME),
        ("XCLIENT", Extensions::XCLIENT),
        ("STARTTLS", Extensions::STARTTLS),
        ("AUTH", Extensions::AUTH),
        ("REQUIRETLS", Extensions::REQUIRETLS),
    ];
    NAMES.iter().find(|(name, _)| keyword.eq_ignore_ascii_case(name.as_bytes())).map(|(_, extension)| *extension)
}

fn attribute_of(word: &[u8]) -> Option<XclientAttributes> {
    const NAMES: [(&str, XclientAttributes); 9] = [
        ("NAME", XclientAttributes::NAME),
        ("ADDR", XclientAttributes::ADDR),
        ("PORT", XclientAttributes::PORT),
        ("PROTO", XclientAttributes::PROTO),
        ("HELO", XclientAttributes::HELO),
        ("LOGIN", XclientAttributes::LOGIN),
        ("DESTADDR", XclientAttributes::DESTADDR),
        ("DESTPORT", XclientAttributes::DESTPORT),
        ("REVERSE_NAME", XclientAttributes::REVERSE_NAME),
    ];
    NAMES.iter().find(|(name, _)| word.eq_ignore_ascii_case(name.as_bytes())).map(|(_, attribute)| *attribute)
}

/// Every keyword line of an EHLO reply in order, unknown ones kept: what `status` shows and health compares.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Keywords(Vec<String>);

impl Keywords {
    /// From an EHLO reply; the first line (the server's name) is left out.
    pub fn from_reply(reply: &Reply<'_>) -> Self {
        Self(
            reply
                .lines()
                .skip(1)
                .map(|line| String::from_utf8_lossy(line).trim_matches([' ', '\t']).to_owned())
                .collect(),
        )
    }

    /// The keyword lines as sent, in order.
    pub fn lines(&self) -> &[String] {
        &self.0
    }

    /// What of these a client is told, as the gateway's whole EHLO reply: the backend's order, only extensions in
    /// `allowed`, SIZE lowered to `size_max` (bytes, 0 for none), PIPELINING always. BINARYMIME needs CHUNKING.
    pub fn encode_for_client(&self, hostname: &str, allowed: Extensions, size_max: u64, out: &mut Vec<u8>) {
        let mut lines = vec![hostname.to_owned(), "PIPELINING".to_owned()];
        let mut told = Extensions::PIPELINING;
        let chunking = self.extensions().any(|(extension, _)| extension == Extensions::CHUNKING);
        for (extension, line) in self.extensions() {
            if !allowed.contains(extension)
                || told.contains(extension)
                || (extension == Extensions::BINARYMIME && !chunking)
            {
                continue;
            }
            told |= extension;
            lines.push(match extension {
                Extensions::SIZE => size_line(line, size_max),
                _ => line.split([' ', '\t']).next().unwrap_or_default().to_ascii_uppercase(),
            });
        }
        encode_reply(250, None, &lines.join("\n"), out);
    }

    fn extensions(&self) -> impl Iterator<Item = (Extensions, &str)> {
        self.0.iter().filter_map(|line| Some((extension_of(words(line.as_bytes()).next()?)?, line.as_str())))
    }
}

/// The smaller of the backend's limit and ours, either of which may be absent (0).
fn size_line(line: &str, size_max: u64) -> String {
    let backend: u64 =
        words(line.as_bytes()).nth(1).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()).unwrap_or(0);
    match (backend, size_max) {
        (0, 0) => "SIZE".to_owned(),
        (0, size) | (size, 0) => format!("SIZE {size}"),
        (backend, ours) => format!("SIZE {}", backend.min(ours)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::reply::{ReplyParse, parse_reply};

    const POSTFIX: &[u8] = b"250-mail.example.com\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250-VRFY\r\n250-ETRN\r\n\
        250-XCLIENT  NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT\r\n250-starttls\r\n250-ENHANCEDSTATUSCODES\r\n\
        250-8BITMIME\r\n250-X-SECRET\r\n250 Chunking\r\n";

    fn reply(bytes: &[u8]) -> Reply<'_> {
        match parse_reply(bytes) {
            ReplyParse::Complete { reply, .. } => reply,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_spaces_and_tabs_part_words() {
        for (line, offered) in [
            ("size 1000", true),
            ("SIZE\t1000", true),
            ("size\u{c} 1000", false),
            ("\u{c}SIZE", false),
            ("size\u{a0}1", false),
        ] {
            let raw = format!("250-b\r\n250 {line}\r\n");
            let reply = reply(raw.as_bytes());
            assert_eq!(Offer::from_reply(&reply).extensions.contains(Extensions::SIZE), offered, "{line:?}");
            let mut told = Vec::new();
            Keywords::from_reply(&reply).encode_for_client("mx", Extensions::SIZE, 0, &mut told);
            assert_eq!(String::from_utf8(told).unwrap().contains("SIZE 1000"), offered, "{line:?}");
        }
    }

    #[test]
    fn reads_an_offer() {
        let offer = Offer::from_reply(&reply(POSTFIX));
        assert_eq!(offer.size_max, Some(10_240_000));
        assert!(offer.extensions.contains(Extensions::CHUNKING | Extensions::XCLIENT | Extensions::STARTTLS));
        assert!(!offer.extensions.contains(Extensions::DSN));
        assert!(offer.xclient.contains(XclientAttributes::ADDR) && offer.xclient.contains(XclientAttributes::DESTPORT));
        assert_eq!(Offer::from_reply(&reply(b"250 plain\r\n")), Offer::default());
        let auth = b"250-x\r\n250-AUTH PLAIN NTLM\r\n250 auth=LOGIN PLAIN\r\n";
        assert_eq!(Offer::from_reply(&reply(auth)).mechanisms, Mechanisms::PLAIN | Mechanisms::LOGIN);
        assert_eq!(Offer::from_reply(&reply(b"250-x\r\n250 SIZE 99999999999999999999999\r\n")).size_max, None);
    }

    #[test]
    fn clients_are_told_the_allow_list_only() {
        let check = |backend: &[u8], size_max, expected: &str| {
            let mut out = Vec::new();
            let allowed = Extensions::all() - Extensions::XCLIENT - Extensions::STARTTLS - Extensions::AUTH;
            Keywords::from_reply(&reply(backend)).encode_for_client("mx.example.com", allowed, size_max, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        };
        check(
            POSTFIX,
            1_000_000,
            "250-mx.example.com\r\n250-PIPELINING\r\n250-SIZE 1000000\r\n250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250 CHUNKING\r\n",
        );
        check(b"250 x\r\n", 0, "250-mx.example.com\r\n250 PIPELINING\r\n");
        check(
            b"250-x\r\n250-BINARYMIME\r\n250-DSN\r\n250-dsn\r\n250 SIZE\r\n",
            5,
            "250-mx.example.com\r\n250-PIPELINING\r\n250-DSN\r\n250 SIZE 5\r\n",
        );
    }
}
