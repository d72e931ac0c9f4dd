//! Says in a mail administrator's words why a text is no TOML.
//!
//! The TOML parser recovers from most mistakes and goes on, so that these complaints stand beside those about values.
//! Where a bracket was never closed it cannot know what the rest belongs to: then only what came before is worth
//! saying.

use toml::de::Error;

use super::diagnostics::{Span, quoted};

/// A place, what is wrong there, and the mend.
pub(super) type SyntaxFault = (Span, String, String);

/// What the parser's errors mean.
#[derive(Debug)]
pub(super) struct Syntax {
    /// In order of place.
    pub(super) faults: Vec<SyntaxFault>,
    /// Whether the rest of the tree can be believed.
    pub(super) tree_is_sound: bool,
}

/// Translates the parser's errors.
pub(super) fn explain(text: &str, errors: &[Error]) -> Syntax {
    let mut errors: Vec<_> = errors.iter().map(|error| (error.span().unwrap_or_default(), error.message())).collect();
    errors.sort_by_key(|(span, _)| span.start);
    let is_unclosed = |message: &str| message.starts_with("unclosed");
    let tree_is_sound = !errors.iter().any(|(_, message)| is_unclosed(message));
    if !tree_is_sound {
        let astray = |message: &str| {
            is_unclosed(message) || message.starts_with("missing") || message.starts_with("unexpected `")
        };
        let first = errors.iter().position(|(_, message)| astray(message));
        errors.truncate(first.map_or(errors.len(), |first| first + 1));
    }
    drop_echoes(text, &mut errors);
    let faults = errors.into_iter().map(|(span, message)| translate(text, span, message)).collect();
    Syntax { faults, tree_is_sound }
}

/// One mistake may be reported twice: a bad key again as a key with no value, a table written twice again as each of
/// its keys.
fn drop_echoes(text: &str, errors: &mut Vec<(Span, &str)>) {
    let line_end = |at: usize| text[text.floor_char_boundary(at)..].find('\n').map_or(text.len(), |end| at + end);
    errors.dedup_by(|later, earlier| {
        later.1.starts_with("key with no value") && later.0.start <= line_end(earlier.0.start)
    });
    let headers: Vec<_> = text.match_indices("\n[").map(|(at, _)| at + 1).collect();
    let table_of = |span: &Span| headers.partition_point(|header| *header <= span.start);
    let mut written_twice = None;
    errors.retain(|(span, message)| {
        let table = table_of(span);
        let is_duplicate = message.starts_with("duplicate key");
        let is_echo = is_duplicate && written_twice == Some(table);
        if is_duplicate && is_header(text, span) {
            written_twice = Some(table);
        }
        !is_echo
    });
}

fn translate(text: &str, span: Span, message: &str) -> SyntaxFault {
    let word = word_at(text, &span);
    let written = &text[word.clone()];
    let fault = |message: &str, help: &str| (span.clone(), message.to_owned(), help.to_owned());
    let starts = |start: &str| message.starts_with(start);
    if starts("string values must be quoted") && written.is_empty() {
        return fault("there is no value", "write a value behind the `=`, or delete the line");
    }
    let is_value = !written.is_empty() && is_behind_equals(text, word.start);
    if starts("string values must be quoted")
        || (starts("invalid") && !starts("invalid unquoted key") && is_value && is_bare(text, &word))
    {
        return unquoted(word, written);
    }
    if starts("invalid basic string") || starts("invalid literal string") {
        return fault(
            "the text has no closing quote",
            "end the text on the line where it began, with the quote it began with",
        );
    }
    if starts("duplicate key") {
        return duplicate(text, span);
    }
    if starts("unclosed table") || starts("unclosed array of tables") {
        return fault(
            "the table's name is not closed",
            "write `[server]`, or `[[listener]]` where there may be several",
        );
    }
    if starts("key with no value") {
        return fault("there is no `=` and no value", "write `key = value`");
    }
    if starts("missing comma") || starts("unexpected `=` in array") || starts("unclosed array") {
        return fault(
            "the list is not closed, or a comma is missing",
            "put commas between the values, and `]` behind the last",
        );
    }
    if starts("invalid unquoted key") {
        return bad_key(text, span);
    }
    if starts("unexpected key or value") {
        return fault("something follows the value", "write one `key = value` a line; a comment begins with `#`");
    }
    let help = "this file is TOML: lines of `key = value` under `[table]` headers, with text in double quotes";
    (span, format!("this is no TOML: {message}"), help.to_owned())
}

fn unquoted(word: Span, written: &str) -> SyntaxFault {
    let shown = quoted(written);
    let truth = match written.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => "true",
        "false" | "no" | "off" => "false",
        _ => {
            let bare = quoted(written.trim_matches(['"', '\'', '“', '”', '„', '‘', '’']));
            return (word, format!("{shown} is not in quotes"), format!("write `\"{}\"`", bare.trim_matches('`')));
        }
    };
    let message = format!("{shown} is neither `true` nor `false` nor text in quotes");
    (word, message, format!("write `{truth}`, or `\"{written}\"` where a word is asked for"))
}

fn bad_key(text: &str, span: Span) -> SyntaxFault {
    let written = text.get(span.clone()).unwrap_or_default();
    if written.starts_with(':') {
        return (
            span,
            "a key and its value are joined by `=`, not by `:`".to_owned(),
            "write `key = value`".to_owned(),
        );
    }
    let help = "keys are made of letters, digits, `-` and `_`; write `key = value`".to_owned();
    (span, format!("{} cannot be in a key", quoted(written)), help)
}

fn duplicate(text: &str, span: Span) -> SyntaxFault {
    let name = text.get(span.clone()).unwrap_or_default();
    let is_header = is_header(text, &span);
    let help = match name {
        "listener" | "backend" if is_header => format!("write `[[{name}]]` each time, with two brackets on each side"),
        _ if is_header => "keep one of the two, with the keys of both".to_owned(),
        _ => "keep one of the two".to_owned(),
    };
    (span, format!("{} is written twice", quoted(name)), help)
}

/// Whether this is the name in a table's header.
fn is_header(text: &str, span: &Span) -> bool {
    text.get(..span.start).is_some_and(|before| before.ends_with('['))
}

/// The word around a place, up to white space, commas and brackets.
fn word_at(text: &str, span: &Span) -> Span {
    let ends = |c: char| c.is_whitespace() || matches!(c, ',' | '[' | ']' | '{' | '}' | '=' | '#');
    let (start, end) = (text.floor_char_boundary(span.start), text.floor_char_boundary(span.end));
    let before = text[..start].rfind(ends).map_or(0, |at| at + text[at..].chars().next().map_or(0, char::len_utf8));
    let after = text[end..].find(ends).map_or(text.len(), |at| end + at);
    before..after.max(before)
}

/// Whether this is where a value stands, or an element of a list.
fn is_behind_equals(text: &str, at: usize) -> bool {
    text[..at].trim_end().ends_with(['=', ',', '['])
}

/// Whether the word has no quotes at all.
fn is_bare(text: &str, word: &Span) -> bool {
    !text[word.clone()].contains(['"', '\''])
}
