//! Mailboxes and paths as RFC 5321 section 4.1.2 and RFC 6531 section 3.3 write them, and as clients do.
//!
//! Borrowed views over the command line: parsed, and written anew in the one strict form that the RFC has. What is merely
//! unusual passes: long local parts, no angle brackets, spaces inside them, dots that stand where only a quoted string may have
//! them (one is written then), the dot that ends a name in DNS (it is left out). Every form that another server might read as a
//! route or as two addresses (two `@`, comments, names, unbalanced quotes) fails here, before policy has to guess what a
//! backend would make of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::labels::{a_labels, has_empty_part};

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
    /// The whole mailbox as the client wrote it, without angle brackets and source route.
    pub text: &'a str,
    /// The local part as the client wrote it, quotes included.
    pub local_part: &'a str,
    /// Whether the local part holds dots that only a quoted string may (RFC 5321 section 4.1.2, Dot-string).
    pub needs_quotes: bool,
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

/// Octets of a domain (RFC 5321 section 4.5.3.1.2).
const DOMAIN_MAX: usize = 255;
/// Octets of a path, brackets included (section 4.5.3.1.3). A local part has no limit of its own: 64 octets is what every
/// server must take, and bounce addresses of bulk senders are longer.
const PATH_MAX: usize = 256;

impl<'a> Mailbox<'a> {
    /// Appends it in the form that the RFC has.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let Self { text, local_part, needs_quotes, .. } = self;
        if *needs_quotes {
            out.push(b'"');
            out.extend_from_slice(local_part.as_bytes());
            out.push(b'"');
            out.extend_from_slice(&text.as_bytes()[local_part.len()..]);
        } else {
            out.extend_from_slice(text.as_bytes());
        }
    }

    /// The domain as the client wrote it, brackets of a literal included.
    pub fn domain_text(&self) -> &'a str {
        self.text.get(self.local_part.len() + 1..).unwrap_or_default()
    }
}

impl<'a> ReversePath<'a> {
    /// Parses a path at the head of `text`; what follows it comes with it. `None`: not a path.
    pub fn parse(text: &'a str) -> Option<(Self, &'a str)> {
        if let Some(rest) = text.strip_prefix('<').and_then(|rest| rest.trim_start_matches(' ').strip_prefix('>')) {
            return Some((Self::Null, rest));
        }
        let (mailbox, rest) = parse_path(text)?;
        Some((Self::Mailbox(mailbox), rest))
    }

    /// Whether sending it on takes SMTPUTF8 (RFC 6531).
    pub fn needs_utf8(&self) -> bool {
        matches!(self, Self::Mailbox(mailbox) if !mailbox.text.is_ascii())
    }

    /// As the client wrote it, without brackets; empty for the null path.
    pub fn as_str(&self) -> &'a str {
        match self {
            Self::Null => "",
            Self::Mailbox(mailbox) => mailbox.text,
        }
    }

    /// Appends it without brackets, in the form that the RFC has.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        if let Self::Mailbox(mailbox) = self {
            mailbox.write_to(out);
        }
    }
}

impl<'a> ForwardPath<'a> {
    /// Parses a path at the head of `text`; what follows it comes with it. `None`: not a path.
    pub fn parse(text: &'a str) -> Option<(Self, &'a str)> {
        const POSTMASTER: &str = "postmaster";
        let (bracket, inner) = open_bracket(text);
        if let Some((head, rest)) = inner.split_at_checked(POSTMASTER.len())
            && head.eq_ignore_ascii_case(POSTMASTER)
            && let Some(rest) = close_bracket(bracket, rest)
        {
            return Some((Self::Postmaster, rest));
        }
        let (mailbox, rest) = parse_path(text)?;
        Some((Self::Mailbox(mailbox), rest))
    }

    /// Whether sending it on takes SMTPUTF8 (RFC 6531).
    pub fn needs_utf8(&self) -> bool {
        matches!(self, Self::Mailbox(mailbox) if !mailbox.text.is_ascii())
    }

