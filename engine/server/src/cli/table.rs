//! Plain tables for people.

/// Columns as wide as their widest cell. Control characters of what others
/// wrote are replaced, so that nothing steers the terminal.
pub(crate) fn render(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut lines: Vec<Vec<String>> = vec![head.iter().map(|cell| (*cell).to_owned()).collect()];
    lines.extend(rows);
    let mut widths = vec![0; head.len()];
    for line in &mut lines {
        for (cell, width) in line.iter_mut().zip(&mut widths) {
            *cell = plain(cell);
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for line in lines {
        let cells: Vec<_> = line
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:<width$}"))
            .collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// The text without control characters.
pub(crate) fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_escapes_are_defused() {
        let rows = [vec!["a\u{1b}[2J".to_owned(), "1".to_owned()]];
        assert_eq!(render(&["name", "n"], rows), "name   n\na\u{fffd}[2J  1\n");
    }
}
