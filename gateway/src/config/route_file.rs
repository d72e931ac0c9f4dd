//! A route's `file`: one recipient a line, and the backend that his mail goes to. Its faults are reported in its own lines.

use std::collections::HashMap;
use std::path::Path;

use super::diagnostics::{NamedText, Report, Span, quoted};
use super::files;
use super::relay::is_blank;
use super::route::RouteKey;
use super::route_keys::{RECIPIENT_HELP, no_recipient, recipient_key};
use super::suggest::nearest;
use super::values::choice;

/// Bytes of such a file: some hundred thousand routes.
const ROUTE_FILE_MAX: u64 = 16 << 20;

/// A file that was read, with the places of its recipients.
pub(super) struct RouteFile {
    name: String,
    text: String,
}

impl RouteFile {
    /// Reads it; `None` if it cannot be read, which was reported.
    pub(super) fn read(path: &Path, place: &Span, report: &mut Report<'_>) -> Option<Self> {
        let name = path.to_string_lossy().into_owned();
        match files::read_regular(path, ROUTE_FILE_MAX) {
            Ok(bytes) => Some(Self { name, text: String::from_utf8_lossy(&bytes).into_owned() }),
            Err(error) => {
                let help =
                    "name a readable file with a recipient and its backend a line, such as `example.com exchange`";
                report.fault(place, format!("`route.file` names the file {}, which {error}", quoted(&name)), help);
                None
            }
        }
    }

    /// Its path.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// For reporting faults at places of its text.
    pub(super) fn source(&self) -> NamedText<'_> {
        NamedText::new(&self.name, &self.text)
    }

    /// Its recipients, each with its place. `backend` is for lines that name none.
    pub(super) fn keys(
        &self,
        source: &NamedText<'_>,
        backend: Option<usize>,
        pools: &HashMap<String, usize>,
        report: &mut Report<'_>,
    ) -> Vec<(RouteKey, Span)> {
        let mut keys = Vec::new();
        let mut line_start = 0;
        for (index, line) in self.text.split_inclusive('\n').enumerate() {
            let start = line_start;
            line_start += line.len();
            let content = line.split('#').next().unwrap_or_default();
            let mut words = content.split(is_blank).filter(|word| !word.is_empty());
            let Some(entry) = words.next() else { continue };
            let span = |word: &str| {
                let at = start + (word.as_ptr().addr() - line.as_ptr().addr());
                at..at + word.len()
            };
            let backend = match words.next() {
                Some(name) => match pools.get(name) {
                    Some(index) => *index,
                    None => {
                        let message = format!("there is no backend {}", quoted(name));
                        report.elsewhere(
                            source,
                            &span(name),
                            message,
                            unknown_backend_help(name, pools).replace('"', ""),
                        );
                        continue;
                    }
                },
                None => match backend {
                    Some(index) => index,
                    None => {
                        let help = format!("write `{entry} NAME`, with a backend's name, or `backend` at the route");
                        report.elsewhere(source, &span(entry), format!("{} has no backend", quoted(entry)), help);
                        continue;
                    }
                },
            };
            if let Some(more) = words.next() {
                let message = format!("{} is too much in this line", quoted(more));
                let help = "write one recipient and one backend a line".to_owned();
                report.elsewhere(source, &span(more), message, help);
                continue;
            }
            match recipient_key(entry) {
                Some(text) => keys.push((RouteKey { text, backend, line: index + 1 }, span(entry))),
                None => report.elsewhere(source, &span(entry), no_recipient(entry), RECIPIENT_HELP.to_owned()),
            }
        }
        keys
    }
}

/// What to write instead of a backend's name that there is not.
pub(super) fn unknown_backend_help(name: &str, pools: &HashMap<String, usize>) -> String {
    let mut names: Vec<_> = pools.keys().map(String::as_str).collect();
    names.sort_unstable();
    match nearest(name, names.iter().copied()) {
        Some(meant) => format!("did you mean `\"{meant}\"`?"),
        None => format!("write {}, or give a `[[backend]]` this `name`", choice(&names)),
    }
}
