//! The one reporter: how a failure is worded on the terminal, what hints go with it, and the exit code.
//!
//! ```text
//! cellule: cannot start the sandbox
//!   because: qemu-system-x86_64 is not installed
//!   hint: apt-get install qemu-system-x86
//! ```

use std::error::Error;
use std::fmt::Write as _;

/// The exit code of every failure that is ours and not the command's.
pub(crate) const OWN_FAILURE: u8 = 125;
/// The command ran into `--timeout`.
pub(crate) const TIMED_OUT: u8 = 124;
/// The command exists and cannot be executed.
pub(crate) const NOT_EXECUTABLE: u8 = 126;
/// There is no such command.
pub(crate) const NOT_FOUND: u8 = 127;

/// Lines of a log or console that a failure shows at most.
const DETAIL_LINES: usize = 20;

/// Why a command of ours failed.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
    causes: Vec<String>,
    details: Vec<(String, String)>,
    hints: Vec<String>,
}

impl Failure {
    /// A failure without a cause below it.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            code: OWN_FAILURE,
            message: message.into(),
            causes: Vec::new(),
            details: Vec::new(),
            hints: Vec::new(),
        }
    }

    /// One that its user caused and knows of: an exit code without a word.
    pub(crate) fn silent(code: u8) -> Self {
        Self::new("").code(code)
    }

    /// A failure for which an error, and the chain of its sources, is the cause.
    pub(crate) fn because(message: impl Into<String>, error: &(dyn Error + 'static)) -> Self {
        let mut this = Self::new(message);
        let mut next = Some(error);
        while let Some(error) = next {
            this.cause(error.to_string());
            next = error.source();
        }
        this
    }

    /// A failure that is an error itself, and the chain of its sources the cause.
    pub(crate) fn of(error: &(dyn Error + 'static)) -> Self {
        match error.source() {
            Some(source) => Self::because(error.to_string(), source),
            None => Self::new(error.to_string()),
        }
    }

    /// Adds a cause below those that are there. One that only repeats what was said is left out.
    pub(crate) fn cause(&mut self, text: String) {
        let said = self.causes.last().unwrap_or(&self.message);
        if !text.is_empty() && !said.ends_with(&text) {
            self.causes.push(text);
        }
    }

    /// What its user can do about it.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The last lines of something that was printed elsewhere, with a title.
    #[must_use]
    pub(crate) fn detail(mut self, title: impl Into<String>, text: &str) -> Self {
        let text = text.trim_end();
        if !text.is_empty() {
            let lines: Vec<&str> = text.lines().collect();
            let last = &lines[lines.len().saturating_sub(DETAIL_LINES)..];
            self.details.push((title.into(), last.join("\n")));
        }
        self
    }

    /// Another exit code than [`OWN_FAILURE`].
    #[must_use]
    pub(crate) fn code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// The exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        self.code
    }

    /// The whole text, its last line ended; empty for one that needs no words.
    pub(crate) fn render(&self) -> String {
        if self.message.is_empty() {
            return String::new();
        }
        let mut text = format!("cellule: {}\n", printable(&self.message));
        for cause in &self.causes {
            _ = writeln!(text, "  because: {}", printable(cause));
        }
        for (title, lines) in &self.details {
            _ = writeln!(text, "  {title}:");
            for line in lines.lines() {
                _ = writeln!(text, "    | {}", printable(line));
            }
        }
        for hint in &self.hints {
            _ = writeln!(text, "  hint: {}", printable(hint));
        }
        text
    }
}

/// An error and its causes in one line, for a table or a document.
pub(crate) fn line(error: &(dyn Error + 'static)) -> String {
    let errors = std::iter::successors(Some(error), |&error| error.source());
    errors.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Text of a guest, a registry or a file may hold escape sequences; a terminal must not get them from us.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' && c != '\n' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn each_cause_is_said_once() {
        let error = Outer(std::io::Error::other("inner"));
        let failure = Failure::because("cannot do it", &error).hint("do it otherwise");
        let expected = "cellule: cannot do it\n  because: outer\n  because: inner\n  hint: do it otherwise\n";
        assert_eq!(failure.render(), expected);
        let failure = Failure::because("cannot do it: inner", &std::io::Error::other("inner"));
        assert_eq!(failure.render(), "cellule: cannot do it: inner\n");
    }

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        let failure =
            Failure::new("bad name \x1b[2J").detail("console", "\x1b]0;title\x07 panic\r").hint("\x1b[2J");
        assert!(!failure.render().contains(['\x1b', '\x07', '\r']));
    }

    #[test]
    fn only_the_end_of_a_long_detail_is_shown() {
        let log: String = (0..100).map(|n| format!("line {n}\n")).collect();
        let text = Failure::new("x").detail("console", &log).render();
        assert!(text.contains("line 99") && !text.contains("line 79"));
    }
}
