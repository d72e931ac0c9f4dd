//! Readers of single values: each takes a TOML value and returns what it means, or what is wrong and what to write.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::DeValue;

use super::declare::Word;
use super::diagnostics::quoted;
use super::read::{Complaint, Read, kind_of};

pub(super) const MIB: u64 = 1 << 20;
pub(super) const TENTH: Duration = Duration::from_millis(100);
pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(3600);
pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);

/// Text; `example` is what a text of this kind looks like.
pub(super) fn text<'v>(value: &'v DeValue<'_>, example: &str) -> Read<&'v str> {
    value.as_str().ok_or_else(|| {
        Complaint::new(
            format!("must be text in quotes, not {}", kind_of(value)),
            format!("write it in quotes, such as `\"{example}\"`"),
        )
    })
}

/// `true` or `false`.
pub(super) fn boolean(value: &DeValue<'_>) -> Read<bool> {
    value.as_bool().ok_or_else(|| {
        Complaint::new(
            format!("must be true or false, not {}", kind_of(value)),
            "write `true` or `false`, without quotes",
        )
    })
}

/// One of a few words.
pub(super) fn word<T: Word>(value: &DeValue<'_>) -> Read<T> {
    let names = || T::WORDS.iter().map(|(name, _)| *name).collect::<Vec<_>>();
    let help = || format!("write {}", choice(&names()));
    let Some(text) = value.as_str() else {
        return Err(Complaint::new(format!("must be a word in quotes, not {}", kind_of(value)), help()));
    };
    let meaning = T::WORDS.iter().find(|(name, _)| *name == text).map(|(_, meaning)| *meaning);
    meaning.ok_or_else(|| Complaint::new(format!("cannot be {}", quoted(text)), help()))
}

