//! Reads tables key by key, and remembers which keys were asked for.
//!
//! What the program asks for is what it knows: there is no second list of keys, so a key that is read cannot be refused
//! as unknown, and one that nobody reads cannot be accepted. Unknown keys are therefore judged last, by
//! [`Keys::judge`], when every table's keys are known and a misplaced one can be sent home.

use std::collections::{BTreeMap, BTreeSet};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostics::{Key, Report, Span, quoted};
use super::suggest::nearest;

/// A value and its place.
pub(super) type Value<'i> = Spanned<DeValue<'i>>;

/// What is wrong with a value, as the end of a sentence that began with the key's name; and what to write instead.
#[derive(Debug)]
pub(super) struct Complaint {
    pub(super) message: String,
    pub(super) help: String,
}

impl Complaint {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

/// What a reader of values returns.
pub(super) type Read<T> = Result<T, Complaint>;

/// Something read, and its place.
#[derive(Debug, Clone)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) span: Span,
}

/// The keys asked for, by table, and the keys that were there and nobody asked for.
#[derive(Debug, Default)]
pub(super) struct Keys {
    known: BTreeMap<&'static str, BTreeSet<&'static str>>,
    unknown: Vec<(&'static str, Located<String>)>,
    /// Tables that are there, but as something else.
    misread: Vec<Key>,
}

/// One table, present or not: an absent table has no keys, and is still asked for all of them.
///
/// `'v` is the tree's, `'r` that of what is gathered, `'t` the text's.
pub(super) struct Section<'v, 'r, 't> {
    /// As it is written: `[limits]`, `[[listener]]`, or nothing for the top of the file.
    title: &'static str,
    header: Option<Span>,
    entries: Option<&'v DeTable<'v>>,
    /// Keys with a complaint of their own.
    refused: Vec<&'static str>,
    /// Keys that were read without fault, and where their values stand.
    sound: Vec<(&'static str, Span)>,
    keys: &'r mut Keys,
    report: &'r mut Report<'t>,
}

impl<'v, 'r, 't> Section<'v, 'r, 't> {
    pub(super) fn new(
        title: &'static str,
        table: Option<Located<&'v DeTable<'v>>>,
        keys: &'r mut Keys,
        report: &'r mut Report<'t>,
    ) -> Self {
        let (entries, header) = table.map(|Located { value, span }| (value, span)).unzip();
        Self { title, header, entries, refused: Vec::new(), sound: Vec::new(), keys, report }
    }

    pub(super) fn report(&mut self) -> &mut Report<'t> {
        self.report
    }

    /// Where the table begins, if it is there.
    pub(super) fn header(&self) -> Option<Span> {
        self.header.clone()
    }

    /// The key's name in a complaint: `limits.errors`.
    pub(super) fn path(&self, key: &str) -> String {
        match bare(self.title) {
            "" => format!("`{key}`"),
            table => format!("`{table}.{key}`"),
        }
    }

    /// The value as it stands in the file.
    pub(super) fn value(&mut self, key: &'static str) -> Option<&'v Value<'v>> {
        self.keys.known.entry(self.title).or_default().insert(key);
        self.entries?.get(key)
    }

    /// What was read from a key, with its place; `None` if the key is not there, or faulty.
    pub(super) fn locate<T>(&self, key: &'static str, value: T) -> Option<Located<T>> {
        let (_, span) = self.sound.iter().find(|(sound, _)| *sound == key)?;
        Some(Located { value, span: span.clone() })
    }

