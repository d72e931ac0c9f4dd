//! The one look at content: newlines that are not CRLF, and lines that begin with a dot which was not stuffed.
//!
//! Blocks are compared with themselves shifted by one and by two, a loop without branches that the compiler turns into
//! vectors; only a block with something in it is looked at byte by byte.

/// Bytes a block has: dots are counted in a byte.
const BLOCK: usize = 240;

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
                let end = limit.min(self.at + BLOCK).min(content.len() - 1);
                if self.at < end && self.skip_if_plain(content, end) {
                    continue;
                }
                self.odd_until = end.max(self.at + 1);
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
        let before = &content[self.at - 1..end - 1];
        let block = &content[self.at..end];
        let behind = &content[self.at + 1..=end];
        let (odd, stuffed) = if self.dots { survey(before, block, behind) } else { (pairs(before, block), 0) };
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

/// Whether anything in a block must be looked at, and how many stuffed dots begin its lines.
fn survey(before: &[u8], block: &[u8], behind: &[u8]) -> (bool, u8) {
    let (mut odd, mut stuffed) = (0u8, 0u8);
    for ((&before, &byte), &behind) in before.iter().zip(block).zip(behind) {
        let dot = u8::from(before == b'\n') & u8::from(byte == b'.');
        odd |= u8::from(before == b'\r') ^ u8::from(byte == b'\n');
        odd |= dot & u8::from(behind != b'.');
        stuffed = stuffed.wrapping_add(dot);
    }
    (odd != 0, stuffed)
}

/// Whether any CR of a block is not followed by an LF, or any LF not preceded by a CR.
fn pairs(before: &[u8], block: &[u8]) -> bool {
    let mut odd = 0u8;
    for (&before, &byte) in before.iter().zip(block) {
        odd |= u8::from(before == b'\r') ^ u8::from(byte == b'\n');
    }
    odd != 0
}