/// `"a"`, `"b"` or `"c"`.
pub(super) fn choice(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("`\"{word}\"`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

/// A whole number within bounds.
pub(super) fn integer<T>(bounds: RangeInclusive<T>) -> impl Fn(&DeValue<'_>) -> Read<T>
where
    T: TryFrom<i128> + PartialOrd + Display,
{
    move |value| {
        let (least, most) = (bounds.start(), bounds.end());
        let help = || format!("write a whole number from {least} to {most}, without quotes");
        let Some(number) = value.as_integer() else {
            return Err(Complaint::new(format!("must be a whole number, not {}", kind_of(value)), help()));
        };
        let read =
            i128::from_str_radix(number.as_str(), number.radix()).ok().and_then(|number| T::try_from(number).ok());
        read.filter(|number| bounds.contains(number)).ok_or_else(|| {
            Complaint::new(
                format!("must be between {least} and {most}, not {}", quoted(&number.to_string()).trim_matches('`')),
                help(),
            )
        })
    }
}

/// A time such as `30s`, as the configuration writes it.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    with_unit(text, &DURATION_UNITS).map(Duration::from_millis)
}

const DURATION_UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];
const SIZE_UNITS: [(&str, u64); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// A time such as `30s`, within bounds.
pub(super) fn duration(bounds: RangeInclusive<Duration>) -> impl Fn(&DeValue<'_>) -> Read<Duration> {
    move |value| {
        let text = match value {
            DeValue::String(text) => text,
            DeValue::Integer(number) => {
                let number = number.as_str();
                return Err(Complaint::new(
                    "must be a time with its unit",
                    format!("write `\"{number}s\"` for seconds, or `ms`, `m`, `h` for milliseconds, minutes, hours"),
                ));
            }
            other => {
                let message = format!("must be a time in quotes, not {}", kind_of(other));
                return Err(Complaint::new(message, "write a number and `ms`, `s`, `m` or `h`, such as `\"30s\"`"));
            }
        };
        let read = parse_duration(text).ok_or_else(|| {
            Complaint::new(
                format!("is {}, which is no time", quoted(text)),
                "write a whole number and `ms`, `s`, `m` or `h`, such as `\"500ms\"`, `\"30s\"`, `\"5m\"` or `\"1h\"`",
            )
        })?;
        within(read, &bounds, text, show_duration)
    }
}

/// A number of bytes, bare or with a unit such as `MiB`, within bounds.
pub(super) fn size<T>(bounds: RangeInclusive<u64>) -> impl Fn(&DeValue<'_>) -> Read<T>
where
    T: TryFrom<u64>,
{
    move |value| {
        let (shown, bytes) = match value {
            DeValue::String(text) => (text.to_string(), with_unit(text, &SIZE_UNITS)),
            DeValue::Integer(number) => {
                let out_of_range = if number.as_str().starts_with('-') { 0 } else { u64::MAX };
                let bytes = u64::from_str_radix(number.as_str(), number.radix()).unwrap_or(out_of_range);
                (number.to_string(), Some(bytes))
            }

            other => {
                let message = format!("must be a size, not {}", kind_of(other));
                return Err(Complaint::new(message, "write a number of bytes, or a size such as `\"10MiB\"`"));
            }
        };
        let bytes = bytes
            .ok_or_else(|| Complaint::new(format!("is {}, which is no size", quoted(&shown)), size_help(&shown)))?;
        let bytes = within(bytes, &bounds, &shown, show_size)?;
        T::try_from(bytes).map_err(|_| Complaint::new("is more than this machine can count", "write a smaller size"))
    }
}

/// A size as [`size`] reads it, or none at all: `"none"` or 0.
pub(super) fn size_or_none(bounds: RangeInclusive<u64>) -> impl Fn(&DeValue<'_>) -> Read<Option<usize>> {
    let size = size(bounds);
    move |value| match value {
        DeValue::String(text) if text == "none" => Ok(None),
        DeValue::Integer(number) if number.as_str() == "0" => Ok(None),
        _ => size(value).map(Some),
    }
}

/// Who writes MB may mean either million; the exact unit is asked for, and nothing guessed.
fn size_help(text: &str) -> String {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match text[digits.len()..].trim().to_ascii_lowercase().as_str() {
        "k" | "kb" | "kib" => "KiB",
        "m" | "mb" | "mib" => "MiB",
        "g" | "gb" | "gib" => "GiB",
        _ => "",
    };
    if unit.is_empty() || digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return "write a number of bytes, or a whole number and `KiB`, `MiB` or `GiB`, such as `\"10MiB\"`".to_owned();
    }
    format!("write `\"{digits}{unit}\"`: a KiB is 1024 bytes, a MiB 1024 KiB, a GiB 1024 MiB")
}

/// Digits and a unit, nothing between; what is too large to count is as large as can be.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    (!number.is_empty()).then(|| number.parse().unwrap_or(u64::MAX).saturating_mul(*factor))
}

fn within<T: PartialOrd + Copy>(
    read: T,
    bounds: &RangeInclusive<T>,
    shown: &str,
    show: impl Fn(T) -> String,
) -> Read<T> {
    if bounds.contains(&read) {
        return Ok(read);
    }
    let (least, most) = (show(*bounds.start()), show(*bounds.end()));
    let (mend, than) = if read < *bounds.start() { (&least, "more") } else { (&most, "less") };
    Err(Complaint::new(
        format!("must be between {least} and {most}, not {}", quoted(shown).trim_matches('`')),
        format!("write `\"{mend}\"` or {than}"),
    ))
}

/// The largest unit that leaves no fraction.
fn show(amount: u64, units: &[(&str, u64)]) -> String {
    let fits = |unit: &&(&str, u64)| amount.is_multiple_of(unit.1) && amount >= unit.1;
    let (name, factor) = units.iter().rev().find(fits).copied().unwrap_or(units[1]);
    format!("{}{name}", amount / factor)
}

fn show_duration(duration: Duration) -> String {
    show(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), &DURATION_UNITS)
}

fn show_size(bytes: u64) -> String {
    show(bytes, &SIZE_UNITS)
}
