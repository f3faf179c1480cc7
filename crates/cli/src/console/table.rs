//! Tables that fit the terminal.

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Width, presets::NOTHING};

use super::{print, visible, width};
use crate::error::Result;

/// Fewest characters of a name that is cut.
const LEAST_NAME: usize = 8;

/// Rows under a heading; long cells wrap within their column.
#[derive(Debug)]
pub struct Table {
    rows: comfy_table::Table,
}

impl Table {
    /// A table with these columns.
    pub fn new<S: AsRef<str>>(heading: impl IntoIterator<Item = S>) -> Self {
        let mut table = Self::plain();
        let heading: Vec<String> = heading.into_iter().map(|name| visible(name.as_ref())).collect();
        table.rows.set_header(heading);
        table
    }

    /// A table without a heading.
    pub fn plain() -> Self {
        let mut rows = comfy_table::Table::new();
        rows.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        Self { rows }
    }

    /// Adds a row.
    pub fn row<S: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = S>) {
        let cells: Vec<String> = cells.into_iter().map(|cell| visible(cell.as_ref())).collect();
        self.rows.add_row(cells);
    }

    /// Aligns the columns from `first` on to the right, for figures.
    #[must_use]
    pub fn figures_from(mut self, first: usize) -> Self {
        self.rows
            .column_iter_mut()
            .skip(first)
            .for_each(|column| column.set_cell_alignment(CellAlignment::Right));
        self
    }

    /// The table's text in at most `width` columns.
    pub fn text(mut self, width: usize) -> String {
        self.rows.set_width(u16::try_from(width).unwrap_or(u16::MAX));
        let longest = self.rows.column_max_content_widths().first().copied().unwrap_or(0);
        if let Some(first) = self.rows.column_mut(0) {
            first.set_padding((0, 1));
            // Readers search for names by their beginning, so the first column wraps last.
            let longest = (longest + 1).min(u16::try_from(width / 2).unwrap_or(40));
            first.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(longest)));
        }
        self.keep_words_whole(width);
        let lines = self.rows.lines().map(|line| line.trim_end().to_owned() + "\n");
        lines.collect()
    }

    /// Gives every column the width of its longest word, with less space between the columns where
    /// this is needed, unless the words do not fit in `width` at all. A word of the first column, such
    /// as a path, may be cut, so that those of the others are not.
    fn keep_words_whole(&mut self, width: usize) {
        let columns = self.rows.column_count();
        let mut longest = vec![0_u16; columns];
        let rows = self.rows.header().into_iter().chain(self.rows.row_iter());
        for (column, cell) in rows.flat_map(|row| row.cell_iter().enumerate()) {
            let text = cell.content();
            let words = text.split_whitespace().map(|word| word.chars().count());
            // Room for the space beside it.
            let most =
                u16::try_from(words.max().unwrap_or(0)).unwrap_or(u16::MAX).min(u16::MAX - 3);
            longest[column] = longest[column].max(most);
        }
        let others: usize = longest.iter().skip(1).map(|word| usize::from(word + 1)).sum();
        let room = width.saturating_sub(others + 1);
        let cut =
            longest.first().is_some_and(|first| usize::from(*first) > room) && room >= LEAST_NAME;
        if let (true, Some(first)) = (cut, longest.first_mut()) {
            *first = u16::try_from(room).unwrap_or(u16::MAX);
        }
        let fits = |space: u16| {
            let all: u64 = longest.iter().map(|word| u64::from(word + space)).sum();
            all <= width as u64
        };
        let Some(space) = [2, 1].into_iter().find(|space| fits(*space)) else {
            // Every column is cut: a long name leaves most of the width to the others.
            let name = longest
                .first()
                .map_or(0, |first| (first + 1).min(u16::try_from(width / 5).unwrap_or(u16::MAX)));
            if let Some(first) = self.rows.column_mut(0) {
                first.set_constraint(ColumnConstraint::Absolute(Width::Fixed(name.max(1))));
            }
            return;
        };
        for (index, (column, word)) in self.rows.column_iter_mut().zip(&longest).enumerate() {
            let left = if index == 0 { 0 } else { space - 1 };
            column.set_padding((left, 1));
            let least = ColumnConstraint::LowerBoundary(Width::Fixed(word + left + 1));
            if cut && index == 0 {
                column.set_constraint(ColumnConstraint::Absolute(Width::Fixed(word + 1)));
            } else if index > 0 {
                column.set_constraint(least);
            }
        }
    }

    /// Prints the table as wide as the terminal.
    ///
    /// # Errors
    /// A standard output that cannot be written.
    pub fn print(self) -> Result<()> {
        print(&self.text(width()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_cells_wrap_and_no_line_is_wider_than_asked() {
        let mut table = Table::new(["name", "n", "what it is"]);
        table.row(["short", "3", &"word ".repeat(40)]);
        table.row(["a-longer-name", "12", "brief\u{1b}[2J"]);
        let text = table.text(60);
        assert!(text.lines().all(|line| line.chars().count() <= 60), "{text}");
        assert!(text.contains("a-longer-name") && !text.contains('\u{1b}'), "{text}");
        assert_eq!(text.matches("word").count(), 40);
    }

    #[test]
    fn words_wrap_as_wholes() {
        let heading = ["run", "method", "epsilon", "noticed", "sign", "reference rule", "verdict"];
        let mut table = Table::new(heading);
        table.row(["runs/sora", "sora", "8/255", "-", "-", "-", "-"]);
        let text = table.text(58);
        assert!(text.lines().all(|line| line.chars().count() <= 58), "{text}");
        for word in heading.iter().flat_map(|name| name.split(' ')) {
            assert!(text.contains(word), "{word}: {text}");
        }
    }

    #[test]
    fn a_long_path_is_cut_before_the_words_of_other_columns() {
        let heading = ["run", "method", "epsilon", "noticed", "sign", "reference rule", "verdict"];
        let mut table = Table::new(heading);
        let path = "runs/w8_60_epochs_warm_10_seed_0-555bd98b-and-more-of-it";
        table.row([path, "fgsm", "16/255", "2431", "pertalign", "3129", "collapsed"]);
        let text = table.text(70);
        assert!(text.lines().all(|line| line.chars().count() <= 70), "{text}");
        for word in ["method", "epsilon", "noticed", "pertalign", "reference", "collapsed", "3129"]
        {
            assert!(text.contains(word), "{word}: {text}");
        }
        let first = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
        assert_eq!(text.lines().skip(2).map(first).collect::<String>(), path, "{text}");
    }
}
