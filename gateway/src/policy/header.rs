//! Header hygiene: how often a message was received, and what the log calls it.
//!
//! Only the header section is looked at, line by line, and only up to a bound. Kept of it is at most an unfinished line and the
//! two fields that the log shows: some KiB, so that nobody fills memory with headers that never end.
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

/// A header section on its way. It goes by line by line; what is kept of it is bounded, however long it is.
#[derive(Debug)]
pub struct HeaderScan {
    keeps: Keeps,
    /// Octets of the section so far.
    octets: usize,
    /// The head of a line that has come in part.
    line: Vec<u8>,
    /// Lines that were whole.
    lines: usize,
    /// Whether the last field is kept, and its continuations with it.
    in_kept: bool,
    /// The fields that are kept, as they came.
    kept: Vec<u8>,
    received_hops: usize,
}

/// Whether anybody asks what a message is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeps {
    /// Message-ID and From.
    Names,
    /// Nothing: only hops are counted.
    Nothing,
}

/// Longest Message-ID kept, in characters.
const MESSAGE_ID_MAX: usize = 250;
/// Longest address kept, in characters.
const FROM_MAX: usize = 254;
/// Octets of a line that are looked at.
const LINE_MAX: usize = 2048;
/// Octets of all fields that are kept.
const KEPT_MAX: usize = 4096;

impl HeaderScan {
    /// At the first octet of a message.
    pub fn new(keeps: Keeps) -> Self {
        Self { keeps, octets: 0, line: Vec::new(), lines: 0, in_kept: false, kept: Vec::new(), received_hops: 0 }
    }

    /// Octets that are kept.
    pub fn octets_held(&self) -> usize {
        self.line.len() + self.kept.len()
    }

    /// Feeds the next piece. After `Done` or `TooLarge` there is no more to feed. The section, and the line that shows its
    /// end, must come within `bound` bytes.
    pub fn feed(&mut self, content: &[u8], bound: usize) -> HeaderVerdict {
        let room = (bound + 1).saturating_sub(self.octets);
        let mut rest = &content[..content.len().min(room)];
        self.octets += rest.len();
        while let Some(length) = memchr(b'\n', rest) {
            let (line, behind) = (&rest[..length], &rest[length + 1..]);
            let ended = if self.line.is_empty() {
                self.take_line(line)
            } else {
                let mut whole = std::mem::take(&mut self.line);
                append(&mut whole, line, LINE_MAX);
                self.take_line(&whole)
            };
            if ended {
                return HeaderVerdict::Done(self.facts());
            }
            rest = behind;
        }
        append(&mut self.line, rest, LINE_MAX);
        if self.octets > bound { HeaderVerdict::TooLarge } else { HeaderVerdict::NeedMore }
    }

    /// The message ended before its header section did.
    pub fn finish(mut self) -> HeaderFacts {
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() {
            self.take_line(&line);
        }
        self.facts()
    }

    /// A line without its LF. True if the section ends before it: it is empty, or neither a field nor a continuation.
    fn take_line(&mut self, line: &[u8]) -> bool {
        let line = &line[..line.len().min(LINE_MAX)];
        let first = self.lines == 0;
        self.lines += 1;
        let continues = matches!(line.first(), Some(b' ' | b'\t'));
        match field_name(line) {
            // A mailbox file's separator, which programs that read such files leave there. It is no field, and ends nothing.
            None if first && is_mbox_separator(line) => return false,
            None if continues => {}
            None => return true,
            Some(name) => {
                self.received_hops += usize::from(name.eq_ignore_ascii_case(b"Received"));
                let named = [b"Message-ID".as_slice(), b"From"].iter().any(|kept| name.eq_ignore_ascii_case(kept));
                self.in_kept = named && self.keeps == Keeps::Names;
            }
        }
        if self.in_kept {
            append(&mut self.kept, line, KEPT_MAX);
            append(&mut self.kept, b"\n", KEPT_MAX);
        }
        false
    }

    fn facts(&self) -> HeaderFacts {
        let received_hops = self.received_hops;
        if self.kept.is_empty() {
            return HeaderFacts { received_hops, ..HeaderFacts::default() };
        }
        let parser = MessageParser::new()
            .header_id(HeaderName::MessageId)
            .header_address(HeaderName::From)
            .default_header_ignore();
        let message = parser.parse_headers(&self.kept);
        let message_id = message.as_ref().and_then(|m| m.message_id()).map(|id| printable(id, MESSAGE_ID_MAX));
        let from =
            message.as_ref().and_then(|m| m.from()?.first()?.address()).map(|address| printable(address, FROM_MAX));
        HeaderFacts { received_hops, message_id, from }
    }
}

fn append(kept: &mut Vec<u8>, bytes: &[u8], max: usize) {
    kept.extend_from_slice(&bytes[..bytes.len().min(max.saturating_sub(kept.len()))]);
}

fn is_mbox_separator(line: &[u8]) -> bool {
    line.strip_prefix(b">").unwrap_or(line).starts_with(b"From ")
}

/// The name before the colon, with the white space that obsolete syntax allows there (RFC 5322 section 4.5) taken off.
fn field_name(line: &[u8]) -> Option<&[u8]> {
    let colon = memchr(b':', line)?;
    let name = line[..colon].trim_ascii_end();
    (!name.is_empty() && name.iter().all(u8::is_ascii_graphic)).then_some(name)
}

fn printable(text: &str, max: usize) -> String {
    text.chars().take(max).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn feed(pieces: &[&[u8]], bound: usize) -> Option<HeaderFacts> {
        let mut scan = HeaderScan::new(Keeps::Names);
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
    fn a_mailbox_file_s_separator_hides_no_loop() {
        for line in ["From a@example.org  Fri Nov 25 12:00:00 2026", ">From a@example.org Fri"] {
            let message = format!("{line}\r\n{}\r\n", "Received: x\r\n".repeat(101));
            for cut in [0, 3, 20, 60] {
                let (head, tail) = message.as_bytes().split_at(cut);
                assert_eq!(feed(&[head, tail], 10_000).unwrap().received_hops, 101, "{line} {cut}");
            }
        }
        assert_eq!(feed(&[b"From a\r\nFrom b\r\nReceived: x\r\n\r\n"], 1000).unwrap().received_hops, 0);
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

    #[test]
    fn what_is_kept_is_bounded() {
        let mut scan = HeaderScan::new(Keeps::Names);
        for piece in
            [b"Message-ID: ".as_slice(), &[b'x'; 100_000], b"\r\n", &b"From: a\r\n".repeat(10_000), &[b'y'; 100_000]]
        {
            assert_eq!(scan.feed(piece, 1_000_000), HeaderVerdict::NeedMore);
            assert!(scan.line.capacity() + scan.kept.capacity() <= 8192 + 4096);
        }
        let mut scan = HeaderScan::new(Keeps::Nothing);
        assert_eq!(scan.feed(b"Message-ID: <a@b.example>\r\nReceived: x\r\n", 1000), HeaderVerdict::NeedMore);
        assert_eq!(scan.finish(), HeaderFacts { received_hops: 1, ..HeaderFacts::default() });
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
