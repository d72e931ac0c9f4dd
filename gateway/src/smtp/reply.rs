//! Replies, one or many lines, with enhanced status codes (RFC 5321 section 4.2, RFC 2034).

/// An enhanced status code, `class.subject.detail` (RFC 3463).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnhancedCode(pub u8, pub u16, pub u16);

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
    /// A line is longer than [`LINE_MAX`].
    LineTooLong,
    /// More than [`LINES_MAX`] lines.
    TooManyLines,
    /// The lines of one reply bear different codes.
    MixedCodes,
}

/// Longest reply line accepted, CRLF included, in bytes. RFC 5321 allows 512; servers exceed it with long texts.
pub const LINE_MAX: usize = 2048;
/// Most lines accepted in one reply.
pub const LINES_MAX: usize = 128;

/// Parses the first reply in `input`.
pub fn parse_reply(input: &[u8]) -> ReplyParse<'_> {
    let _ = input;
    todo!()
}

impl<'a> Reply<'a> {
    /// The text of each line behind code and separator, as received.
    pub fn lines(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let _ = self.raw;
        std::iter::empty()
    }

    /// The first digit: 2, 3, 4 or 5.
    pub fn class(&self) -> u8 {
        (self.code / 100) as u8
    }

    /// Writes the reply for the client: the same code and lines, bytes outside printable ASCII (and, with `utf8`, outside
    /// valid UTF-8) replaced by `?`.
    pub fn encode_into(&self, utf8: bool, out: &mut Vec<u8>) {
        let _ = (utf8, out);
        todo!()
    }
}

/// Writes one reply of the gateway's own: a line for each line of `text`, the enhanced code on each.
pub fn encode_reply(code: u16, enhanced: Option<EnhancedCode>, text: &str, out: &mut Vec<u8>) {
    let _ = (code, enhanced, text, out);
    todo!()
}
