//! Faults: what is wrong, where, and what to write instead; all of them, in the order of the file.
//!
//! A [`Fault`] carries its source line, so that it can be shown after the text is gone. What it quotes is shortened and
//! freed of control characters: a file is no reason to move the cursor of whoever reads the complaint.

use std::fmt;
use std::ops::Range;

/// Bytes of the text, from the first to behind the last.
pub(super) type Span = Range<usize>;

/// Characters of a source line that are shown.
const LINE_SHOWN_MAX: usize = 160;
/// Characters of a quoted value that are shown.
const VALUE_SHOWN_MAX: usize = 80;
/// Faults that are listed; of more, only the number is told.
const FAULTS_MAX: usize = 1000;

/// One fault of a configuration, with its place and its mend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The file as the caller named it.
    pub file: String,
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1, in characters.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: String,
    excerpt: Option<Excerpt>,
}

/// A source line and what is underlined in it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Excerpt {
    line: String,
    /// Under the line: white space, then carets.
    carets: String,
}

impl Fault {
    /// What was found at this place later.
    pub fn found(self, message: String, help: String) -> Self {
        Self { message, help, ..self }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, message, help, excerpt } = self;
        writeln!(f, "{file}:{line}:{column}: error: {message}")?;
        if let Some(Excerpt { line, carets }) = excerpt {
            writeln!(f, "    {line}\n    {carets}")?;
        }
        write!(f, "help: {help}")
    }
}

impl std::error::Error for Fault {}

/// A text and its name; finds lines and columns.
#[derive(Debug)]
pub(super) struct NamedText<'t> {
    name: &'t str,
    text: &'t str,
    line_starts: Vec<usize>,
}

impl<'t> NamedText<'t> {
    pub(super) fn new(name: &'t str, text: &'t str) -> Self {
        let line_ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let line_starts = std::iter::once(0).chain(line_ends.map(|(at, _)| at + 1)).collect();
        Self { name, text, line_starts }
    }

    /// The index of the line that holds this byte, from 0.
    pub(super) fn line_of(&self, at: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= at).saturating_sub(1)
    }

    /// A fault at `span`.
    pub(super) fn fault(&self, span: &Span, message: String, help: String) -> Fault {
        let start = self.text.floor_char_boundary(span.start);
        let end = self.text.floor_char_boundary(span.end).max(start);
        let line = self.line_of(start);
        let from = self.line_starts[line];
        let to = self.line_starts.get(line + 1).copied().unwrap_or(self.text.len());
        let whole = &self.text[from..to];
        // A byte order mark is no character of the first line.
        let whole = if line == 0 { whole.strip_prefix('\u{feff}').unwrap_or(whole) } else { whole };
        let from = to - whole.len();
        let content = whole.trim_end_matches(['\n', '\r']);
        let before = self.text.get(from..start).map_or(0, |text| text.chars().count());
        let underlined = self.text.get(start..end.min(from + content.len())).map_or(0, |text| text.chars().count());
        Fault {
            file: self.name.to_owned(),
            line: line + 1,
            column: before + 1,
            message,
            help,
            excerpt: Some(excerpt(content, before, underlined.max(1))),
        }
    }

    /// A fault of the text as a whole: something is not there.
    pub(super) fn fault_of_all(&self, message: String, help: String) -> Fault {
        Fault { file: self.name.to_owned(), line: 1, column: 1, message, help, excerpt: None }
    }
}

/// Shows a line around what is underlined.
fn excerpt(content: &str, before: usize, underlined: usize) -> Excerpt {
    let skipped = if before + underlined <= LINE_SHOWN_MAX { 0 } else { before.saturating_sub(LINE_SHOWN_MAX / 4) };
    let mut line = String::new();
    let mut carets = String::new();
    if skipped > 0 {
        line.push('…');
        carets.push(' ');
    }
    let mut rest = content.chars().skip(skipped);
    for c in rest.by_ref().take(LINE_SHOWN_MAX) {
        line.push(printable(c));
    }
    if rest.next().is_some() {
        line.push('…');
    }
    // A tab stays a tab, so that the carets stand where the text does.
    let indent = content.chars().skip(skipped).take(before - skipped);
    carets.extend(indent.map(|c| if c == '\t' { '\t' } else { ' ' }));
    carets.extend(std::iter::repeat_n('^', underlined.min(LINE_SHOWN_MAX + skipped - before)));
    Excerpt { line, carets }
}

