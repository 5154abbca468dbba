//! Shows one text after another: on a terminal each in the place of the last, elsewhere one below the other.

use std::io::{self, IsTerminal as _};

use crate::failure::Failure;
use crate::listing::Format;
use crate::live;
use crate::terminal::WindowSize;

/// Where it is shown.
#[derive(Debug)]
pub(super) struct Screen {
    redraw: bool,
    begun: bool,
}

impl Screen {
    pub(super) fn of(format: Format) -> Self {
        Self { redraw: format == Format::Table && io::stdout().is_terminal(), begun: false }
    }

    /// Shows a text. False: nobody looks any more.
    pub(super) fn show(&mut self, text: &str) -> Result<bool, Failure> {
        let text = if self.redraw { drawn(text, WindowSize::here(), !self.begun) } else { text.to_owned() };
        self.begun = true;
        live::show(&text)
    }
}

/// The text over what stands on the terminal: from its first line on, each line cleared to its end, and all below. What
/// does not fit into the window would make it scroll, and is left out.
fn drawn(text: &str, window: Option<WindowSize>, first: bool) -> String {
    let rows = window.map_or(usize::MAX, |window| usize::from(window.rows).saturating_sub(1));
    let columns = window.map_or(usize::MAX, |window| usize::from(window.columns));
    let lines = text.lines().take(rows).map(|line| {
        let fitting: String = line.chars().take(columns).collect();
        format!("{fitting}\x1b[K\n")
    });
    let clear = if first { "\x1b[2J" } else { "" };
    format!("{clear}\x1b[H{}\x1b[J", lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_drawn_over_the_last_and_kept_within_the_window() {
        assert_eq!(drawn("a\nb\n", None, true), "\x1b[2J\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J");
        let window = Some(WindowSize { rows: 3, columns: 2 });
        assert_eq!(drawn("abc\nd\ne\n", window, false), "\x1b[Hab\x1b[K\nd\x1b[K\n\x1b[J");
    }
}
