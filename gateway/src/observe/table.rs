//! Tables for people: one way for every verb that shows rows.

use std::fmt::Write as _;

use super::show::{BOLD, PLAIN, printable};

/// Rows below a head, in left-aligned columns two spaces apart. What a cell holds is never shown raw.
#[derive(Debug)]
pub struct Table<const N: usize> {
    rows: Vec<[String; N]>,
    widths: [usize; N],
}

impl<const N: usize> Table<N> {
    /// A head, and what stands below it.
    pub fn new(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> Self {
        let shown = |row: [String; N]| row.map(|cell| printable(&cell).into_owned());
        let rows: Vec<_> = std::iter::once(head.map(str::to_owned)).chain(rows.into_iter().map(shown)).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths = std::array::from_fn(width);
        Self { rows, widths }
    }

    /// The head, then each row, without the newline.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.rows.iter().map(|row| {
            let cells = row.iter().zip(self.widths).map(|(cell, width)| format!("{cell:width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        })
    }

    /// As a page; with `colour` the head is bold, for a terminal.
    pub fn page(&self, colour: bool) -> String {
        let mut page = String::new();
        for (index, line) in self.lines().enumerate() {
            let (bold, plain) = if colour && index == 0 { (BOLD, PLAIN) } else { ("", "") };
            // A String takes everything.
            let _ = writeln!(page, "{bold}{line}{plain}");
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_must_be_and_cells_steer_nothing() {
        let rows = [["ü\x1b".to_owned(), String::new()], ["longer".to_owned(), "1".to_owned()]];
        let table = Table::new(["A", "B"], rows);
        assert_eq!(table.page(false), "A        B\nü\\u{1b}\nlonger   1\n");
        assert_eq!(table.page(true).lines().next(), Some("\x1b[1mA        B\x1b[0m"));
        assert_eq!(Table::new(["ONE", "TWO"], []).page(false), "ONE  TWO\n");
    }
}