    /// As the client wrote it, without brackets; `postmaster` for the bare one.
    pub fn as_str(&self) -> &'a str {
        match self {
            Self::Postmaster => "postmaster",
            Self::Mailbox(mailbox) => mailbox.text,
        }
    }

    /// Appends it without brackets, in the form that the RFC has.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        match self {
            Self::Postmaster => out.extend_from_slice(b"postmaster"),
            Self::Mailbox(mailbox) => mailbox.write_to(out),
        }
    }
}

/// `"<" [ route ":" ] mailbox ">"`, or the mailbox alone.
fn parse_path(text: &str) -> Option<(Mailbox<'_>, &str)> {
    let (bracket, inner) = open_bracket(text);
    let inner = if bracket { skip_route(inner)? } else { inner };
    let (local_part, rest) = parse_local_part(inner)?;
    let (domain, rest) = parse_domain(rest.strip_prefix('@')?)?;
    let whole = &inner[..inner.len() - rest.len()];
    let rest = if let Domain::Name(_) = domain { rest.strip_prefix('.').unwrap_or(rest) } else { rest };
    let after = close_bracket(bracket, rest)?;
    let needs_quotes = !local_part.starts_with('"') && has_empty_part(local_part);
    // As it is written: in angle brackets, and in quotes where it needs them.
    (whole.len() + 2 + 2 * usize::from(needs_quotes) <= PATH_MAX)
        .then_some((Mailbox { text: whole, local_part, needs_quotes, domain }, after))
}

/// Whether a path begins with a bracket, and what is behind it.
fn open_bracket(text: &str) -> (bool, &str) {
    match text.strip_prefix('<') {
        Some(inner) => (true, inner.trim_start_matches(' ')),
        None => (false, text),
    }
}

/// What is behind a path: its bracket, if it has one, or else white space or nothing.
fn close_bracket(bracket: bool, rest: &str) -> Option<&str> {
    if bracket {
        return rest.trim_start_matches(' ').strip_prefix('>');
    }
    (rest.is_empty() || rest.starts_with([' ', '\t'])).then_some(rest)
}

/// `"@" domain *( "," "@" domain ) ":"`, if it is there.
fn skip_route(text: &str) -> Option<&str> {
    let mut rest = text;
    if !rest.starts_with('@') {
        return Some(rest);
    }
    loop {
        (_, rest) = parse_domain(rest.strip_prefix('@')?)?;
        if let Some(inner) = rest.strip_prefix(':') {
            return Some(inner);
        }
        rest = rest.strip_prefix(',')?;
    }
}

fn parse_local_part(text: &str) -> Option<(&str, &str)> {
    let length = if text.starts_with('"') { quoted_string(text)? } else { dotted_atoms(text) };
    (length > 0).then(|| text.split_at(length))
}

/// Length of atoms and dots at the head of `text`, the dots anywhere: mailboxes that have two of them in a row, or one at the
/// end, exist.
fn dotted_atoms(text: &str) -> usize {
    text.bytes().position(|byte| byte != b'.' && !is_atext(byte)).unwrap_or(text.len())
}

/// Length of a quoted string at the head of `text`, quotes included.
fn quoted_string(text: &str) -> Option<usize> {
    let mut bytes = text.bytes().enumerate().skip(1);
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => return Some(at + 1),
            b'\\' if !matches!(bytes.next()?, (_, b' '..=b'~')) => return None,
            b' '..=b'~' | 0x80.. => {}
            _ => return None,
        }
    }
    None
}

fn is_atext(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte) || byte >= 0x80
}

/// Parses a domain or literal at the head of `text`. A dot behind a name is none of its: it stays.
fn parse_domain(text: &str) -> Option<(Domain<'_>, &str)> {
    if let Some(inner) = text.strip_prefix('[') {
        let (content, rest) = inner.split_once(']')?;
        return Some((parse_literal(content)?, rest));
    }
    let length = text.bytes().position(|byte| !is_domain_byte(byte)).unwrap_or(text.len());
    let length = text[..length].strip_suffix('.').map_or(length, str::len);
    let (name, rest) = text.split_at(length);
    let good =
        name.len() <= DOMAIN_MAX && name.split('.').all(is_label) && (name.is_ascii() || a_labels(name).is_some());
    good.then_some((Domain::Name(name), rest))
}

