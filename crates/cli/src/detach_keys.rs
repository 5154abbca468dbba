//! The keys that leave a program running and give the terminal back: Ctrl-P Ctrl-Q, unless others are chosen.
//!
//! ```text
//! typed:   a   ^P      b         ^P      ^Q
//! passed:  a   (held)  ^P b      (held)  detached
//! ```

use std::ops::ControlFlow;
use std::str::FromStr;

/// Control and P, then control and Q.
const DEFAULT: &[u8] = &[0x10, 0x11];

/// A longer sequence is nothing that anybody types.
const MAX_KEYS: usize = 64;

/// The sequence: at least one byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DetachKeys(Vec<u8>);

impl Default for DetachKeys {
    fn default() -> Self {
        Self(DEFAULT.to_vec())
    }
}

/// Why a text names no sequence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DetachKeysError {
    /// A part between commas is no key.
    #[error(
        "{0:?} is no key; write keys such as ctrl-p,ctrl-q or a,b: one character, ctrl- and one of a to z @ [ \\ ] ^ _, or DEL"
    )]
    Key(String),
    /// There are too many.
    #[error("it has more than {MAX_KEYS} keys")]
    TooLong,
}

impl FromStr for DetachKeys {
    type Err = DetachKeysError;

    /// Reads Docker's form: keys with commas between them. Nothing is the default, as an unset variable gives it.
    fn from_str(text: &str) -> Result<Self, DetachKeysError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let keys: Vec<u8> = text.split(',').map(key).collect::<Result<_, _>>()?;
        if keys.len() > MAX_KEYS { Err(DetachKeysError::TooLong) } else { Ok(Self(keys)) }
    }
}

fn key(name: &str) -> Result<u8, DetachKeysError> {
    let unknown = || DetachKeysError::Key(name.to_owned());
    match name.as_bytes() {
        [key @ 0..=0x7f] => Ok(*key),
        b"DEL" => Ok(0x7f),
        // A control key is its letter without the two bits above the low five.
        [b'c', b't', b'r', b'l', b'-', letter @ (b'a'..=b'z' | b'@' | b'['..=b'_')] => Ok(letter & 0x1f),
        _ => Err(unknown()),
    }
}

/// Looks for the sequence in what is typed, and passes all else on.
///
/// What may be the beginning of the sequence is held back until another key decides.
#[derive(Debug)]
pub(crate) struct DetachFilter {
    keys: Vec<u8>,
    /// For each number of keys that were right: how many of the last of them begin the sequence anew.
    borders: Vec<usize>,
    /// How many keys of the sequence are held back.
    held: usize,
}

impl DetachFilter {
    /// One that has seen nothing yet.
    pub(crate) fn new(keys: &DetachKeys) -> Self {
        let keys = keys.0.clone();
        let mut borders = vec![0; keys.len() + 1];
        let mut border = 0;
        for at in 1..keys.len() {
            while border > 0 && keys[at] != keys[border] {
                border = borders[border];
            }
            if keys[at] == keys[border] {
                border += 1;
            }
            borders[at + 1] = border;
        }
        Self { keys, borders, held: 0 }
    }

    /// Adds to `out` what of `input` is decided. A break says that the sequence is complete: what comes after it is not
    /// for the program.
    pub(crate) fn pass(&mut self, input: &[u8], out: &mut Vec<u8>) -> ControlFlow<()> {
        for &byte in input {
            if self.held == self.keys.len() {
                return ControlFlow::Break(());
            }
            while self.held > 0 && byte != self.keys[self.held] {
                let border = self.borders[self.held];
                out.extend_from_slice(&self.keys[..self.held - border]);
                self.held = border;
            }
            if byte == self.keys[self.held] {
                self.held += 1;
            } else {
                out.push(byte);
            }
        }
        if self.held == self.keys.len() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// At the end of the input: adds to `out` what was held back, unless that was the whole sequence.
    pub(crate) fn finish(self, out: &mut Vec<u8>) {
        if self.held < self.keys.len() {
            out.extend_from_slice(&self.keys[..self.held]);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn keys(text: &str) -> Vec<u8> {
        text.parse::<DetachKeys>().unwrap().0
    }

    /// What comes out, and whether it detached.
    fn filtered<'a>(keys: &[u8], chunks: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, bool) {
        let mut filter = DetachFilter::new(&DetachKeys(keys.to_vec()));
        let mut out = Vec::new();
        for chunk in chunks {
            if filter.pass(chunk, &mut out).is_break() {
                return (out, true);
            }
        }
        filter.finish(&mut out);
        (out, false)
    }

    #[test]
    fn keys_are_named_as_docker_names_them() {
        assert_eq!(keys("ctrl-p,ctrl-q"), DEFAULT);
        assert_eq!(keys(""), DEFAULT);
        assert_eq!(keys("a,b"), b"ab");
        assert_eq!(keys("ctrl-@,ctrl-a,ctrl-z"), [0, 1, 26]);
        assert_eq!(keys("ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_,DEL"), [27, 28, 29, 30, 31, 127]);
        for text in ["ctrl-", "ctrl-P", "ctrl-1", "ctrl-aa", "alt-a", "a,", ",", "ab", "é"] {
            assert!(matches!(text.parse::<DetachKeys>(), Err(DetachKeysError::Key(_))), "{text}");
        }
        let long = vec!["a"; MAX_KEYS + 1].join(",");
        assert_eq!(long.parse::<DetachKeys>(), Err(DetachKeysError::TooLong));
    }

    #[test]
    fn a_beginning_is_held_back_until_another_key_decides() {
        let mut filter = DetachFilter::new(&DetachKeys::default());
        let mut out = Vec::new();
        assert!(filter.pass(b"a\x10", &mut out).is_continue());
        assert_eq!(out, b"a");
        assert!(filter.pass(b"b", &mut out).is_continue());
        assert_eq!(out, b"a\x10b");
        assert!(filter.pass(b"\x10", &mut out).is_continue());
        assert!(filter.pass(b"\x11rest", &mut out).is_break());
        assert_eq!(out, b"a\x10b");
        assert!(filter.pass(b"more", &mut out).is_break());
        assert_eq!(out, b"a\x10b");
    }

    #[test]
    fn the_end_of_the_input_gives_back_what_was_held() {
        assert_eq!(filtered(DEFAULT, [&b"x\x10"[..]]), (b"x\x10".to_vec(), false));
    }

    #[test]
    fn a_sequence_that_begins_within_itself_is_found() {
        assert_eq!(filtered(b"aab", [&b"aaab"[..]]), (b"a".to_vec(), true));
        assert_eq!(filtered(b"abab!", [&b"ababab!"[..]]), (b"ab".to_vec(), true));
    }

    proptest! {
        #[test]
        fn what_comes_out_is_what_came_in_before_the_first_sequence(
            // Few letters, so that the sequence and its beginnings turn up.
            keys in vec(b'a'..=b'c', 1..5),
            input in vec(b'a'..=b'c', 0..40),
            cuts in vec(0_usize..40, 0..6),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(input.len())).collect();
            cuts.extend([0, input.len()]);
            cuts.sort_unstable();
            let chunks = cuts.windows(2).map(|pair| &input[pair[0]..pair[1]]);
            let found = input.windows(keys.len()).position(|window| window == keys);
            let expected = (input[..found.unwrap_or(input.len())].to_vec(), found.is_some());
            prop_assert_eq!(filtered(&keys, chunks), expected);
        }
    }
}
