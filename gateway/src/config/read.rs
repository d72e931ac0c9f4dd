//! Reads tables key by key, and remembers which keys were asked for.
//!
//! What the program asks for is what it knows: there is no second list of keys, so a key that is read cannot be refused
//! as unknown, and one that nobody reads cannot be accepted. Unknown keys are therefore judged last, by [`Keys::judge`],
//! when every table's keys are known and a misplaced one can be sent home.

use std::collections::{BTreeMap, BTreeSet};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostics::{Report, Span, quoted};
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
        Self { title, header, entries, refused: Vec::new(), keys, report }
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
        match self.title.trim_matches(['[', ']']) {
            "" => format!("`{key}`"),
            table => format!("`{table}.{key}`"),
        }
    }

    /// The value as it stands in the file.
    pub(super) fn value(&mut self, key: &'static str) -> Option<&'v Value<'v>> {
        self.keys.known.entry(self.title).or_default().insert(key);
        self.entries?.get(key)
    }

    /// A value that may be left out.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&DeValue<'_>) -> Read<T>,
    ) -> Option<Located<T>> {
        let value = self.value(key)?;
        self.read(key, value, read)
    }

    /// A value that has a default.
    pub(super) fn or<T>(&mut self, key: &'static str, default: T, read: impl FnOnce(&DeValue<'_>) -> Read<T>) -> T {
        self.optional(key, read).map_or(default, |located| located.value)
    }

    /// A value that must be there; `example` is what to write, quotes included.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        example: &str,
        read: impl FnOnce(&DeValue<'_>) -> Read<T>,
    ) -> Option<Located<T>> {
        let value = self.value(key);
        if value.is_none()
            && let Some(header) = &self.header
        {
            let message = format!("{} has no `{key}`", self.title);
            self.report.missing(Some(header), message, format!("write `{key} = {example}` under it"));
        }
        self.read(key, value?, read)
    }

    /// An array whose elements are all read the same way. Faulty elements are left out.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&DeValue<'_>) -> Read<T>,
    ) -> Option<Located<Vec<Located<T>>>> {
        let value = self.value(key)?;
        let Some(array) = value.get_ref().as_array() else {
            let found = kind_of(value.get_ref());
            let help = format!("write `{key} = [ … ]`, values in brackets with commas between them");
            self.report.fault(&value.span(), format!("{} must be a list, not {found}", self.path(key)), help);
            return None;
        };
        let elements = array.iter().filter_map(|element| self.read(key, element, &read)).collect();
        Some(Located { value: elements, span: value.span() })
    }

    /// A table within this one.
    pub(super) fn table(&mut self, key: &'static str) -> Option<Located<&'v DeTable<'v>>> {
        let value = self.value(key)?;
        let table = value.get_ref().as_table();
        if table.is_none() {
            let help = format!("write `[{key}]` once, with one bracket on each side, and its keys below");
            let message = format!("`{key}` must be one table, not {}", kind_of(value.get_ref()));
            self.report.fault(&value.span(), message, help);
        }
        table.map(|table| Located { value: table, span: value.span() })
    }

    /// Tables of which there may be several.
    pub(super) fn tables(&mut self, key: &'static str) -> Vec<Located<&'v DeTable<'v>>> {
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
        key: &str,
        value: &Value<'_>,
        read: impl FnOnce(&DeValue<'_>) -> Read<T>,
    ) -> Option<Located<T>> {
        match read(value.get_ref()) {
            Ok(read) => Some(Located { value: read, span: value.span() }),
            Err(Complaint { message, help }) => {
                self.report.fault(&value.span(), format!("{} {message}", self.path(key)), help);
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
        for (title, Located { value: key, span }) in &self.unknown {
            let shown = quoted(key);
            let message = match *title {
                "" => format!("{shown} is no table of this configuration"),
                title => format!("{title} has no key {shown}"),
            };
            report.fault(span, message, self.guess(title, key));
        }
    }

    fn guess(&self, title: &str, key: &str) -> String {
        let here = self.known.get(title).into_iter().flatten().copied();
        let homes = self.known.iter().filter(|(home, keys)| !home.is_empty() && keys.contains(key));
        let homes: Vec<_> = homes.map(|(home, _)| format!("`{home}`")).collect();
        if !homes.is_empty() {
            return format!("`{key}` belongs under {}", homes.join(" or "));
        }
        if let Some(meant) = nearest(key, here.clone()) {
            return format!("did you mean `{meant}`?");
        }
        let here: Vec<_> = here.map(|known| format!("`{known}`")).collect();
        format!("known here: {}", here.join(", "))
    }

    /// Every table with its keys.
    #[cfg(test)]
    pub(super) fn known(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.known.iter().flat_map(|(title, keys)| keys.iter().map(|key| (*title, *key)))
    }
}

/// The kind of a value, for a mail administrator.
pub(super) fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
