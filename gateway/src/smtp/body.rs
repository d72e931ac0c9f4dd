//! Message bodies as chunk-to-chunk transcoders (RFC 5321 section 4.5.2).
//!
//! The body never becomes lines or events: a chunk comes in, and the same bytes, almost always where they lie, go on to
//! the backend, dot-stuffed by our own rule. Only CRLF.CRLF ends data; every look-alike is body or a fault.
//!
//! Cost decides the shape. A clean chunk is looked at four times, each time many bytes at once: for the end of data, for
//! bare newlines, for lines that are too long, for lines that begin with a dot. Nothing is copied. The rare chunk that
//! needs a change is changed in place where it shrinks, and spilled where it grows.
//!
//! What cannot be decided yet (at most a CR, a line's first dot, or both) is left to the caller, who hands it in again
//! with more behind it; so no state hides between two chunks but where in a line the last one ended. A step ends before a
//! fault, so that how a message is packed does not decide which of its faults is seen.

use std::ops::Range;

use memchr::{memmem, memrchr};

/// What is allowed in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataOptions {
    /// Longest line in bytes, CRLF included.
    pub text_line_max: usize,
    /// What becomes of a bare CR or LF.
    pub bare_newline: BareNewlineRule,
}

/// What becomes of a bare CR or LF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BareNewlineRule {
    /// The message is faulty.
    Reject,
    /// Each becomes CRLF. A dot behind it is content, and is stuffed.
    Normalize,
}

/// What is wrong with a body. Its end is still looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataFault {
    /// A CR that no LF follows.
    BareCr,
    /// An LF that no CR precedes.
    BareLf,
    /// A line longer than [`DataOptions::text_line_max`].
    LineTooLong,
}

/// What one step did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Bytes of input consumed. The rest must be handed in again: at once if any were, with more behind it if none were
    /// (then at most three are left).
    pub used: usize,
    /// The part of the input to send on as it now stands there; empty if the output is in `spill`, or behind a fault.
    pub forward: Range<usize>,
    /// CRLF.CRLF was consumed; it is the last that is sent on.
    pub end: bool,
    /// The first fault, in the step that meets it. Nothing is sent on from that step on.
    pub fault: Option<DataFault>,
}

/// A message on its way from 354 to CRLF.CRLF.
#[derive(Debug, Clone)]
pub struct DataTranscoder {
    /// The bytes consumed so far end in CRLF, or there are none.
    at_line_start: bool,
    /// What was sent on ends in a CRLF that was a bare newline when it came.
    after_bare_newline: bool,
    faulty: bool,
    /// Bytes since the last LF.
    line_length: usize,
    content_bytes: u64,
}

const TERMINATOR: &[u8] = b".\r\n";

impl Default for DataTranscoder {
    fn default() -> Self {
        Self::new()
    }
}

impl DataTranscoder {
    /// At the first octet behind 354's CRLF.
    pub fn new() -> Self {
        Self { at_line_start: true, after_bare_newline: false, faulty: false, line_length: 0, content_bytes: 0 }
    }

    /// Octets of content so far, without stuffed dots and terminator.
    pub fn content_bytes(&self) -> u64 {
        self.content_bytes
    }

