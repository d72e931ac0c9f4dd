//! Mailboxes and paths as RFC 5321 section 4.1.2 and RFC 6531 section 3.3 write them.
//!
//! Borrowed views over the command line: parsed, never unescaped in place, so that what is sent on is what was judged.
//! What is merely unusual passes, and is written anew in one strict form: no brackets, a long local part. Every form that
//! another server might read as a route (two `@`, comments, unbalanced quotes) fails here, before policy has to guess what
//! a backend would make of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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

/// Octets of a domain (section 4.5.3.1.2).
const DOMAIN_MAX: usize = 255;
/// Octets of a path, brackets included (section 4.5.3.1.3). A local part has no limit of its own: 64 octets is what every
/// server must take, and bounce addresses of bulk senders are longer.
const PATH_MAX: usize = 256;

impl<'a> ReversePath<'a> {
    /// Parses a path at the head of `text`; what follows its `>` comes with it. `None`: not a path.
    pub fn parse(text: &'a str) -> Option<(Self, &'a str)> {
        if let Some(rest) = text.strip_prefix("<>") {
            return Some((Self::Null, rest));
        }
        let (mailbox, rest) = parse_path(text)?;
        Some((Self::Mailbox(mailbox), rest))
    }

    /// Whether sending it on takes SMTPUTF8 (RFC 6531).
    pub fn needs_utf8(&self) -> bool {
        matches!(self, Self::Mailbox(mailbox) if !mailbox.text.is_ascii())
    }

    /// As written between the brackets; empty for the null path.
    pub fn as_str(&self) -> &'a str {
        match self {
            Self::Null => "",
            Self::Mailbox(mailbox) => mailbox.text,
        }
    }
}

impl<'a> ForwardPath<'a> {
    /// Parses a path at the head of `text`; what follows its `>` comes with it. `None`: not a path.
    pub fn parse(text: &'a str) -> Option<(Self, &'a str)> {
        for postmaster in ["<postmaster>", "postmaster"] {
            if let Some((head, rest)) = text.split_at_checked(postmaster.len())
                && head.eq_ignore_ascii_case(postmaster)
                && (head.starts_with('<') || ends_path(rest))
            {
                return Some((Self::Postmaster, rest));
            }
        }
        let (mailbox, rest) = parse_path(text)?;
        Some((Self::Mailbox(mailbox), rest))
    }

    /// Whether sending it on takes SMTPUTF8 (RFC 6531).
    pub fn needs_utf8(&self) -> bool {
        matches!(self, Self::Mailbox(mailbox) if !mailbox.text.is_ascii())
    }

    /// As written between the brackets; `postmaster` for the bare one.
    pub fn as_str(&self) -> &'a str {
        match self {
            Self::Postmaster => "postmaster",
            Self::Mailbox(mailbox) => mailbox.text,
        }
    }
}

/// `"<" [ route ":" ] mailbox ">"`, or a mailbox alone, as devices and scripts write it.
fn parse_path(text: &str) -> Option<(Mailbox<'_>, &str)> {
    let bracketed = text.strip_prefix('<');
    let inner = match bracketed {
        Some(inner) => skip_route(inner)?,
        None => text,
    };
    let (local_part, rest) = parse_local_part(inner)?;
    let (domain, rest) = parse_domain(rest.strip_prefix('@')?)?;
    let whole = &inner[..inner.len() - rest.len()];
    let after = match bracketed {
        Some(_) => rest.strip_prefix('>')?,
        None => Some(rest).filter(|rest| ends_path(rest))?,
    };
    (whole.len() + 2 <= PATH_MAX).then_some((Mailbox { text: whole, local_part, domain }, after))
}

/// Whether a path without brackets is over here.
fn ends_path(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with([' ', '\t'])
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
    let length = if text.starts_with('"') { quoted_string(text)? } else { dot_string(text)? };
    Some(text.split_at(length))
}

/// Length of a dot-string at the head of `text`: atoms with one dot between any two.
fn dot_string(text: &str) -> Option<usize> {
    let length = text.bytes().position(|byte| byte != b'.' && !is_atext(byte)).unwrap_or(text.len());
    let atoms = &text[..length];
    (!atoms.split('.').any(str::is_empty)).then_some(length)
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

/// Parses a domain or literal at the head of `text`.
fn parse_domain(text: &str) -> Option<(Domain<'_>, &str)> {
    if let Some(inner) = text.strip_prefix('[') {
        let (content, rest) = inner.split_once(']')?;
        return Some((parse_literal(content)?, rest));
    }
    let length = text.bytes().position(|byte| !is_domain_byte(byte)).unwrap_or(text.len());
    let (name, rest) = text.split_at(length);
    (name.len() <= DOMAIN_MAX && name.split('.').all(is_label)).then_some((Domain::Name(name), rest))
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
    let well_formed = !tag.is_empty()
        && content.len() <= DOMAIN_MAX
        && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !value.is_empty()
        && value.bytes().all(|byte| matches!(byte, b'!'..=b'Z' | b'^'..=b'~'));
    well_formed.then_some(Domain::GeneralLiteral(content))
}

/// Underscores are no part of RFC 5321's domains, and yet they are sent.
fn is_domain_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_') || byte >= 0x80
}

