//! Listings as aligned columns, the way Docker prints them.

use std::fmt::Write as _;

use crate::failure::printable;

const GAP: usize = 3;

/// Lays out rows below a header. A cell that holds control characters of somebody else's loses them.
pub(crate) fn render<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> String {
    let rows: Vec<[String; N]> = rows.iter().map(|row| row.each_ref().map(|cell| printable(cell))).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([header[column].len()]).max().unwrap_or_default()
    };
    let mut text = String::new();
    let mut line = |cells: [&str; N]| {
        let mut row = String::new();
        for (column, cell) in cells.into_iter().enumerate() {
            _ = write!(row, "{cell:<width$}", width = width(column) + GAP);
        }
        text.push_str(row.trim_end());
        text.push('\n');
    };
    line(header);
    for row in &rows {
        line(row.each_ref().map(String::as_str));
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let text =
            super::render(["A", "LONG"], &[["value".into(), "x".into()], ["v".into(), "y\x1b".into()]]);
        assert_eq!(text, "A       LONG\nvalue   x\nv       y\u{fffd}\n");
    }
}