    /// Transcodes the head of `input`, in place. `spill` receives the output where it may be longer than its input, which
    /// only [`BareNewlineRule::Normalize`] can bring about.
    pub fn step(&mut self, input: &mut [u8], options: &DataOptions, spill: &mut Vec<u8>) -> Step {
        let (length, end) = match find_end(self.at_line_start, input) {
            Some(at) => (at, true),
            None => (input.len() - undecided(self.at_line_start, input), false),
        };
        let used = if end { length + TERMINATOR.len() } else { length };
        if self.faulty {
            self.at_line_start = ends_line(&input[..length], self.at_line_start);
            return Step { used, forward: 0..0, end, fault: None };
        }
        // The byte behind the content, if any, is a CR or a dot: neither makes a pair with what precedes it.
        let bare = find_bare_newline(&input[..length]);
        let bare_at = bare.map_or(length, |(at, _)| at);
        let fault = self.find_fault(&input[..length], bare, options);
        match fault {
            None => {
                let forward = self.pass(&mut input[..used], length, bare_at < length, spill);
                Step { used, forward, end, fault: None }
            }
            Some((0, fault)) => {
                self.faulty = true;
                self.at_line_start = ends_line(&input[..length], self.at_line_start);
                Step { used, forward: 0..0, end, fault: Some(fault) }
            }
            // What precedes a fault goes on as if the fault had not come yet.
            Some((at, _)) => {
                self.line_length = line_length_behind(self.line_length, &input[..at]);
                let forward = self.pass(&mut input[..at], at, bare_at < at, spill);
                Step { used: at, forward, end: false, fault: None }
            }
        }
    }

    /// The first fault and where it stands.
    fn find_fault(
        &mut self,
        content: &[u8],
        bare: Option<(usize, DataFault)>,
        options: &DataOptions,
    ) -> Option<(usize, DataFault)> {
        let refused = bare.filter(|_| options.bare_newline == BareNewlineRule::Reject);
        let judged = &content[..refused.map_or(content.len(), |(at, _)| at)];
        match self.measure_lines(judged, options.text_line_max) {
            // A CR and its LF stay together.
            Some(at) => {
                let splits_pair = content[..at].ends_with(b"\r") && content[at..].starts_with(b"\n");
                Some((at - usize::from(splits_pair), DataFault::LineTooLong))
            }
            None => refused,
        }
    }

    /// Checks line lengths by leaping from LF to LF as far as the limit allows; where the first line is too long.
    fn measure_lines(&mut self, content: &[u8], max: usize) -> Option<usize> {
        let (mut start, mut length) = (0, self.line_length);
        loop {
            let rest = &content[start..];
            let allowed = max.saturating_sub(length);
            if rest.len() <= allowed {
                self.line_length = line_length_behind(length, rest);
                return None;
            }
            match memrchr(b'\n', &rest[..allowed]) {
                Some(at) => start += at + 1,
                None => return Some(start + allowed),
            }
            length = 0;
        }
    }

    /// Turns the content at the head of `input`, and the terminator if that stands behind it, into what is sent on: the
    /// range of it, if it is not in `spill`.
    fn pass(&mut self, input: &mut [u8], length: usize, bare: bool, spill: &mut Vec<u8>) -> Range<usize> {
        if bare || self.after_bare_newline {
            self.normalize(&input[..length], spill);
            spill.extend_from_slice(&input[length..]);
            return 0..0;
        }
        let kept = self.restuff(&mut input[..length]);
        if kept != length {
            input.copy_within(length.., kept);
        }
        0..kept + (input.len() - length)
    }

    /// Takes stuffed dots off and puts ours on, which changes only a line whose dot was not stuffed. Returns how many
    /// bytes are left.
    fn restuff(&mut self, content: &mut [u8]) -> usize {
        let (mut kept, mut from, mut dots) = (0, 0, 0);
        let mut dot = if self.at_line_start && content.first() == Some(&b'.') { Some(0) } else { next_dot(content, 0) };
        while let Some(at) = dot {
            dots += 1;
            if content.get(at + 1) != Some(&b'.') {
                if kept != from {
                    content.copy_within(from..at, kept);
                }
                kept += at - from;
                from = at + 1;
            }
            dot = next_dot(content, at + 1);
        }
        if kept != from {
            content.copy_within(from.., kept);
        }
        kept += content.len() - from;
        self.at_line_start = ends_line(&content[..kept], self.at_line_start);
        self.content_bytes += (content.len() - dots) as u64;
        kept
    }

