//! Replies, one or many lines, with enhanced status codes (RFC 5321 section 4.2, RFC 2034).
//!
//! A backend's reply is parsed where it lies and encoded anew for the client. The parser is strict: a backend whose
//! lines end in bare LF, whose codes change inside one reply or whose lines never end is not understood, and what is not
//! understood is not passed on.

use std::borrow::Cow;
use std::fmt;

use memchr::{memchr, memchr_iter, memchr3};

/// An enhanced status code, `class.subject.detail` (RFC 3463).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnhancedCode(pub u8, pub u16, pub u16);

impl fmt::Display for EnhancedCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(class, subject, detail) = self;
        write!(f, "{class}.{subject}.{detail}")
    }
}

impl EnhancedCode {
    fn encode(self, out: &mut Vec<u8>) {
        let Self(class, subject, detail) = self;
        let mut digits = itoa::Buffer::new();
        out.extend_from_slice(digits.format(class).as_bytes());
        for number in [subject, detail] {
            out.push(b'.');
            out.extend_from_slice(digits.format(number).as_bytes());
        }
    }
}

/// A whole reply of the backend, still in the buffer it was read into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply<'a> {
    /// 200 to 599, the same on every line.
    pub code: u16,
    /// All lines as received, the last CRLF included.
    raw: &'a [u8],
}

/// What stands at the head of what the backend sent.
#[derive(Debug, PartialEq, Eq)]
pub enum ReplyParse<'a> {
    /// A whole reply of `used` bytes.
    Complete {
        /// The reply.
        reply: Reply<'a>,
        /// Bytes consumed.
        used: usize,
    },
    /// More bytes are needed.
    Incomplete,
    /// Not SMTP: the connection cannot be trusted any more.
    Faulty(ReplyFault),
}

/// Why bytes from the backend are no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyFault {
    /// Does not begin with a code from 200 to 599 and a space, a hyphen or the line's end.
    NoCode,
    /// A bare CR, a bare LF or NUL inside a line.
    BadLine,
    /// A line is longer than [`LINE_MAX`], or a challenge than [`CHALLENGE_MAX`].
    LineTooLong,
    /// More than [`LINES_MAX`] lines.
    TooManyLines,
    /// The lines of one reply bear different codes.
    MixedCodes,
    /// All lines together are longer than [`REPLY_MAX`].
    TooLong,
}

/// Longest reply read from a backend, all lines together, in bytes.
pub const REPLY_MAX: usize = 16 * 1024;

/// Longest reply line accepted, CRLF included, in bytes. RFC 5321 allows 512; servers exceed it with long texts.
pub const LINE_MAX: usize = 2048;
/// The same of a challenge to AUTH, which is as long as an answer to it may be (RFC 4954 section 4).
pub const CHALLENGE_MAX: usize = 12_288;
/// Most lines accepted in one reply.
pub const LINES_MAX: usize = 128;

/// Parses the first reply in `input`.
pub fn parse_reply(input: &[u8]) -> ReplyParse<'_> {
    let mut code = None;
    let mut start = 0;
    for _ in 0..LINES_MAX {
        let rest = &input[start..];
        // A good line's first CR is that of its end, and nothing bad stands before it.
        let good = memchr3(b'\r', b'\n', 0, rest).filter(|&at| rest[at..].starts_with(b"\r\n"));
        let Some(lf) = good.map(|cr| cr + 1).or_else(|| memchr(b'\n', rest)) else {
            return if rest.len() >= longest(rest) {
                ReplyParse::Faulty(ReplyFault::LineTooLong)
            } else {
                ReplyParse::Incomplete
            };
        };
        let (line_code, last) = match reply_line(&rest[..=lf], good.is_some()) {
            Ok(parsed) => parsed,
            Err(fault) => return ReplyParse::Faulty(fault),
        };
        if *code.get_or_insert(line_code) != line_code {
            return ReplyParse::Faulty(ReplyFault::MixedCodes);
        }
        start += lf + 1;
        if last {
            return ReplyParse::Complete { reply: Reply { code: line_code, raw: &input[..start] }, used: start };
        }
    }
    ReplyParse::Faulty(ReplyFault::TooManyLines)
}

