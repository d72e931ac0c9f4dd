//! Message bodies as chunk-to-chunk transcoders (RFC 5321 section 4.5.2; RFC 3030 section 2).
//!
//! The body never becomes lines or events: a chunk comes in, and the same bytes, almost always where they lie, go on to
//! the backend. Only CRLF.CRLF ends data; every look-alike is content. One transcoder serves DATA and BDAT, so that there is
//! one rule for both; they differ in whether dots are stuffed and who says where the message ends.
//!
//! Cost decides the shape. A chunk is looked at once, many bytes at a time (`scan`): for newlines that are not CRLF, and for
//! lines whose dot must be taken off or may end the message. A dot that was stuffed as it should be is no event at all.
//! Nothing is copied unless something must change: in place where it shrinks, spilled where it may grow.
//!
//! What cannot be decided yet is left to the caller, who hands it in again with more behind it; so no state hides between
//! two chunks but where in a line the last one ended. A step ends before a fault, so that how a message is packed does not
//! decide which of its faults is seen.

mod rewrite;
mod scan;
mod smuggling;

use std::ops::Range;

use memchr::{memmem, memrchr};

use scan::Scanner;

/// How the client tells where its message ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// By CRLF.CRLF; a dot that begins a line is stuffed (DATA).
    Dots,
    /// By counting octets; a dot is a dot (BDAT).
    Octets,
}

/// What is allowed in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyRules {
    /// Longest line in bytes, CRLF included; none: as long as the message may be.
    pub line_max: Option<usize>,
    /// What becomes of a bare CR or LF.
    pub bare_newline: BareNewlineRule,
}

/// What becomes of a bare CR or LF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BareNewlineRule {
    /// The message is faulty.
    Reject,
    /// Each becomes CRLF, and so does CR CR LF. A dot behind it is content.
    Normalize,
}

/// What is wrong with a body. Its end is still looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFault {
    /// A CR that no LF follows.
    BareCr,
    /// An LF that no CR precedes.
    BareLf,
    /// A line longer than [`BodyRules::line_max`].
    LineTooLong,
    /// A line with nothing but a dot, begun or ended by a bare newline, and a command behind it: a server that ends data
    /// there would take what follows for a message of its own.
    Smuggling,
}

/// What one step did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Bytes of input consumed. The rest must be handed in again: at once if any were, with more behind it if none were
    /// (then at most [`UNDECIDED_MAX`] are left).
    pub used: usize,
    /// The part of the input that is content to send on, as it now stands there. What is in `spill` precedes it.
    pub content: Range<usize>,
    /// Where the terminator stands that was consumed: behind the content, and still to be sent. Empty before the end.
    pub terminator: Range<usize>,
    /// A fault, in the step that meets it. Nothing is sent on from the first on; a later one can only be
    /// [`BodyFault::Smuggling`].
    pub fault: Option<BodyFault>,
}

impl Step {
    /// Whether the message is over.
    pub fn ends(&self) -> bool {
        !self.terminator.is_empty()
    }

    /// Content and terminator as one range: they lie side by side.
    pub fn forward(&self) -> Range<usize> {
        match (self.content.is_empty(), self.terminator.is_empty()) {
            (_, true) => self.content.clone(),
            (true, false) => self.terminator.clone(),
            (false, false) => self.content.start..self.terminator.end,
        }
    }
}

/// Most bytes that a step may leave over.
pub const UNDECIDED_MAX: usize = smuggling::UNDECIDED_MAX;

const TERMINATOR: &[u8] = b".\r\n";

/// Where in a line the consumed bytes end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    /// Behind CRLF, or at the message's first octet.
    LineStart,
    /// Behind a bare newline.
    AfterBareNewline,
    /// Behind anything else.
    InLine,
}

/// Whether anything can follow a step's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum More {
    MayCome,
    Never,
}

/// A message on its way from its first octet to its end.
#[derive(Debug, Clone)]
pub struct BodyTranscoder {
    framing: Framing,
    position: Position,
    /// The bytes consumed so far end in a look-alike of the end of data.
    after_look_alike: bool,
    /// What is left undecided would be the end for who takes a bare CR for a newline.
    at_look_alike: bool,
    broken: Option<BodyFault>,
    /// Bytes since the last LF, where lines are limited.
    line_length: usize,
    content_octets: u64,
}