    /// The elements of a list that was read by `read` before, with their places, without those that are faulty.
    pub(super) fn elements<T>(&self, key: &'static str, read: impl Fn(&DeValue<'_>) -> Read<T>) -> Vec<Located<T>> {
        let list = self.entries.and_then(|entries| entries.get(key)).and_then(|value| value.get_ref().as_array());
        let located =
            |element: &Value<'_>| Some(Located { value: read(element.get_ref()).ok()?, span: element.span() });
        list.into_iter().flat_map(|elements| elements.iter()).filter_map(located).collect()
    }

    /// A value that may be left out.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&DeValue<'_>) -> Read<T>,
    ) -> Option<Located<T>> {
        let value = self.value(key)?;
        let read = self.read(&self.path(key), value, read)?;
        self.sound.push((key, value.span()));
        Some(read)
    }

    /// A value that must be there; `example` is what to write, quotes included.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        example: &str,
        read: impl FnOnce(&DeValue<'_>) -> Read<T>,
    ) -> Option<Located<T>> {
        if self.value(key).is_none()
            && let Some(header) = &self.header
        {
            let (message, help) =
                (format!("`{}` has no `{key}`", self.title), format!("write `{key} = {example}` under it"));
            self.report.missing((self.title, key), Some(header.clone()), message, help);
        }
        self.optional(key, read)
    }

    /// An array whose elements are all read the same way. Faulty elements are left out.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&DeValue<'_>) -> Read<T>,
    ) -> Option<Located<Vec<T>>> {
        let value = self.value(key)?;
        let Some(array) = value.get_ref().as_array() else {
            let found = kind_of(value.get_ref());
            let help = match value.get_ref().as_str() {
                Some(text) => format!("write `{key} = [\"{}\"]`", quoted(text).trim_matches('`')),
                None => format!("write `{key} = [ … ]`, values in brackets with commas between them"),
            };
            self.report.fault(&value.span(), format!("{} must be a list, not {found}", self.path(key)), help);
            return None;
        };
        let name = format!("an element of {}", self.path(key));
        let elements = array.iter().filter_map(|element| self.read(&name, element, &read));
        let elements = elements.map(|located| located.value).collect();
        self.sound.push((key, value.span()));
        Some(Located { value: elements, span: value.span() })
    }

    /// A table within this one, by its title: `[limits]`.
    pub(super) fn table(&mut self, title: &'static str) -> Section<'v, '_, 't> {
        let key = bare(title);
        let table = self.value(key).and_then(|value| {
            let table = value.get_ref().as_table();
            if table.is_none() {
                let help = format!("write `{title}` once, with one bracket on each side, and its keys below");
                let message = format!("`{key}` must be one table, not {}", kind_of(value.get_ref()));
                self.report.fault(&value.span(), message, help);
                self.keys.misread.push((self.title, key));
            }
            table.map(|table| Located { value: table, span: value.span() })
        });
        Section::new(title, table, self.keys, self.report)
    }

    /// Tables of which there may be several, by their title: `[[listener]]`. `read` is also told which it is, from 0.
    pub(super) fn tables<T>(
        &mut self,
        title: &'static str,
        mut read: impl FnMut(Section<'v, '_, 't>, usize) -> T,
    ) -> Vec<T> {
        let mut several = Vec::new();
        for (index, table) in self.array_of_tables(bare(title)).into_iter().enumerate() {
            several.push(read(Section::new(title, Some(table), self.keys, self.report), index));
        }
        several
    }

    fn array_of_tables(&mut self, key: &'static str) -> Vec<Located<&'v DeTable<'v>>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let (several, elements) = match value.get_ref() {
            DeValue::Array(elements) => (true, &elements[..]),
            _ => (false, std::slice::from_ref(value)),
        };
        let mut tables = Vec::new();
        for element in elements {
            let table = element.get_ref().as_table();
            if !several || table.is_none() {
                let message = format!("`{key}` must be a list of tables");
                let help = format!("write `[[{key}]]`, with two brackets on each side: there may be several");
                self.report.fault(&element.span(), message, help);
            }
            tables.extend(table.map(|table| Located { value: table, span: element.span() }));
        }
        tables
    }

    fn read<T>(
        &mut self,
        name: &str,
        value: &Value<'_>,
        read: impl FnOnce(&DeValue<'_>) -> Read<T>,
    ) -> Option<Located<T>> {
        match read(value.get_ref()) {
            Ok(read) => Some(Located { value: read, span: value.span() }),
            Err(Complaint { message, help }) => {
                self.report.fault(&value.span(), format!("{name} {message}"), help);
                None
            }
        }
    }

    /// A key of versions to come: refused with a sentence of its own.
    pub(super) fn refuse(&mut self, key: &'static str, message: &str, help: &str) {
        if let Some((key, _)) = self.entries.and_then(|entries| entries.get_key_value(key)) {
            self.report.fault(&key.span(), message, help);
        }
        self.refused.push(key);
    }

    /// Ends the reading: keys that were not asked for are unknown.
    pub(super) fn finish(self) {
        let known = self.keys.known.entry(self.title).or_default();
        let entries = self.entries.into_iter().flatten();
        let unknown = entries.filter(|(key, _)| {
            let key = key.get_ref().as_ref();
            !known.contains(key) && !self.refused.contains(&key)
        });
        let unknown = unknown.map(|(key, _)| Located { value: key.get_ref().to_string(), span: key.span() });
        self.keys.unknown.extend(unknown.map(|key| (self.title, key)));
    }
}

impl Keys {
    /// Reports the unknown keys, each with the best guess at what was meant.
    pub(super) fn judge(&self, report: &mut Report<'_>) {
        for key in &self.misread {
            report.forgive(*key);
        }
        for (title, Located { value: key, span }) in &self.unknown {
            let shown = quoted(key);
            let message = match *title {
                "" => format!("{shown} is no table of this configuration"),
                title => format!("`{title}` has no key {shown}"),
            };
            if let Some(meant) = self.meant(title, key) {
                report.forgive((title, meant));
            }
            report.fault(span, message, self.guess(title, key));
        }
    }

    /// The key of this table that is nearest to a misspelt one.
    fn meant(&self, title: &str, key: &str) -> Option<&'static str> {
        nearest(key, self.known.get(title).into_iter().flatten().copied())
    }

    fn guess(&self, title: &str, key: &str) -> String {
        let homes = self.known.iter().filter(|(home, keys)| !home.is_empty() && keys.contains(key));
        let homes: Vec<_> = homes.map(|(home, _)| format!("`{home}`")).collect();
        if !homes.is_empty() {
            return format!("`{key}` belongs under {}", homes.join(" or "));
        }
        if let Some(meant) = self.meant(title, key) {
            return format!("did you mean `{meant}`?");
        }
        let here = self.known.get(title).into_iter().flatten();
        let here: Vec<_> = here.map(|known| format!("`{known}`")).collect();
        format!("known here: {}", here.join(", "))
    }

    /// Every table with its keys.
    #[cfg(test)]
    pub(super) fn known(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.known.iter().flat_map(|(title, keys)| keys.iter().map(|key| (*title, *key)))
    }
}

/// `[limits]` → `limits`
fn bare(title: &str) -> &str {
    title.trim_matches(['[', ']'])
}

/// The kind of a value, for a mail administrator.
pub(super) fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(true) => "`true`",
        DeValue::Boolean(false) => "`false`",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
