//! What a bench found, on the page and in a file of `target/bench`: the tables, and on what they were measured.

use std::fmt::{self, Write as _};
use std::fs;
use std::process::Command;

use crate::command::{output, target};

use super::growth;
use super::proxies::{Kind, Programs};

/// A table's column: what stands above it, and on which side its cells stand.
#[derive(Debug)]
pub(super) struct Column {
    name: String,
    is_left: bool,
}

impl Column {
    pub(super) fn left(name: impl Into<String>) -> Self {
        Self { name: name.into(), is_left: true }
    }

    pub(super) fn right(name: impl Into<String>) -> Self {
        Self { name: name.into(), is_left: false }
    }
}

/// Markdown as it grows.
#[derive(Debug, Default)]
pub(super) struct Report {
    text: String,
}

impl Report {
    /// Begins with the date, the command, the machine, and what the programs call themselves.
    pub(super) fn begin(programs: &Programs, kinds: &[Kind]) -> Self {
        let mut report = Self::default();
        let said = |program: &str, arguments: &[&str]| {
            output(Command::new(program).args(arguments))
                .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
        };
        let command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
        report.line(format_args!("# `cargo xtask {}`\n", command.replace(growth::INSIDE, "--rounds")));
        report.line(format_args!("- {}, {}", said("date", &["-u", "+%F %H:%M UTC"]), machine()));
        report.line(format_args!("- Linux {}", said("uname", &["-r"])));
        report.line(format_args!("- smtp-gateway {}", said("git", &["describe", "--always", "--dirty"])));
        for kind in kinds {
            if let Some(version) = programs.version(*kind) {
                report.line(format_args!("- {}: {version}", kind.name()));
            }
        }
        report
    }

    pub(super) fn line(&mut self, line: impl fmt::Display) {
        println!("{line}");
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{line}");
    }

    /// A table; the page has it with its columns in line.
    pub(super) fn table(&mut self, columns: &[Column], rows: &[Vec<String>]) {
        let width = |index: usize, column: &Column| {
            let cells = rows.iter().filter_map(|row| row.get(index)).chain([&column.name]);
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<_> = columns.iter().enumerate().map(|(index, column)| width(index, column)).collect();
        let shown = |cells: &mut dyn Iterator<Item = &String>| {
            let cells = cells.zip(columns).zip(&widths).map(|((cell, column), &width)| match column.is_left {
                true => format!("{cell:<width$}"),
                false => format!("{cell:>width$}"),
            });
            format!("| {} |", cells.collect::<Vec<_>>().join(" | "))
        };
        self.line("");
        self.line(shown(&mut columns.iter().map(|column| &column.name)));
        let rule = columns.iter().zip(&widths).map(|(column, &width)| match column.is_left {
            true => "-".repeat(width),
            false => "-".repeat(width.saturating_sub(1)) + ":",
        });
        self.line(format_args!("| {} |", rule.collect::<Vec<_>>().join(" | ")));
        for row in rows {
            self.line(shown(&mut row.iter()));
        }
    }

    /// Writes the file of this name, and says where it is.
    pub(super) fn end(self, name: &str) -> Result<(), String> {
        let folder = target().join("bench");
        let path = folder.join(name);
        let written = fs::create_dir_all(&folder).and_then(|()| fs::write(&path, self.text));
        written.map_err(|error| format!("{}: {error}", path.display()))?;
        println!("\nwritten to {}", path.display());
        Ok(())
    }
}

fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": an unknown processor");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{cores} × {}", model.trim_start_matches([' ', '\t', ':']))
}
