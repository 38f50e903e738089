//! Columns of text that line up.

use std::borrow::Cow;
use std::fmt;

use console::{Alignment, measure_text_width, pad_str};
pub(crate) use sandcast_factory::report::count;

use crate::terminal;

/// Rows of cells, as wide as they need to be.
#[derive(Debug, Default)]
pub(crate) struct Table {
    indent: usize,
    right: Vec<usize>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table whose lines start after `indent` spaces.
    pub(crate) fn indented(indent: usize) -> Self {
        Self {
            indent,
            ..Self::default()
        }
    }

    /// A table with a line of headings.
    pub(crate) fn with_headings<const N: usize>(headings: [&str; N]) -> Self {
        let mut table = Self::default();
        let dim = console::Style::new().dim();
        table.row(headings.map(|heading| dim.apply_to(heading).to_string()));
        table
    }

    /// Sets the columns at these places flush right.
    pub(crate) fn numbers_at(mut self, columns: &[usize]) -> Self {
        self.right = columns.to_vec();
        self
    }

    /// Adds a row.
    pub(crate) fn row<I: IntoIterator<Item = String>>(&mut self, cells: I) {
        let cells = cells.into_iter();
        let one_line = |cell: String| match terminal::cell(&cell) {
            Cow::Borrowed(_) => cell,
            Cow::Owned(seen) => seen,
        };
        self.rows.push(cells.map(one_line).collect());
    }

    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width_of = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells
                .map(|cell| measure_text_width(cell))
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width_of).collect();
        for (number, row) in self.rows.iter().enumerate() {
            let mut line = " ".repeat(self.indent);
            for (column, cell) in row.iter().enumerate() {
                if column > 0 {
                    line.push_str("  ");
                }
                let side = if self.right.contains(&column) {
                    Alignment::Right
                } else {
                    Alignment::Left
                };
                line.push_str(&pad_str(cell, widths[column], side, None));
            }
            if number > 0 {
                writeln!(formatter)?;
            }
            formatter.write_str(line.trim_end())?;
        }
        Ok(())
    }
}

/// A size for people: `1.4 MiB`.
pub(crate) fn bytes(number: u64) -> String {
    indicatif::BinaryBytes(number).to_string()
}

/// A duration for people: `0.8 s`, `3 min 12 s`.
pub(crate) fn seconds(seconds: f64) -> String {
    if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else {
        format!(
            "{:.0} min {:.0} s",
            (seconds / 60.0).floor(),
            seconds % 60.0
        )
    }
}

/// Numbers as a line of bars, the largest the highest; empty for fewer than two.
pub(crate) fn sparkline(values: &[f64]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    if values.len() < 2 {
        return String::new();
    }
    let most = values.iter().copied().fold(0.0, f64::max);
    let bar = |value: &f64| {
        let height = if most > 0.0 { value / most } else { 0.0 };
        let place = (height * (BARS.len() - 1) as f64).round();
        // A number that is none is the lowest.
        BARS[(place as usize).min(BARS.len() - 1)]
    };
    values.iter().map(bar).collect()
}

/// A share or a metric to four places, or a dash where it is not defined.
pub(crate) fn decimal(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.4}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_trailing_space() {
        let mut table = Table::indented(2).numbers_at(&[1]);
        table.row(["name".to_owned(), "rows".to_owned(), "why".to_owned()]);
        table.row(["branch".to_owned(), "12,000".to_owned(), String::new()]);
        table.row(["ü".to_owned(), "1".to_owned()]);
        assert_eq!(
            table.to_string(),
            "  name      rows  why\n  branch  12,000\n  ü            1"
        );
    }

    #[test]
    fn bars_are_as_high_as_numbers_are_large() {
        assert_eq!(sparkline(&[0.0, 1.0, 2.0, 4.0, 7.0]), "▁▂▃▅█");
        assert_eq!(sparkline(&[0.0, 0.0]), "▁▁");
        assert_eq!(sparkline(&[f64::NAN, 1.0]), "▁█");
        assert_eq!(sparkline(&[1.0]), "");
    }

    #[test]
    fn long_durations_are_in_minutes() {
        assert_eq!([0.84, 192.2].map(seconds), ["0.8 s", "3 min 12 s"]);
    }
}
