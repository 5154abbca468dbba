//! A secret, texts that have it or its placeholder in them, and what is to be found there.

use std::fmt::Write;

use arbitrary::Arbitrary;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The secrets' placeholders, which are the same but for their end.
pub const PLACEHOLDERS: [&str; 2] =
    ["cellule-secret-00112233445566778899aabbccddeeff", "cellule-secret-00112233445566778899aabbccddeef0"];
/// What values are made of: nothing that placeholders have, so that no placeholder makes a value of what is around it.
const LETTERS: &[&str] = &["K", "Q", "X", "Z", " ", "%", "\"", "\\", "é"];

/// A value: at least 8 bytes, and rarely very many.
#[derive(Debug, Arbitrary)]
pub struct Value {
    letters: Vec<u8>,
    times: u8,
}

impl Value {
    pub fn bytes(&self) -> Vec<u8> {
        let letter = |at: &u8| LETTERS[usize::from(*at) % LETTERS.len()];
        let once: String = self.letters.iter().take(24).map(letter).collect();
        let once = if once.trim().is_empty() { "KKX".to_owned() } else { once };
        // One that is repeated overlaps itself.
        let times = if self.times > 250 { 64 } else { usize::from(self.times % 2) + 1 };
        let mut value = once.repeat(times);
        // What is shorter without blanks is found nowhere.
        while value.trim().len() < 8 {
            value += &once;
        }
        value.into_bytes()
    }
}

/// A part of a text.
#[derive(Debug, Arbitrary)]
pub enum Part {
    Any(Vec<u8>),
    Letters(Vec<u8>),
    Value(u8),
    Percent(u8),
    Json(u8),
    /// The first or last bytes.
    PartOfValue(u8, i8),
    Placeholder(u8),
    PartOfPlaceholder(u8, i8),
    ManyPlaceholders(u8),
    /// What the guest's `Basic` becomes.
    Credentials,
    /// Here one piece ends and another begins, after a while or not.
    Cut(bool),
}

/// What parts are made with.
pub struct Around<'a> {
    pub values: &'a [Vec<u8>],
    pub credentials: &'a [u8],
}

/// A piece of a text, and whether nothing follows it for a while.
pub type Pieces = Vec<(Vec<u8>, bool)>;

impl Around<'_> {
    /// A text in the pieces in which it is sent.
    pub fn pieces(&self, parts: &[Part]) -> Pieces {
        let mut pieces = vec![(Vec::new(), false)];
        for part in parts.iter().take(64) {
            if let Part::Cut(waits) = part {
                pieces.last_mut().expect("there is one").1 = *waits;
                pieces.push((Vec::new(), false));
            } else {
                pieces.last_mut().expect("there is one").0.extend(self.part(part));
            }
        }
        pieces
    }

    fn part(&self, part: &Part) -> Vec<u8> {
        let value = |which: u8| &self.values[usize::from(which) % self.values.len()][..];
        let placeholder = |which: u8| PLACEHOLDERS[usize::from(which) % 2].as_bytes();
        match part {
            Part::Any(bytes) => bytes.clone(),
            Part::Letters(letters) => {
                letters.iter().flat_map(|at| LETTERS[usize::from(*at) % LETTERS.len()].bytes()).collect()
            }
            Part::Value(which) => value(*which).to_vec(),
            Part::Percent(which) => percent(value(*which)),
            Part::Json(which) => json(value(*which)),
            Part::PartOfValue(which, length) => some(value(*which), *length).to_vec(),
            Part::Placeholder(which) => placeholder(*which).to_vec(),
            Part::PartOfPlaceholder(which, length) => some(placeholder(*which), *length).to_vec(),
            Part::ManyPlaceholders(times) => PLACEHOLDERS[0].repeat(usize::from(*times)).into_bytes(),
            Part::Credentials => STANDARD.encode(self.credentials).into_bytes(),
            Part::Cut(_) => Vec::new(),
        }
    }
}

fn some(text: &[u8], length: i8) -> &[u8] {
    let count = usize::from(length.unsigned_abs()) % text.len();
    if length < 0 { &text[text.len() - count..] } else { &text[..count] }
}

pub fn joined(pieces: &Pieces) -> Vec<u8> {
    pieces.iter().flat_map(|(piece, _)| piece.iter().copied()).collect()
}

/// The forms in which a value comes back, without the blanks that headers do not keep.
pub fn forms(value: &[u8]) -> [Vec<u8>; 3] {
    let value = value.trim_ascii();
    [value.to_vec(), percent(value), json(value)]
}

fn percent(value: &[u8]) -> Vec<u8> {
    let encode = |mut text: String, byte: &u8| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            text.push(char::from(*byte));
        } else {
            write!(text, "%{byte:02X}").expect("texts take everything");
        }
        text
    };
    value.iter().fold(String::new(), encode).into_bytes()
}

fn json(value: &[u8]) -> Vec<u8> {
    let quoted =
        serde_json::to_string(str::from_utf8(value).expect("values are text")).expect("texts are JSON");
    quoted[1..quoted.len() - 1].as_bytes().to_vec()
}

/// At how many places `part` is in `text`, which may overlap.
pub fn places(text: &[u8], part: &[u8]) -> usize {
    text.windows(part.len()).filter(|window| *window == part).count()
}

/// Whether `part` is in `text`.
pub fn has(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// What replacing is meant to be: the first text that matches, and the longest of those there. With how often it was done.
pub fn plainly_replaced(texts: &[(&[u8], &[u8])], mut text: &[u8]) -> (Vec<u8>, usize) {
    let (mut result, mut count) = (Vec::new(), 0);
    while let Some(first) = text.first() {
        let mut best: Option<&(&[u8], &[u8])> = None;
        for pair in texts.iter().filter(|(from, _)| !from.is_empty() && text.starts_with(from)) {
            best = best.filter(|best| best.0.len() >= pair.0.len()).or(Some(pair));
        }
        match best {
            Some((from, to)) => {
                result.extend_from_slice(to);
                text = &text[from.len()..];
                count += 1;
            }
            None => {
                result.push(*first);
                text = &text[1..];
            }
        }
    }
    (result, count)
}
