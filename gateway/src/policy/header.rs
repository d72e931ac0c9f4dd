//! Header hygiene: how often a message was received, and what the log calls it.
//!
//! Only the header section is looked at, only up to a bound, and only a section that arrives in several pieces is copied.
//! The section's end and its `Received:` fields are found here, since a count that decides must be exact and linear on any
//! input; what the log shows (Message-ID, From) is `mail-parser`'s reading of it.

use mail_parser::{HeaderName, MessageParser};
use memchr::memchr;

/// What a header section tells.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderFacts {
    /// `Received:` fields.
    pub received_hops: usize,
    /// Message-ID without brackets, bounded, printable.
    pub message_id: Option<String>,
    /// Address in From, bounded, printable.
    pub from: Option<String>,
}

/// What is known after a piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderVerdict {
    /// The section goes on.
    NeedMore,
    /// The section is over.
    Done(HeaderFacts),
    /// It is longer than the bound.
    TooLarge,
}

/// A header section on its way.
#[derive(Debug, Default)]
pub struct HeaderScan {
    /// What came so far, if it came in pieces.
    kept: Vec<u8>,
    /// How much of `kept` is known to be whole header lines.
    scanned: usize,
    received_hops: usize,
}

/// Longest Message-ID kept, in characters.
const MESSAGE_ID_MAX: usize = 250;
/// Longest address kept, in characters.
const FROM_MAX: usize = 254;

impl HeaderScan {
    /// At the first octet of a message.
    pub fn new() -> Self {
        Self::default()
    }

    /// Feeds the next piece. After `Done` or `TooLarge` there is no more to feed. The section, and the line that shows its
    /// end, must come within `bound` bytes.
    pub fn feed(&mut self, content: &[u8], bound: usize) -> HeaderVerdict {
        let room = (bound + 1).saturating_sub(self.kept.len());
        let piece = &content[..content.len().min(room)];
        if self.kept.is_empty() {
            let (length, hops, ended) = scan_lines(piece);
            self.received_hops = hops;
            if ended {
                return HeaderVerdict::Done(facts(&piece[..length], hops));
            }
            self.scanned = length;
            self.kept.extend_from_slice(piece);
        } else {
            self.kept.extend_from_slice(piece);
            let (length, hops, ended) = scan_lines(&self.kept[self.scanned..]);
            self.scanned += length;
            self.received_hops += hops;
            if ended {
                return HeaderVerdict::Done(facts(&self.kept[..self.scanned], self.received_hops));
            }
        }
        if self.kept.len() > bound { HeaderVerdict::TooLarge } else { HeaderVerdict::NeedMore }
    }

    /// The message ended before its header section did.
    pub fn finish(self) -> HeaderFacts {
        facts(&self.kept, self.received_hops)
    }
}

/// Scans whole lines: `(bytes that belong to the section, Received fields among them, whether the section ends there)`. It
/// ends at an empty line or at one that is neither a field nor a continuation.
fn scan_lines(content: &[u8]) -> (usize, usize, bool) {
    let (mut at, mut hops) = (0, 0);
    while let Some(length) = memchr(b'\n', &content[at..]) {
        let line = &content[at..at + length];
        match field_name(line) {
            Some(name) => hops += usize::from(name.eq_ignore_ascii_case(b"Received")),
            None if matches!(line.first(), Some(b' ' | b'\t')) => {}
            None => return (at, hops, true),
        }
        at += length + 1;
    }
    (at, hops, false)
}

/// The name before the colon, with the white space that obsolete syntax allows there (RFC 5322 section 4.5) taken off.
fn field_name(line: &[u8]) -> Option<&[u8]> {
    let colon = memchr(b':', line)?;
    let name = line[..colon].trim_ascii_end();
    (!name.is_empty() && name.iter().all(u8::is_ascii_graphic)).then_some(name)
}

fn facts(section: &[u8], received_hops: usize) -> HeaderFacts {
    let parser =
        MessageParser::new().header_id(HeaderName::MessageId).header_address(HeaderName::From).default_header_ignore();
    let message = parser.parse_headers(section);
    let message_id = message.as_ref().and_then(|m| m.message_id()).map(|id| printable(id, MESSAGE_ID_MAX));
    let from = message.as_ref().and_then(|m| m.from()?.first()?.address()).map(|address| printable(address, FROM_MAX));
    HeaderFacts { received_hops, message_id, from }
}

fn printable(text: &str, max: usize) -> String {
    text.chars().take(max).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn feed(pieces: &[&[u8]], bound: usize) -> Option<HeaderFacts> {
        let mut scan = HeaderScan::new();
        for piece in pieces {
            match scan.feed(piece, bound) {
                HeaderVerdict::NeedMore => {}
                HeaderVerdict::Done(facts) => return Some(facts),
                HeaderVerdict::TooLarge => return None,
            }
        }
        Some(scan.finish())
    }

    #[test]
    fn facts_of_a_message() {
        let message = b"Received: from a\r\n by b\r\nrECEIVED : from c\r\nMessage-ID: <x@y.example>\r\n\
            From: \"A, B\" <a@b.example>\r\nX-Received: no\r\n\r\nReceived: in the body\r\n";
        let facts = feed(&[message], 1000).unwrap();
        let expected =
            HeaderFacts { received_hops: 2, message_id: Some("x@y.example".into()), from: Some("a@b.example".into()) };
        assert_eq!(facts, expected);
    }

    #[test]
    fn a_message_may_have_no_header() {
        for message in
            ["", "\r\n", "\r\nReceived: x\r\n", "just text\r\nReceived: x\r\n", "no line end", ": x\r\nReceived: x\r\n"]
        {
            assert_eq!(feed(&[message.as_bytes()], 1000).unwrap().received_hops, 0, "{message:?}");
        }
    }

    #[test]
    fn the_section_is_bounded_and_its_cost_is_linear() {
        let fields = b"Received: x\r\n".repeat(100_000);
        assert_eq!(feed(&[&fields], 10_000), None);
        assert_eq!(feed(&fields.chunks(100).collect::<Vec<_>>(), 10_000), None);
        assert_eq!(feed(&[&fields, b"\r\n"], fields.len() + 2).unwrap().received_hops, 100_000);
        let nested = b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n".repeat(1000);
        assert_eq!(feed(&[&nested], 1000).unwrap().received_hops, 0);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_facts(message in "((Received|From|X|Message-ID)? ?:? ?[a<>@ ]{0,8}\r\n){0,8}", cut in 0usize..100, bound in 0usize..100) {
            let (head, tail) = message.as_bytes().split_at(cut.min(message.len()));
            prop_assert_eq!(feed(&[message.as_bytes()], bound), feed(&[head, tail], bound));
        }

        #[test]
        fn never_panics(message: Vec<u8>) {
            feed(&[&message], 100);
        }
    }
}
