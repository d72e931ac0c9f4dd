//! Strict CRLF lines (RFC 5321 section 2.3.8).
//!
//! A line ends at CRLF and nowhere else. A bare CR, a bare LF or a NUL does not end a line and does not vanish: the whole
//! line, up to its CRLF, is faulty, so that the gateway and whoever reads after it can never disagree about where a
//! command began.

/// Why a line cannot be used. The line is consumed through its CRLF all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineFault {
    /// A CR that no LF follows.
    BareCr,
    /// An LF that no CR precedes.
    BareLf,
    /// A NUL byte.
    Nul,
    /// More bytes, CRLF included, than the limit allows.
    TooLong,
}

/// What stands at the head of the input.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// A line without its CRLF; `used` bytes of the input belong to it.
    Complete {
        /// The line's bytes, CRLF excluded.
        text: &'a [u8],
        /// Bytes of input consumed, CRLF included.
        used: usize,
    },
    /// A line that broke a rule, complete through its CRLF.
    Faulty {
        /// The first rule broken.
        fault: LineFault,
        /// Bytes of input consumed, CRLF included.
        used: usize,
    },
    /// No CRLF yet, and the limit is not reached: keep the bytes and read more.
    Incomplete,
    /// No CRLF yet, and the limit is passed: the bytes can be forgotten, and everything up to the next CRLF with them
    /// (see [`skip_line`]). A trailing CR is not included in `used`: it may be half of the CRLF.
    Overlong {
        /// Bytes of input that may be discarded now.
        used: usize,
    },
}

/// Splits the first line off `input`. `max` is the longest line allowed in bytes, CRLF included.
pub fn split_line(input: &[u8], max: usize) -> Line<'_> {
    let _ = (input, max);
    todo!()
}

/// Continues behind [`Line::Overlong`]: `(bytes to discard, whether the CRLF was among them)`.
pub fn skip_line(input: &[u8]) -> (usize, bool) {
    let _ = input;
    todo!()
}
