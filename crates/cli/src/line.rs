//! Text of a guest's that is to stay on one line.

/// A path, or a command of a guest's: no byte of it can end the line, or reach the terminal as anything but a character.
pub(crate) fn one_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn nothing_ends_the_line_or_moves_the_cursor() {
        assert_eq!(super::one_line(b"/a\nb\t\x1b[2J\xff"), "/a\u{fffd}b\u{fffd}\u{fffd}[2J\u{fffd}");
    }
}