fn printable(c: char) -> char {
    if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c }
}

/// A value as it is quoted in a message: on one line, shortened, in backticks.
pub(super) fn quoted(value: &str) -> String {
    let mut shown: String =
        value.chars().take(VALUE_SHOWN_MAX).map(|c| if c == '\t' { ' ' } else { printable(c) }).collect();
    if value.chars().nth(VALUE_SHOWN_MAX).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

/// A table's title and a key in it; at the top of the file, nothing and a table's name.
pub(super) type Key = (&'static str, &'static str);

/// Where faults are gathered.
#[derive(Debug)]
pub(super) struct Report<'t> {
    source: NamedText<'t>,
    /// Where the text is no TOML, in order; what was read there anyway deserves no second complaint.
    broken: Vec<Span>,
    faults: Vec<(usize, Fault)>,
    /// What is not there; forgiven if it turns out to be there misspelt.
    missing: Vec<(Key, Option<Span>, String, String)>,
    /// Faults of a file that this one names; they come after its own.
    elsewhere: Vec<Fault>,
    unlisted: usize,
}

impl<'t> Report<'t> {
    /// `broken`: where the text is no TOML, why, and the mend; in order.
    pub(super) fn new(source: NamedText<'t>, broken: Vec<(Span, String, String)>) -> Self {
        let spans = broken.iter().map(|(span, ..)| span.clone()).collect();
        let mut report =
            Self { source, broken: spans, faults: Vec::new(), missing: Vec::new(), elsewhere: Vec::new(), unlisted: 0 };
        for (span, message, help) in broken {
            report.push(Some(&span), message, help);
        }
        report
    }

    /// What stands at `span` is wrong.
    pub(super) fn fault(&mut self, span: &Span, message: impl Into<String>, help: impl Into<String>) {
        let candidates = self.broken.partition_point(|broken| broken.start <= span.end);
        let is_broken = self.broken[..candidates].last().is_some_and(|broken| span.start <= broken.end);
        if !is_broken {
            self.push(Some(span), message.into(), help.into());
        }
    }

    /// A fault at `span` that is yet to be found; its message and help are empty.
    pub(super) fn place(&self, span: &Span) -> Fault {
        self.source.fault(span, String::new(), String::new())
    }

    /// This key is not there and must be; `span` is the table that should hold it, if that is there.
    pub(super) fn missing(
        &mut self,
        key: Key,
        span: Option<Span>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.missing.push((key, span, message.into(), help.into()));
    }

    /// This key is there after all: misspelt, or as something that it cannot be.
    pub(super) fn forgive(&mut self, key: Key) {
        self.missing.retain(|(missing, ..)| *missing != key);
    }

    /// Two parts do not fit together. Where the text is broken, what is missing may just not have been seen, and
    /// nothing is said.
    pub(super) fn misfit(&mut self, span: &Span, message: impl Into<String>, help: impl Into<String>) {
        if self.broken.is_empty() {
            self.push(Some(span), message.into(), help.into());
        }
    }

    /// A fault of a file that this one names.
    pub(super) fn elsewhere(&mut self, source: &NamedText<'_>, span: &Span, message: String, help: String) {
        if self.elsewhere.len() < FAULTS_MAX {
            self.elsewhere.push(source.fault(span, message, help));
        } else {
            self.unlisted += 1;
        }
    }

    fn push(&mut self, span: Option<&Span>, message: String, help: String) {
        if self.faults.len() == FAULTS_MAX {
            self.unlisted += 1;
            return;
        }
        let fault = match span {
            Some(span) => self.source.fault(span, message, help),
            None => self.source.fault_of_all(message, help),
        };
        self.faults.push((span.map_or(0, |span| span.start), fault));
    }

    /// All faults, sorted by place.
    pub(super) fn finish(mut self) -> Vec<Fault> {
        // Where the text is broken, it may be there and just not have been seen.
        if self.broken.is_empty() {
            for (_, span, message, help) in std::mem::take(&mut self.missing) {
                self.push(span.as_ref(), message, help);
            }
        }
        let Self { source, mut faults, elsewhere, unlisted, .. } = self;
        faults.sort_by_key(|(at, _)| *at);
        let more = (unlisted > 0).then(|| {
            source.fault_of_all(format!("there are {unlisted} more faults"), "mend those above first".to_owned())
        });
        faults.into_iter().map(|(_, fault)| fault).chain(elsewhere).chain(more).collect()
    }
}
