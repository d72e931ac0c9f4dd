//! Strict CRLF lines (RFC 5321 section 2.3.8).
//!
//! A line ends at CRLF and nowhere else. A bare CR, a bare LF or a NUL does not end a line and does not vanish: the whole
//! line, up to its CRLF, is faulty, so that the gateway and whoever reads after it can never disagree about where a
//! command began.

use memchr::{memchr, memchr3, memmem};

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
    /// No CRLF yet, and the limit is passed: these bytes can be forgotten, and everything up to the next CRLF with them
    /// (see [`skip_line`]). A CR at the very end is not counted: it may be half of the CRLF.
    Overlong {
        /// Bytes of input that may be discarded now.
        used: usize,
    },
}

/// Splits the first line off `input`. `max` is the longest line allowed in bytes, CRLF included.
pub fn split_line(input: &[u8], max: usize) -> Line<'_> {
    let Some(length) = find_crlf(input) else {
        // One byte more than `max` with a CR at its end may still become a line of `max` + 1: too long all the same.
        return if input.len() > max { Line::Overlong { used: without_last_cr(input) } } else { Line::Incomplete };
    };
    let used = length + 2;
    if used > max {
        return Line::Faulty { fault: LineFault::TooLong, used };
    }
    let text = &input[..length];
    match memchr3(b'\r', b'\n', 0, text).map(|at| text[at]) {
        None => Line::Complete { text, used },
        Some(b'\r') => Line::Faulty { fault: LineFault::BareCr, used },
        Some(b'\n') => Line::Faulty { fault: LineFault::BareLf, used },
        Some(_) => Line::Faulty { fault: LineFault::Nul, used },
    }
}

/// Continues behind [`Line::Overlong`]: how many bytes to discard, and whether the line's CRLF was among them.
pub fn skip_line(input: &[u8]) -> (usize, bool) {
    match find_crlf(input) {
        Some(at) => (at + 2, true),
        None => (without_last_cr(input), false),
    }
}

/// Where the first CRLF begins. A command line is short, so its LF is looked for, not the pair.
fn find_crlf(input: &[u8]) -> Option<usize> {
    match memchr(b'\n', input) {
        None => None,
        Some(at) if at > 0 && input[at - 1] == b'\r' => Some(at - 1),
        Some(_) => memmem::find(input, b"\r\n"),
    }
}

fn without_last_cr(input: &[u8]) -> usize {
    input.len() - usize::from(input.last() == Some(&b'\r'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn splits_and_faults() {
        let table: &[(&[u8], Line<'_>)] = &[
            (b"NOOP\r\nQUIT\r\n", Line::Complete { text: b"NOOP", used: 6 }),
            (b"\r\n", Line::Complete { text: b"", used: 2 }),
            (b"", Line::Incomplete),
            (b"NOOP", Line::Incomplete),
            (b"NOOP\r", Line::Incomplete),
            (b"NOOP\n", Line::Incomplete),
            (b"A\nB\r\n", Line::Faulty { fault: LineFault::BareLf, used: 5 }),
            (b"\nB\r\n", Line::Faulty { fault: LineFault::BareLf, used: 4 }),
            (b"A\rB\r\n", Line::Faulty { fault: LineFault::BareCr, used: 5 }),
            (b"A\r\r\n", Line::Faulty { fault: LineFault::BareCr, used: 4 }),
            (b"A\0B\r\n", Line::Faulty { fault: LineFault::Nul, used: 5 }),
            (b"12345678\r\n", Line::Complete { text: b"12345678", used: 10 }),
            (b"123456789\r\n", Line::Faulty { fault: LineFault::TooLong, used: 11 }),
            (b"1234567890\r", Line::Overlong { used: 10 }),
            (b"12345678901", Line::Overlong { used: 11 }),
            (b"123456789\r", Line::Incomplete),
        ];
        for (input, expected) in table {
            assert_eq!(&split_line(input, 10), expected, "{:?}", String::from_utf8_lossy(input));
        }
    }

    /// Reads a stream in pieces, as a driver does; each line's text, or its fault.
    fn read(pieces: &[&[u8]]) -> Vec<Result<Vec<u8>, LineFault>> {
        let (mut buffer, mut lines, mut skipping) = (Vec::new(), Vec::new(), false);
        for piece in pieces {
            buffer.extend_from_slice(piece);
            loop {
                let used = if skipping {
                    let (used, ended) = skip_line(&buffer);
                    if ended {
                        lines.push(Err(LineFault::TooLong));
                    }
                    skipping = !ended;
                    if used == 0 { break } else { used }
                } else {
                    match split_line(&buffer, 10) {
                        Line::Incomplete => break,
                        Line::Complete { text, used } => {
                            lines.push(Ok(text.to_vec()));
                            used
                        }
                        Line::Faulty { fault, used } => {
                            lines.push(Err(fault));
                            used
                        }
                        Line::Overlong { used } => {
                            skipping = true;
                            used
                        }
                    }
                };
                buffer.drain(..used);
            }
        }
        lines
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_lines(stream in "[ab\r\n\0]{0,60}", cuts in proptest::collection::vec(0usize..60, 0..6)) {
            let bytes = stream.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
            prop_assert_eq!(read(&[bytes]), read(&pieces));
        }
    }
}