impl BodyTranscoder {
    /// At the first octet of a message.
    pub fn new(framing: Framing) -> Self {
        Self {
            framing,
            position: Position::LineStart,
            after_look_alike: false,
            at_look_alike: false,
            broken: None,
            line_length: 0,
            content_octets: 0,
        }
    }

    /// Octets of content so far, without stuffed dots and terminator.
    pub fn content_octets(&self) -> u64 {
        self.content_octets
    }

    /// Whether the client may believe that it has ended its message: the last line it sent holds nothing but a dot, and is
    /// begun or ended by a bare newline.
    pub fn seems_over(&self) -> bool {
        self.after_look_alike || self.at_look_alike
    }

    /// Transcodes the head of `input`, in place. `spill` receives the output where it may be longer than its input, which
    /// only [`BareNewlineRule::Normalize`] can bring about.
    pub fn step(&mut self, input: &mut [u8], rules: &BodyRules, spill: &mut Vec<u8>) -> Step {
        self.take(input, More::MayCome, rules, spill)
    }

    /// The same for the last octets of a counted message: a step that uses none of them has come to a fault.
    pub fn last_step(&mut self, input: &mut [u8], rules: &BodyRules, spill: &mut Vec<u8>) -> Step {
        self.take(input, More::Never, rules, spill)
    }

    fn take(&mut self, input: &mut [u8], more: More, rules: &BodyRules, spill: &mut Vec<u8>) -> Step {
        let decided = match more {
            More::MayCome => input.len() - undecided(self.position, input),
            More::Never => input.len(),
        };
        let too_long_at = rules.line_max.and_then(|max| too_long_at(&input[..decided], self.line_length, max));
        let limit = too_long_at.unwrap_or(decided);
        let mut counted = rules.line_max.is_none();
        let step = match self.broken {
            Some(BodyFault::LineTooLong | BodyFault::Smuggling) => self.skip(input, None),
            Some(BodyFault::BareCr | BodyFault::BareLf) => self.watch_on(input, decided, more, spill),
            None if limit == 0 && too_long_at.is_some() => self.break_off(input, BodyFault::LineTooLong),
            None => match self.bare_newline_at_once(input, limit) {
                Some(fault) if rules.bare_newline == BareNewlineRule::Reject => {
                    self.broken = Some(fault);
                    let step = self.watch_on(input, decided, more, spill);
                    Step { fault: Some(fault), ..step }
                }
                Some(_) => self.rewrite(input, limit, more, spill),
                None if self.position == Position::AfterBareNewline || self.after_look_alike => {
                    self.rewrite(input, limit, more, spill)
                }
                None => {
                    // Where it takes dots off, it must count before it does.
                    let counts = !std::mem::replace(&mut counted, true);
                    self.pass(input, limit, counts)
                }
            },
        };
        if !counted {
            self.line_length = line_length_behind(self.line_length, &input[..step.used]);
        }
        self.at_look_alike =
            self.position == Position::AfterBareNewline && matches!(&input[step.used..], b".\r" | b".\r\r");
        step
    }

    /// The newline at the head of what is decided, if it is bare; so is one behind a dot that makes a line of its own.
    fn bare_newline_at_once(&self, input: &[u8], limit: usize) -> Option<BodyFault> {
        let dot = self.position != Position::InLine && input[..limit].first() == Some(&b'.');
        match input[usize::from(dot).min(limit)..limit] {
            [b'\n', ..] => Some(BodyFault::BareLf),
            [b'\r', b'\n', ..] => None,
            [b'\r', ..] => Some(BodyFault::BareCr),
            _ => None,
        }
    }

    /// Content as it should be, in place: dots that were not stuffed are taken off, and everything up to the first bare
    /// newline is passed.
    fn pass(&mut self, input: &mut [u8], limit: usize, counts: bool) -> Step {
        let dots = self.framing == Framing::Dots;
        let mut scanner = Scanner::new(dots, self.position == Position::LineStart);
        let (mut kept, mut from) = (0, 0);
        let (until, end) = loop {
            let Some(at) = scanner.next(input, limit) else { break (limit, false) };
            if dots && input[at] == b'.' && is_line_start(input, at, self.position) {
                if input[at..].starts_with(TERMINATOR) {
                    break (at, true);
                }
                if matches!(input.get(at + 1), Some(b'\r' | b'\n')) {
                    break (at, false);
                }
                input.copy_within(from..at, kept);
                kept += at - from;
                from = at + 1;
            } else {
                let alone = !dots && at > 0 && input[at - 1] == b'.' && is_line_start(input, at - 1, self.position);
                break (at - usize::from(alone), false);
            }
        };
        if counts {
            // Behind a dot that was taken off, its line has one octet so far.
            let before = if from > 0 { 1 } else { self.line_length };
            self.line_length = line_length_behind(before, &input[from..until]);
        }
        if kept != from {
            input.copy_within(from..until, kept);
        }
        kept += until - from;
        self.content_octets += (kept - scanner.stuffed()) as u64;
        self.position = position_behind(&input[..kept], self.position, from > 0 && from == until);
        let mut terminator = kept..kept;
        let mut used = until;
        if end {
            used += TERMINATOR.len();
            input.copy_within(until..used, kept);
            terminator = kept..kept + TERMINATOR.len();
        }
        Step { used, content: 0..kept, terminator, fault: None }
    }

