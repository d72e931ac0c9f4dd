//! Says in a mail administrator's words why a text is no TOML.
//!
//! The TOML parser recovers from most mistakes and goes on, so that these complaints stand beside those about values. Where
//! a bracket was never closed it cannot know what the rest belongs to: then only what came before is worth saying.

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
        let astray =
            |message: &str| is_unclosed(message) || message.starts_with("missing") || message.starts_with("unexpected");
        let first = errors.iter().position(|(_, message)| astray(message));
        errors.truncate(first.map_or(errors.len(), |first| first + 1));
    }
    // One mistake in a key is reported as a bad key and again as a key with no value.
    let line_end = |at: usize| text[text.floor_char_boundary(at)..].find('\n').map_or(text.len(), |end| at + end);
    errors.dedup_by(|later, earlier| {
        later.1.starts_with("key with no value") && later.0.start <= line_end(earlier.0.start)
    });
    let faults = errors.into_iter().map(|(span, message)| translate(text, span, message)).collect();
    Syntax { faults, tree_is_sound }
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
        return fault("the list goes wrong here", "put commas between the values, and `]` behind the last");
    }
    if starts("unexpected key or value") {
        return fault("something follows the value", "write one `key = value` a line; a comment begins with `#`");
    }
    let help = "this file is TOML: lines of `key = value` under `[table]` headers, with text in double quotes";
    (span, format!("this is no TOML: {message}"), help.to_owned())
}

fn unquoted(word: Span, written: &str) -> SyntaxFault {
    let help = match written.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => "write `true`, or the text in quotes".to_owned(),
        "false" | "no" | "off" => format!("write `false`, or `\"{written}\"` in quotes"),
        _ => format!(
            "write `\"{}\"`",
            quoted(written.trim_matches(['"', '\'', '“', '”', '„', '‘', '’'])).trim_matches('`')
        ),
    };
    (word, format!("{} is not in quotes", quoted(written)), help)
}

fn duplicate(text: &str, span: Span) -> SyntaxFault {
    let name = text.get(span.clone()).unwrap_or_default();
    let is_header = text[..span.start].ends_with('[');
    let help = match name {
        "listener" | "backend" if is_header => format!("write `[[{name}]]` each time, with two brackets on each side"),
        _ if is_header => "keep one of the two, with the keys of both".to_owned(),
        _ => "keep one of the two".to_owned(),
    };
    (span, format!("{} is written twice", quoted(name)), help)
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