/// Whether all of `text` is a domain or an address literal.
pub fn is_domain(text: &str) -> bool {
    matches!(parse_domain(text), Some((_, "")))
}

/// The content of an address literal, without its brackets (RFC 5321 section 4.1.3).
pub fn parse_literal(content: &str) -> Option<Domain<'_>> {
    if let Ok(address) = content.parse::<Ipv4Addr>() {
        return Some(Domain::Literal(address.into()));
    }
    if content.parse::<Ipv6Addr>().is_ok() {
        // Without its tag an IPv6 address would read as a general literal.
        return None;
    }
    let (tag, value) = content.split_once(':')?;
    if tag.eq_ignore_ascii_case("IPv6") {
        return value.parse::<Ipv6Addr>().ok().map(|address| Domain::Literal(address.into()));
    }
    // The RFC lets any sign but brackets in; nobody writes such a one, and quotes, angles and `@` could be read in two ways.
    let well_formed = !tag.is_empty()
        && content.len() <= DOMAIN_MAX
        && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !value.is_empty()
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte));
    well_formed.then_some(Domain::GeneralLiteral(content))
}

/// Underscores are no part of RFC 5321's domains, and yet they are sent.
fn is_domain_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_') || byte >= 0x80
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && (label.len() <= 63 || label.chars().count() <= 63)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn forward(text: &str) -> Option<()> {
        matches!(ForwardPath::parse(text)?, (_, "")).then_some(())
    }

    #[test]
    fn lengths_are_bounded() {
        for octets in [1, 64, 65, 68, 73, 86, 128, 244] {
            assert!(forward(&format!("<{}@b.example>", "a".repeat(octets))).is_some(), "{octets}");
        }
        assert!(forward(&format!("<{}@b.example>", "a".repeat(245))).is_none());
        assert!(forward(&format!("<a@{}example>", "abcdefghi.".repeat(30))).is_none());
        assert!(forward(&format!("<a@{}.example>", "b".repeat(64))).is_none());
    }

    #[test]
    fn a_literal_holds_nothing_that_begins_another_address() {
        for content in ["192.0.2.1", "IPv6:2001:db8::1", "ipv6:::1", "x-tag:a.b-c_d:1"] {
            assert!(forward(&format!("<a@[{content}]>")).is_some(), "{content}");
        }
        for content in
            ["x:a@b", "x:<a", "x:>", "x:\"a\"", "x:a%b", "x:a!b", "x:a\\b", "x:", ":x", "2001:db8::1", "fe80::1%eth0"]
        {
            assert!(forward(&format!("<a@[{content}]>")).is_none(), "{content}");
        }
    }

    #[test]
    fn the_null_path_is_for_bounces_only() {
        assert_eq!(ReversePath::parse("<> SIZE=1"), Some((ReversePath::Null, " SIZE=1")));
        assert!(ReversePath::parse("<spamtest>").is_none());
        assert!(ReversePath::parse("<postmaster>").is_none());
    }

    proptest! {
        #[test]
        fn never_panics_and_keeps_the_text(text in "[<>@a\"\\\\.:,\\[\\]ü -]{0,20}") {
            if let Some((ForwardPath::Mailbox(mailbox), rest)) = ForwardPath::parse(&text) {
                prop_assert!(text.contains(mailbox.text) && text.ends_with(rest));
                // What is written is in the strict form, and means the same.
                let mut written = b"<".to_vec();
                mailbox.write_to(&mut written);
                written.push(b'>');
                let written = String::from_utf8(written).unwrap();
                let Some((ForwardPath::Mailbox(again), "")) = ForwardPath::parse(&written) else {
                    return Err(TestCaseError::fail(written));
                };
                prop_assert_eq!(again.domain, mailbox.domain);
                prop_assert!(!again.needs_quotes);
                prop_assert_eq!(again.local_part.trim_matches('"'), mailbox.local_part.trim_matches('"'));
            }
        }
    }
}
