//! The one look at content: newlines that are not CRLF, and lines that begin with a dot which was not stuffed.
//!
//! Blocks are compared with themselves shifted by one and by two, a loop without branches that the compiler turns into
//! vectors, as wide as the processor has them; only a piece of a block with something in it is looked at byte by byte.

use multiversion::multiversion;

/// Bytes looked at together. Stuffed dots, of which each begins a line, are counted in a byte.
const BLOCK: usize = 512;
/// Bytes that one step of the loop compares, and a piece of a block has.
const LANES: usize = 64;

/// Goes through content, from one thing to be looked at to the next.
#[derive(Debug)]
pub(super) struct Scanner {
    dots: bool,
    /// Everything before was looked at. A byte is looked at together with the one before it and the one behind.
    at: usize,
    /// The block up to here is not plain.
    odd_until: usize,
    stuffed: usize,
    at_line_start: bool,
}

impl Scanner {
    /// `dots`: dots that begin lines matter. `at_line_start`: the content's first byte begins a line.
    pub(super) fn new(dots: bool, at_line_start: bool) -> Self {
        Self { dots, at: 0, odd_until: 0, stuffed: 0, at_line_start: dots && at_line_start }
    }

    /// Dots passed over because they are stuffed.
    pub(super) fn stuffed(&self) -> usize {
        self.stuffed
    }

    /// Where before `limit` the next bare CR or LF stands, or the next dot that begins a line and is not stuffed. What
    /// stands behind `limit` is seen, not judged. The caller may change what lies before the last answer.
    pub(super) fn next(&mut self, content: &[u8], limit: usize) -> Option<usize> {
        if limit == 0 {
            return None;
        }
        if self.at == 0 {
            self.at = 1;
            if content[0] == b'\n' {
                return Some(0);
            }
            if self.at_line_start && content[0] == b'.' {
                if content.get(1) != Some(&b'.') {
                    return Some(0);
                }
                self.stuffed += 1;
            }
        }
        while self.at < limit {
            if self.at >= self.odd_until {
                // The last byte of all has none behind it, and is looked at by itself.
                let end = limit.min(content.len() - 1);
                let piece = end.min(self.at + LANES);
                if self.skip_if_plain(content, end.min(self.at + BLOCK)) || self.skip_if_plain(content, piece) {
                    continue;
                }
                self.odd_until = piece.max(self.at + 1);
            }
            let at = self.at;
            self.at += 1;
            if let Some(found) = self.look(content, at) {
                return Some(found);
            }
        }
        // Of the last byte before the limit, a CR, only its follower tells what it is.
        let bare = self.at == limit && content[limit - 1] == b'\r' && content.get(limit) != Some(&b'\n');
        self.at = limit + 1;
        bare.then(|| limit - 1)
    }

    fn skip_if_plain(&mut self, content: &[u8], end: usize) -> bool {
        if self.at >= end {
            return false;
        }
        let (odd, stuffed) =
            survey(&content[self.at - 1..end - 1], &content[self.at..end], &content[self.at + 1..=end], self.dots);
        if !odd {
            self.stuffed += usize::from(stuffed);
            self.at = end;
        }
        !odd
    }

    fn look(&mut self, content: &[u8], at: usize) -> Option<usize> {
        match (content[at - 1], content[at]) {
            (b'\r', b'\n') => None,
            (b'\r', _) => Some(at - 1),
            (_, b'\n') => Some(at),
            (b'\n', b'.') if self.dots => match content.get(at + 1) {
                Some(b'.') => {
                    self.stuffed += 1;
                    None
                }
                _ => Some(at),
            },
            _ => None,
        }
    }
}

/// Whether anything in a block must be looked at, and how many stuffed dots begin its lines, if dots matter.
#[multiversion(targets("x86_64+avx2"))]
fn survey(before: &[u8], block: &[u8], behind: &[u8], dots: bool) -> (bool, u8) {
    let (mut odd, mut stuffed) = ([0u8; LANES], [0u8; LANES]);
    let (before, before_rest) = before.as_chunks::<LANES>();
    let (block, block_rest) = block.as_chunks::<LANES>();
    let (behind, behind_rest) = behind.as_chunks::<LANES>();
    for ((before, block), behind) in before.iter().zip(block).zip(behind) {
        for lane in 0..LANES {
            let (is_odd, is_stuffed) = judge(before[lane], block[lane], behind[lane], dots);
            odd[lane] |= is_odd;
            stuffed[lane] += is_stuffed;
        }
    }
    for (lane, ((&before, &byte), &behind)) in before_rest.iter().zip(block_rest).zip(behind_rest).enumerate() {
        let (is_odd, is_stuffed) = judge(before, byte, behind, dots);
        odd[lane] |= is_odd;
        stuffed[lane] += is_stuffed;
    }
    (
        odd.iter().fold(0, |all, odd| all | odd) != 0,
        stuffed.iter().fold(0, |all: u8, stuffed| all.wrapping_add(*stuffed)),
    )
}

/// 1 where a byte is a bare newline or behind one, or a dot that begins a line and no other follows; 1 where it is one that is
/// followed.
#[inline(always)]
fn judge(before: u8, byte: u8, behind: u8, dots: bool) -> (u8, u8) {
    let bare = u8::from(before == b'\r') ^ u8::from(byte == b'\n');
    let dot = u8::from(before == b'\n') & u8::from(byte == b'.') & u8::from(dots);
    let alone = dot & u8::from(behind != b'.');
    (bare | alone, dot)
}