    /// The slow way, for content with bare newlines.
    fn normalize(&mut self, content: &[u8], spill: &mut Vec<u8>) {
        let mut bytes = content.iter().copied().peekable();
        let mut line_begins = self.at_line_start || self.after_bare_newline;
        while let Some(byte) = bytes.next() {
            let newline = match byte {
                b'\r' => Some(bytes.next_if_eq(&b'\n').is_some()),
                b'\n' => Some(false),
                _ => None,
            };
            if let Some(strict) = newline {
                spill.extend_from_slice(b"\r\n");
                self.content_bytes += 2;
                (self.at_line_start, self.after_bare_newline, line_begins) = (strict, !strict, true);
                continue;
            }
            let stuffed = byte == b'.' && self.at_line_start;
            self.at_line_start = false;
            self.after_bare_newline = false;
            if stuffed {
                // Ours is put on when the next byte turns out to be a dot; a newline cannot follow, that would be the end
                // or a bare newline behind nothing.
                continue;
            }
            if byte == b'.' && line_begins {
                spill.push(b'.');
            }
            line_begins = false;
            spill.push(byte);
            self.content_bytes += 1;
        }
        self.after_bare_newline |= line_begins && !self.at_line_start;
    }
}

/// Where the terminating dot stands.
fn find_end(at_line_start: bool, input: &[u8]) -> Option<usize> {
    if at_line_start && input.starts_with(TERMINATOR) {
        return Some(0);
    }
    memmem::find(input, b"\r\n.\r\n").map(|at| at + 2)
}

/// How many bytes at the end may be a part of CRLF.CRLF whose rest has not come.
fn undecided(at_line_start: bool, input: &[u8]) -> usize {
    for tail in [b".\r".as_slice(), b"."] {
        if input.strip_suffix(tail).is_some_and(|head| ends_line(head, at_line_start)) {
            return tail.len();
        }
    }
    usize::from(input.last() == Some(&b'\r'))
}

/// Whether a line begins behind `content`.
fn ends_line(content: &[u8], at_line_start: bool) -> bool {
    if content.is_empty() { at_line_start } else { content.ends_with(b"\r\n") }
}

/// The next dot at or behind `from` that begins a line. All newlines are known to be CRLF.
fn next_dot(content: &[u8], from: usize) -> Option<usize> {
    memmem::find(&content[from..], b"\n.").map(|at| from + at + 1)
}

/// The first bare CR or LF. A clean chunk is proved clean by comparing it with itself shifted by one, a loop that the
/// compiler turns into vectors: a CR exactly where an LF follows.
fn find_bare_newline(content: &[u8]) -> Option<(usize, DataFault)> {
    const BLOCK: usize = 1024;
    let (Some(&first), Some(&last)) = (content.first(), content.last()) else { return None };
    if first == b'\n' {
        return Some((0, DataFault::BareLf));
    }
    let following = &content[1..];
    for (index, (block, shifted)) in content[..following.len()].chunks(BLOCK).zip(following.chunks(BLOCK)).enumerate() {
        let mut clean = true;
        for (&byte, &next) in block.iter().zip(shifted) {
            clean &= (byte == b'\r') == (next == b'\n');
        }
        if !clean {
            return first_bare_newline(block, shifted).map(|(at, fault)| (index * BLOCK + at, fault));
        }
    }
    (last == b'\r').then_some((content.len() - 1, DataFault::BareCr))
}

fn first_bare_newline(block: &[u8], shifted: &[u8]) -> Option<(usize, DataFault)> {
    let mut pairs = block.iter().zip(shifted).enumerate();
    pairs.find_map(|(at, (&byte, &next))| match (byte == b'\r', next == b'\n') {
        (true, false) => Some((at, DataFault::BareCr)),
        (false, true) => Some((at + 1, DataFault::BareLf)),
        _ => None,
    })
}

/// Bytes since the last LF, if there were `before` when `content` began.
fn line_length_behind(before: usize, content: &[u8]) -> usize {
    match memrchr(b'\n', content) {
        Some(at) => content.len() - at - 1,
        None => before + content.len(),
    }
}

#[cfg(test)]
mod tests;
