//! Tables in docker's layout: columns at least ten wide, three spaces between them, the last one as it comes.

use super::text::visible;

/// The narrowest column, with its gap.
const NARROWEST: usize = 10;
/// Spaces between columns.
const GAP: usize = 3;

/// Lays out rows of cells, the header first. Control characters in cells become visible.
pub fn layout(rows: &[Vec<String>]) -> String {
    layout_wide(rows, NARROWEST)
}

/// The same with columns at least so wide, their gap included.
pub fn layout_wide(rows: &[Vec<String>], narrowest: usize) -> String {
    let rows: Vec<Vec<_>> = rows.iter().map(|row| row.iter().map(|cell| visible(cell)).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(|cell| width(cell) + GAP).max().unwrap_or(0))
        .map(|width| width.max(narrowest))
        .collect();
    let mut text = String::new();
    for row in &rows {
        for (n, (cell, width_of_column)) in row.iter().zip(&widths).enumerate() {
            text.push_str(cell);
            if n + 1 < row.len() {
                text.extend(std::iter::repeat_n(' ', width_of_column - width(cell)));
            }
        }
        text.push('\n');
    }
    text
}

/// Columns of the terminal that a text takes.
fn width(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { unicode_width::UnicodeWidthStr::width(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|&cell| cell.to_owned()).collect()
    }

    #[test]
    fn columns_are_dockers() {
        let text = layout(&[row(&["ID", "LONG HEADER", "NAMES"]), row(&["abc", "x", "one"]), row(&["d", "", ""])]);
        assert_eq!(text, "ID        LONG HEADER   NAMES\nabc       x             one\nd                       \n");
    }

    #[test]
    fn wide_characters_and_escapes_keep_columns_straight() {
        let text = layout(&[row(&["NAME OF IT", "X"]), row(&["\u{6f22}\u{5b57}", "x"]), row(&["a\x1bb", "x"])]);
        let starts: Vec<_> = text.lines().map(|line| width(line) - 1).collect();
        assert_eq!(starts, [13, 13, 13]);
    }
}
