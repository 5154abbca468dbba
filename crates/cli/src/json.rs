//! JSON for people's terminals and for programs alike.
//!
//! JSON escapes the control characters below U+0020 itself. DEL and those from U+0080 to U+009F it may leave as they
//! are, and a terminal may obey them, so they are escaped here.

use std::fmt::Write as _;

use serde::Serialize;

use crate::failure::Failure;

/// A value on many lines, the last one ended.
///
/// # Errors
/// It has no form in JSON.
pub(crate) fn pretty(value: &(impl Serialize + ?Sized)) -> Result<String, Failure> {
    finish(serde_json::to_string_pretty(value))
}

/// A value on a line of its own.
///
/// # Errors
/// It has no form in JSON.
pub(crate) fn line(value: &(impl Serialize + ?Sized)) -> Result<String, Failure> {
    finish(serde_json::to_string(value))
}

fn finish(json: serde_json::Result<String>) -> Result<String, Failure> {
    let json = json.map_err(|error| Failure::because("cannot write it as JSON", &error))?;
    Ok(escape(json) + "\n")
}

/// Outside of strings JSON has none of these characters, so each stands in one.
fn escape(json: String) -> String {
    let hidden = |c: char| matches!(c, '\u{7f}'..='\u{9f}');
    if !json.contains(hidden) {
        return json;
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if hidden(c) {
            _ = write!(escaped, "\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    #[test]
    fn control_characters_are_escaped_and_read_back_the_same() {
        let text = "a\u{1b}[2J\u{7f}\u{80}\u{9b}31m\u{9f}\u{a0}é\"\\";
        for json in [super::pretty(&[text]).unwrap(), super::line(&[text]).unwrap()] {
            assert!(!json.contains(|c: char| c.is_control() && c != '\n'), "{json:?}");
            assert!(json.contains("\\u007f\\u0080\\u009b31m\\u009f\u{a0}é"), "{json:?}");
            assert_eq!(serde_json::from_str::<Vec<String>>(&json).unwrap(), [text]);
        }
    }

    #[test]
    fn a_line_is_one_line() {
        assert_eq!(super::line(&["a\nb", "c"]).unwrap(), "[\"a\\nb\",\"c\"]\n");
    }
}
