//! The slow way, for content with bare newlines: each becomes CRLF, and what would be mistaken for an end is stuffed.

use memchr::memchr2;

use super::smuggling::{self, Command};
use super::{BodyFault, BodyTranscoder, Framing, More, Position, Step, TERMINATOR};

/// A newline as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Newline {
    /// CRLF.
    Strict,
    /// CR CR LF, as programs write that turn each LF of CRLF into CRLF: one line's end, and its last two octets are one.
    Doubled,
    /// A CR or an LF alone.
    Bare,
}

impl Newline {
    /// The newline at the head of `rest`, and its length.
    fn read(rest: &[u8]) -> (Self, usize) {
        match rest {
            [b'\r', b'\n', ..] => (Self::Strict, 2),
            [b'\r', b'\r', b'\n', ..] => (Self::Doubled, 3),
            _ => (Self::Bare, 1),
        }
    }
}

impl BodyTranscoder {
    /// Writes what is consumed of the first `limit` bytes into `spill`.
    pub(super) fn rewrite(&mut self, input: &[u8], limit: usize, more: More, spill: &mut Vec<u8>) -> Step {
        let step = |used| Step { used, content: 0..0, terminator: 0..0, fault: None };
        let mut at = 0;
        while at < limit {
            if self.after_look_alike {
                // A newline behind the limit, which is not judged yet, ends a command all the same.
                match smuggling::command(&input[at..]) {
                    Command::Yes if at == 0 => return self.break_off(input, BodyFault::Smuggling),
                    Command::Yes => break,
                    Command::Undecided if more == More::MayCome => break,
                    Command::No | Command::Undecided => self.after_look_alike = false,
                }
            }
            if self.framing == Framing::Dots
                && self.position == Position::LineStart
                && input[at..].starts_with(TERMINATOR)
            {
                let used = at + TERMINATOR.len();
                return Step { terminator: at..used, ..step(used) };
            }
            at = self.rewrite_line(input, at, limit, spill);
        }
        step(at)
    }

    /// The rest of a line with its newline, as far as it goes; where that ends.
    fn rewrite_line(&mut self, input: &[u8], start: usize, limit: usize, spill: &mut Vec<u8>) -> usize {
        let begun = self.position;
        let dot = begun != Position::InLine && input[start] == b'.';
        let mut from = start;
        if dot && self.framing == Framing::Dots {
            // A dot behind CRLF was stuffed; one behind a bare newline is content. What then begins the line is stuffed here.
            from += usize::from(begun == Position::LineStart);
            if input.get(from) == Some(&b'.') {
                spill.push(b'.');
            }
        }
        let text_end = memchr2(b'\r', b'\n', &input[from..limit]).map(|length| from + length);
        let text = &input[from..text_end.unwrap_or(limit)];
        spill.extend_from_slice(text);
        self.content_octets += text.len() as u64;
        let Some(text_end) = text_end else {
            self.position = Position::InLine;
            return limit;
        };
        let (newline, length) = Newline::read(&input[text_end..]);
        spill.extend_from_slice(b"\r\n");
        self.content_octets += 2;
        self.position = if newline == Newline::Bare { Position::AfterBareNewline } else { Position::LineStart };
        let alone = dot && text_end == start + 1;
        self.after_look_alike = alone && (begun == Position::AfterBareNewline || newline != Newline::Strict);
        text_end + length
    }
}
