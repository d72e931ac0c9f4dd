//! Text that came from elsewhere, shown to people: what steers a terminal or turns text around is never shown raw.
//!
//! One rule for log, command line and page: control characters (C0, DEL, C1), format characters (Cf, such as those that
//! change the direction of text) and the line and paragraph separators (Zl, Zp).

use std::borrow::Cow;
use std::fmt::Write as _;

/// What makes text bold on a terminal, and what red; [`PLAIN`] ends either.
pub const BOLD: &str = "\x1b[1m";
/// See [`BOLD`].
pub const RED: &str = "\x1b[31m";
/// Ends what [`BOLD`] or [`RED`] has begun.
pub const PLAIN: &str = "\x1b[0m";

/// How a character that is not shown is written instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escape {
    /// `\u{1b}`, as Rust writes it.
    Braces,
    /// `\u001b`, as JSON writes it: in a JSON document such characters stand within strings only.
    Json,
}

/// Format characters (Cf) of Unicode 16, as ranges.
const FORMAT: [(u32, u32); 21] = [
    (0xad, 0xad),
    (0x600, 0x605),
    (0x61c, 0x61c),
    (0x6dd, 0x6dd),
    (0x70f, 0x70f),
    (0x890, 0x891),
    (0x8e2, 0x8e2),
    (0x180e, 0x180e),
    (0x200b, 0x200f),
    (0x202a, 0x202e),
    (0x2060, 0x2064),
    (0x2066, 0x206f),
    (0xfeff, 0xfeff),
    (0xfff9, 0xfffb),
    (0x110bd, 0x110bd),
    (0x110cd, 0x110cd),
    (0x13430, 0x1343f),
    (0x1bca0, 0x1bca3),
    (0x1d173, 0x1d17a),
    (0xe0001, 0xe0001),
    (0xe0020, 0xe007f),
];

/// Whether this character is never shown raw.
pub fn is_hidden(character: char) -> bool {
    let code = u32::from(character);
    if code < 0xad {
        return character.is_control();
    }
    matches!(code, 0x2028 | 0x2029) || FORMAT.iter().any(|(first, last)| (*first..=*last).contains(&code))
}

/// The text with every hidden character written as `\u{…}`; usually the text itself.
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, Escape::Braces)
}

/// The same in the form that the place takes.
pub fn escaped(text: &str, escape: Escape) -> Cow<'_, str> {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) || !text.chars().any(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_hidden(character) {
            write_escape(character, escape, &mut shown);
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

fn write_escape(character: char, escape: Escape, out: &mut String) {
    // A String takes everything.
    let _ = match escape {
        Escape::Braces => write!(out, "\\u{{{:x}}}", u32::from(character)),
        Escape::Json => character.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(out, "\\u{unit:04x}")),
    };
}

/// A time for people: its two largest units.
pub fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60);
    let two = |first: u64, unit: &str, second: u64, smaller: &str| match second {
        0 => format!("{first} {unit}"),
        second => format!("{first} {unit} {second} {smaller}"),
    };
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => two(minutes, "min", seconds % 60, "s"),
        (0, _, _) => two(hours, "h", minutes, "min"),
        _ => two(days, "d", hours, "h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_written_out() {
        for (text, shown) in [
            ("plain, naïve, 漢字, 😀", "plain, naïve, 漢字, 😀"),
            ("a\x1b[2Jb", "a\\u{1b}[2Jb"),
            ("a\u{85}b\u{9b}c\x7f", "a\\u{85}b\\u{9b}c\\u{7f}"),
            ("a\u{202e}b\u{2028}c\u{2029}d\u{200b}", "a\\u{202e}b\\u{2028}c\\u{2029}d\\u{200b}"),
            ("a\nb\tc", "a\\u{a}b\\u{9}c"),
        ] {
            assert_eq!(printable(text), shown);
        }
        assert_eq!(escaped("\u{202e}\u{e0001}", Escape::Json), "\\u202e\\udb40\\udc01");
    }

    /// Rust's own table does not print them either; it is no part of the language, so it is a witness, not the rule.
    #[test]
    fn whatever_is_hidden_rust_escapes_too() {
        for character in (0..=0x10_ffff).filter_map(char::from_u32).filter(|character| is_hidden(*character)) {
            assert!(character.escape_debug().count() > 1, "{:x}", u32::from(character));
        }
    }

    #[test]
    fn spans() {
        for (seconds, shown) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (150, "2 min 30 s"),
            (3600, "1 h"),
            (9000, "2 h 30 min"),
            (86_400, "1 d"),
            (90_000, "1 d 1 h"),
        ] {
            assert_eq!(span(seconds), shown);
        }
    }
}