fn is_label(label: &str) -> bool {
    !label.is_empty() && label.chars().count() <= 63 && !label.starts_with('-') && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn forward(text: &str) -> Option<(&str, &str)> {
        match ForwardPath::parse(text)? {
            (ForwardPath::Mailbox(mailbox), "") => {
                Some((mailbox.local_part, &mailbox.text[mailbox.local_part.len()..]))
            }
            (ForwardPath::Postmaster, "") => Some(("postmaster", "")),
            _ => None,
        }
    }

    #[test]
    fn forward_paths() {
        let table: &[(&str, Option<(&str, &str)>)] = &[
            ("<a@b.example>", Some(("a", "@b.example"))),
            ("<a.b+c@B.Example>", Some(("a.b+c", "@B.Example"))),
            ("<Postmaster>", Some(("postmaster", ""))),
            ("<\"a b\\\"@c\"@d.example>", Some(("\"a b\\\"@c\"", "@d.example"))),
            ("<@one.example,@[192.0.2.1]:a@b.example>", Some(("a", "@b.example"))),
            ("<a@[192.0.2.1]>", Some(("a", "@[192.0.2.1]"))),
            ("<a@[IPv6:2001:db8::1]>", Some(("a", "@[IPv6:2001:db8::1]"))),
            ("<a@[x-tag:what]>", Some(("a", "@[x-tag:what]"))),
            ("<u%f.example@[192.0.2.1]>", Some(("u%f.example", "@[192.0.2.1]"))),
            ("<üser@bücher.example>", Some(("üser", "@bücher.example"))),
            ("<a@under_score.example>", Some(("a", "@under_score.example"))),
            ("<>", None),
            ("<a>", None),
            ("<a@>", None),
            ("<@b.example>", None),
            ("<a@b@c.example>", None),
            ("<a@b.example.>", None),
            ("<a@b..example>", None),
            ("<a@-b.example>", None),
            ("<.a@b.example>", None),
            ("<a..b@c.example>", None),
            ("<a b@c.example>", None),
            ("<a(x)@c.example>", None),
            ("<a@c.example(x)>", None),
            ("<a\\@b@c.example>", None),
            ("<\"a@b.example>", None),
            ("<\"a@b.example\">", None),
            ("<host:u@f.example>", None),
            ("<@a.example:>", None),
            ("<@a.example u@b.example>", None),
            ("<a@[192.0.2.256]>", None),
            ("<a@[2001:db8::1]>", None),
            ("<a@[IPv6:192.0.2.1]>", None),
            ("<a@b.example", None),
            ("a@b.example", Some(("a", "@b.example"))),
            ("postmaster", Some(("postmaster", ""))),
            ("\"a b\"@c.example", Some(("\"a b\"", "@c.example"))),
            ("a", None),
            ("postmasters", None),
            ("a@b.example>", None),
            ("<<a@b.example>>", None),
            ("@one.example:a@b.example", None),
            ("Name <a@b.example>", None),
            ("a@b.example (x)", None),
            ("a@b.example,c@d.example", None),
        ];
        for (text, expected) in table {
            assert_eq!(forward(text), *expected, "{text}");
        }
    }

    #[test]
    fn lengths_are_bounded() {
        for length in [64, 65, 68, 73, 86, 128, 244] {
            assert!(forward(&format!("<{}@b.example>", "a".repeat(length))).is_some(), "{length}");
        }
        assert!(forward(&format!("<{}@b.example>", "a".repeat(246))).is_none());
        assert!(forward(&format!("<a@{}example>", "abcdefghi.".repeat(30))).is_none());
        assert!(forward(&format!("<a@{}.example>", "b".repeat(64))).is_none());
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
                let bracket = if text.starts_with('<') { ">" } else { "" };
                let tail = format!("{}{bracket}{rest}", mailbox.text);
                prop_assert!(text.ends_with(&tail));
                let again = format!("<{}>", mailbox.text);
                prop_assert!(ForwardPath::parse(&again).is_some());
            }
        }
    }
}
