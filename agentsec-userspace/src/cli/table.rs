//! Aligned columns.

use super::style::{Style, Tone, harmless};

/// One field of a table.
#[derive(Clone, Debug, Default)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
    right: bool,
}

impl Cell {
    pub(super) fn new(text: impl AsRef<str>) -> Self {
        Self { text: harmless(text.as_ref()), ..Self::default() }
    }

    /// A number: aligned to the right.
    pub(super) fn number(text: impl AsRef<str>) -> Self {
        Self { right: true, ..Self::new(text) }
    }

    pub(super) const fn tone(mut self, tone: Tone) -> Self {
        self.tone = tone;
        self
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }

    fn render(&self, width: usize, style: Style) -> String {
        let padding = " ".repeat(width.saturating_sub(self.width()));
        let painted = style.paint(self.tone, &self.text);
        if self.right { padding + &painted } else { painted + &padding }
    }
}

/// Rows under a heading.
#[derive(Debug)]
pub(super) struct Table {
    heading: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(super) fn new(heading: &[&'static str]) -> Self {
        Self { heading: heading.to_vec(), rows: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The lines; columns in which no row says anything are left out.
    pub(super) fn render(&self, style: Style) -> String {
        let in_use: Vec<usize> = (0..self.heading.len())
            .filter(|&column| {
                self.rows.iter().any(|row| row.get(column).is_some_and(|cell| !cell.text.is_empty()))
            })
            .collect();
        let heading: Vec<Cell> = (0..self.heading.len()).map(|column| self.heading_cell(column)).collect();
        let rows = std::iter::once(&heading).chain(&self.rows);
        let empty = Cell::default();
        let width = |column: usize| {
            rows.clone().map(|row| row.get(column).unwrap_or(&empty).width()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = in_use.iter().map(|&column| width(column)).collect();
        let mut text = String::new();
        for row in rows.clone() {
            let cells = in_use.iter().zip(&widths);
            let fields =
                cells.map(|(&column, &width)| row.get(column).unwrap_or(&empty).render(width, style));
            text.push_str(fields.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        text
    }

    /// Aligned as the first cell beneath it.
    fn heading_cell(&self, column: usize) -> Cell {
        let right = self.rows.first().and_then(|row| row.get(column)).is_some_and(|cell| cell.right);
        Cell { right, ..Cell::new(self.heading[column]).tone(Tone::Dim) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_empty_ones_left_out() {
        let mut table = Table::new(&["NAME", "NOTE", "BYTES"]);
        table.row([Cell::new("a"), Cell::new(""), Cell::number("1")]);
        table.row([Cell::new("longer"), Cell::new(""), Cell::number("1000000")]);
        let expected = "NAME      BYTES\na             1\nlonger  1000000\n";
        assert_eq!(table.render(Style::default()), expected);
    }

    #[test]
    fn colours_do_not_move_columns_and_escapes_do_not_reach_the_terminal() {
        let mut table = Table::new(&["A", "B"]);
        table.row([Cell::new("x\x1b[2J").tone(Tone::Bad), Cell::new("y")]);
        let painted = table.render(Style { colors: true });
        assert!(painted.contains("\x1b[1;31mx\u{fffd}[2J\x1b[0m  y"), "{painted:?}");
    }
}