/// Parses the first reply in `input`, which may not be longer than [`REPLY_MAX`]: what whoever speaks with a server reads
/// replies by.
pub fn read_reply(input: &[u8]) -> ReplyParse<'_> {
    match parse_reply(input) {
        ReplyParse::Complete { used, .. } if used > REPLY_MAX => ReplyParse::Faulty(ReplyFault::TooLong),
        ReplyParse::Incomplete if input.len() >= REPLY_MAX => ReplyParse::Faulty(ReplyFault::TooLong),
        parsed => parsed,
    }
}

/// How long this line may be.
fn longest(line: &[u8]) -> usize {
    if line.starts_with(b"334") { CHALLENGE_MAX } else { LINE_MAX }
}

/// One line through its LF: its code, and whether it is the last of its reply. `good`: it has CR and LF at its end, and neither
/// them nor NUL before.
fn reply_line(line: &[u8], good: bool) -> Result<(u16, bool), ReplyFault> {
    if line.len() > longest(line) {
        return Err(ReplyFault::LineTooLong);
    }
    let Some(text) = line.strip_suffix(b"\r\n").filter(|_| good) else { return Err(ReplyFault::BadLine) };
    let (&[a @ b'2'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9'], rest) =
        text.split_first_chunk::<3>().ok_or(ReplyFault::NoCode)?
    else {
        return Err(ReplyFault::NoCode);
    };
    let code = u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0');
    match rest.first() {
        None | Some(b' ') => Ok((code, true)),
        Some(b'-') => Ok((code, false)),
        Some(_) => Err(ReplyFault::NoCode),
    }
}

impl<'a> Reply<'a> {
    /// The text of each line behind code and separator, as received.
    pub fn lines(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let raw = self.raw;
        memchr_iter(b'\n', raw).scan(0, move |start, lf| {
            let line = &raw[*start..lf];
            *start = lf + 1;
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            Some(line.get(4..).unwrap_or_default())
        })
    }

    /// The first digit: 2, 3, 4 or 5.
    pub fn class(&self) -> u16 {
        self.code / 100
    }

    /// The first line's text, for logs; it begins with the enhanced status code where there is one.
    pub fn text(&self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.lines().next().unwrap_or_default())
    }

    /// Writes the reply for the client: the same code and lines, bytes outside printable ASCII (and, with `utf8`, outside
    /// valid UTF-8) replaced by `?`.
    pub fn encode_into(&self, utf8: bool, out: &mut Vec<u8>) {
        let keep_utf8 = utf8 && std::str::from_utf8(self.raw).is_ok();
        out.extend(self.raw.iter().map(|&byte| match byte {
            b' '..=b'~' | b'\r' | b'\n' => byte,
            0x80.. if keep_utf8 => byte,
            _ => b'?',
        }));
    }
}

/// Writes one reply of the gateway's own: a line for each line of `text`, the enhanced code on each.
pub fn encode_reply(code: u16, enhanced: Option<EnhancedCode>, text: &str, out: &mut Vec<u8>) {
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        out.extend_from_slice(itoa::Buffer::new().format(code).as_bytes());
        out.push(if lines.peek().is_some() { b'-' } else { b' ' });
        if let Some(enhanced) = enhanced {
            enhanced.encode(out);
            out.push(b' ');
        }
        out.extend_from_slice(line.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parses_or_says_why_not() {
        let long = [b"250 ".as_slice(), &[b'x'; LINE_MAX]].concat();
        let of_length = |length: usize| [b"334 ".as_slice(), &vec![b'A'; length - 6], b"\r\n"].concat();
        let (challenge, too_long) = (of_length(CHALLENGE_MAX), of_length(CHALLENGE_MAX + 1));
        let endless = b"250-x\r\n".repeat(LINES_MAX + 1);
        type Parsed = Result<(u16, usize), Option<ReplyFault>>;
        let table: &[(&[u8], Parsed)] = &[
            (b"250 ok\r\n", Ok((250, 8))),
            (b"250\r\n", Ok((250, 5))),
            (b"250-a\r\n250 b\r\n", Ok((250, 14))),
            (b"250 ok\r\n354 go\r\n", Ok((250, 8))),
            (b"", Err(None)),
            (b"250 o", Err(None)),
            (b"250-a\r\n", Err(None)),
            (b"250 ok\n", Err(Some(ReplyFault::BadLine))),
            (b"250 o\rk\r\n", Err(Some(ReplyFault::BadLine))),
            (b"250 \0\r\n", Err(Some(ReplyFault::BadLine))),
            (b"\r\n", Err(Some(ReplyFault::NoCode))),
            (b"150 x\r\n", Err(Some(ReplyFault::NoCode))),
            (b"650 x\r\n", Err(Some(ReplyFault::NoCode))),
            (b"25 x\r\n", Err(Some(ReplyFault::NoCode))),
            (b"250_x\r\n", Err(Some(ReplyFault::NoCode))),
            (b"HTTP/1.1 400\r\n", Err(Some(ReplyFault::NoCode))),
            (b"250-a\r\n550 b\r\n", Err(Some(ReplyFault::MixedCodes))),
            (&long, Err(Some(ReplyFault::LineTooLong))),
            (&challenge, Ok((334, CHALLENGE_MAX))),
            (&too_long, Err(Some(ReplyFault::LineTooLong))),
            (&too_long[..CHALLENGE_MAX], Err(Some(ReplyFault::LineTooLong))),
            (&endless, Err(Some(ReplyFault::TooManyLines))),
        ];
        for (input, expected) in table {
            let found = match parse_reply(input) {
                ReplyParse::Complete { reply, used } => Ok((reply.code, used)),
                ReplyParse::Incomplete => Err(None),
                ReplyParse::Faulty(fault) => Err(Some(fault)),
            };
            assert_eq!(&found, expected, "{:?}", String::from_utf8_lossy(&input[..input.len().min(40)]));
        }
    }

    fn complete(input: &[u8]) -> Reply<'_> {
        match parse_reply(input) {
            ReplyParse::Complete { reply, .. } => reply,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn encodes_for_the_client() {
        let reply = complete(b"550-5.1.1 no \xc3\xbc\r\n550 x\x07\xff\r\n");
        let mut out = Vec::new();
        reply.encode_into(false, &mut out);
        assert_eq!(out, b"550-5.1.1 no ??\r\n550 x??\r\n");
        let reply = complete("250 ü\r\n".as_bytes());
        out.clear();
        reply.encode_into(true, &mut out);
        assert_eq!(out, "250 ü\r\n".as_bytes());
        out.clear();
        encode_reply(214, Some(EnhancedCode(2, 0, 0)), "one\ntwo", &mut out);
        assert_eq!(out, b"214-2.0.0 one\r\n214 2.0.0 two\r\n");
    }

    proptest! {
        #[test]
        fn parse_undoes_encode(code in 200u16..600, lines in proptest::collection::vec("[ -~]{1,60}", 1..6)) {
            let mut out = Vec::new();
            encode_reply(code, None, &lines.join("\n"), &mut out);
            let reply = complete(&out);
            prop_assert_eq!(reply.code, code);
            let parsed: Vec<_> = reply.lines().map(|l| String::from_utf8_lossy(l).into_owned()).collect();
            prop_assert_eq!(parsed, lines);
        }

        /// A line is judged by one search where it is good; where it is not, the verdict is the same as byte by byte.
        #[test]
        fn lines_are_judged_as_byte_by_byte(input in "(2[05]0[ -])?[a\r\n\0]{0,6}(\r?\n)?") {
            let input = input.as_bytes();
            let line = input.iter().position(|&byte| byte == b'\n').map(|lf| &input[..=lf]);
            let Some(line) = line else {
                prop_assert_eq!(parse_reply(input), ReplyParse::Incomplete);
                return Ok(());
            };
            let found = parse_reply(line);
            let bad = !line.ends_with(b"\r\n") || line[..line.len() - 2].iter().any(|byte| matches!(byte, b'\r' | 0));
            prop_assert_eq!(bad, found == ReplyParse::Faulty(ReplyFault::BadLine));
            let begins = line.first() == Some(&b'2');
            prop_assert_eq!(!bad && !begins, found == ReplyParse::Faulty(ReplyFault::NoCode));
            let is_last = line.get(3).is_none_or(|&byte| byte != b'-');
            prop_assert_eq!(!bad && begins && is_last, matches!(found, ReplyParse::Complete { used, .. } if used == line.len()));
        }

        #[test]
        fn a_prefix_never_says_more_than_the_whole(input in "(250[ -][ab\r\n]{0,4}\r?\n){0,4}") {
            let whole = format!("{:?}", parse_reply(input.as_bytes()));
            for end in 0..input.len() {
                match parse_reply(&input.as_bytes()[..end]) {
                    ReplyParse::Incomplete => {}
                    decided => prop_assert_eq!(format!("{decided:?}"), whole.clone()),
                }
            }
        }
    }
}
