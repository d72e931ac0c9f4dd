//! The body of DATA: where it ends, and what it is without its dot-stuffing.
//!
//! Only CRLF.CRLF ends it. Long stretches are found by a vector search for CRLF-dot; the state carries the few bytes
//! around it over the borders of reads.

use std::sync::LazyLock;

use memchr::memmem::Finder;

/// What precedes each dot that means something.
static DOT_LINE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\r\n."));

/// How far an end of data has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dots {
    /// At the start of a line, which the body's first byte is.
    LineStart,
    /// Within a line.
    Within,
    /// After a CR.
    Cr,
    /// After a dot at the start of a line, held back.
    Dot,
    /// After a dot and a CR, both held back.
    DotCr,
}

impl Dots {
    /// Hands the body's bytes to `keep`. Returns how many bytes of `input` belong to the data, and whether it has ended;
    /// unless it has, that is all of them.
    pub(super) fn take(&mut self, input: &[u8], mut keep: impl FnMut(&[u8])) -> (usize, bool) {
        let mut at = 0;
        while let Some(&byte) = input.get(at) {
            match (*self, byte) {
                (Self::Within, _) => {
                    let rest = &input[at..];
                    match DOT_LINE.find(rest) {
                        Some(found) => {
                            keep(&rest[..found + 2]);
                            at += found + 3;
                            *self = Self::Dot;
                        }
                        None => {
                            keep(rest);
                            at = input.len();
                            *self = Self::after(rest);
                        }
                    }
                }
                (Self::LineStart, b'.') => {
                    at += 1;
                    *self = Self::Dot;
                }
                (Self::Cr, b'\n') => {
                    keep(b"\n");
                    at += 1;
                    *self = Self::LineStart;
                }
                (Self::Cr, b'\r') => {
                    keep(b"\r");
                    at += 1;
                }
                (Self::Dot, b'\r') => {
                    at += 1;
                    *self = Self::DotCr;
                }
                (Self::DotCr, b'\n') => return (at + 1, true),
                (Self::DotCr, _) => {
                    keep(b"\r");
                    *self = Self::Cr;
                }
                (Self::LineStart | Self::Cr | Self::Dot, _) => *self = Self::Within,
            }
        }
        (at, false)
    }

    /// The state after `bytes`, which hold no end and are not empty.
    fn after(bytes: &[u8]) -> Self {
        match bytes {
            [.., b'\r', b'\n'] => Self::LineStart,
            [.., b'\r'] => Self::Cr,
            _ => Self::Within,
        }
    }
}