    /// From a fault on that is told, not even an attempt counts: only the end is looked for.
    fn break_off(&mut self, input: &[u8], fault: BodyFault) -> Step {
        self.broken = Some(fault);
        self.after_look_alike = false;
        self.skip(input, Some(fault))
    }

    fn skip(&mut self, input: &[u8], fault: Option<BodyFault>) -> Step {
        let nothing = |used| Step { used, content: 0..0, terminator: 0..0, fault };
        if self.framing == Framing::Octets {
            return nothing(input.len());
        }
        let at_once = self.position == Position::LineStart && input.starts_with(TERMINATOR);
        let end = if at_once { Some(0) } else { memmem::find(input, b"\r\n.\r\n").map(|at| at + 2) };
        if let Some(at) = end {
            let used = at + TERMINATOR.len();
            return Step { terminator: at..used, ..nothing(used) };
        }
        let used = input.len() - undecided(self.position, input);
        self.position = position_behind(&input[..used], self.position, false);
        nothing(used)
    }

    /// A message that is refused for its newlines is read on as if it were not: it may prove to be an attempt.
    fn watch_on(&mut self, input: &mut [u8], decided: usize, more: More, spill: &mut Vec<u8>) -> Step {
        let (mark, counted) = (spill.len(), self.content_octets);
        let mut step = self.rewrite(input, decided, more, spill);
        spill.truncate(mark);
        self.content_octets = counted;
        step.content = 0..0;
        step
    }
}

/// How many bytes at the end can only be judged with what follows them: CRs, and a dot that begins a line.
fn undecided(position: Position, input: &[u8]) -> usize {
    for tail in [b".\r\r".as_slice(), b".\r", b"."] {
        if let Some(head) = input.strip_suffix(tail)
            && begins_line(head, position)
        {
            return tail.len();
        }
    }
    input.iter().rev().take(2).take_while(|&&byte| byte == b'\r').count()
}

/// Whether a line, by whatever newline, begins behind `head`.
fn begins_line(head: &[u8], position: Position) -> bool {
    match head.last() {
        None => position != Position::InLine,
        Some(last) => matches!(last, b'\r' | b'\n'),
    }
}

/// Whether a line begins at `at`, where all newlines before are CRLF.
fn is_line_start(input: &[u8], at: usize, position: Position) -> bool {
    if at == 0 { position == Position::LineStart } else { input[at - 1] == b'\n' }
}

/// The position behind `content`, in which all newlines are CRLF. `dot_taken`: the last byte consumed was a dot that is none of it.
fn position_behind(content: &[u8], position: Position, dot_taken: bool) -> Position {
    match content {
        _ if dot_taken => Position::InLine,
        [] => position,
        _ if content.ends_with(b"\r\n") => Position::LineStart,
        _ => Position::InLine,
    }
}

/// Where the first line grows too long, by leaping from LF to LF as far as the limit allows. A CR and its LF stay together.
fn too_long_at(content: &[u8], line_length: usize, max: usize) -> Option<usize> {
    let (mut start, mut length) = (0, line_length);
    loop {
        let rest = &content[start..];
        let allowed = max.saturating_sub(length);
        if rest.len() <= allowed {
            return None;
        }
        match memrchr(b'\n', &rest[..allowed]) {
            Some(at) => start += at + 1,
            None => {
                let at = start + allowed;
                let splits_pair = content[..at].ends_with(b"\r") && content[at..].starts_with(b"\n");
                return Some(at - usize::from(splits_pair));
            }
        }
        length = 0;
    }
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
