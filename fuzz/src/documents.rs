//! Edits of documents, by a dictionary that knows what stands in those of images.

use arbitrary::{Arbitrary, Result, Unstructured};

/// What may be put anywhere.
const WORDS: [&str; 38] = [
    "",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "null",
    "true",
    "0",
    "-1",
    "1e400",
    "18446744073709551615",
    "\"\"",
    "{}",
    "[]",
    "\\u0000",
    "\\ud800",
    "\"urls\":[\"a\"],",
    "\"platform\":{\"os\":\"linux\",\"architecture\":\"arm\"},",
    "\"platform\":{\"os\":\"\",\"architecture\":\"\",\"variant\":\"v8\"},",
    "\"annotations\":{\"a\":null},",
    "\"annotations\":{\"org.opencontainers.image.ref.name\":\"a:b\"},",
    "\"manifests\":[],",
    "\"layers\":[],",
    "\"config\":null,",
    "\"mediaType\":\"\",",
    "\"schemaVersion\":1,",
    "sha256:",
    "sha512:",
    "+gzip",
    "+zstd",
    "\"Volumes\":[\"a\"],",
    "\"Cmd\":\"sh\",",
    "\"ExposedPorts\":{\"80/tcp\":{}},",
    "\"rootfs\":{},",
    "\"size\":0,",
];

/// Edits, each of which replaces some bytes by a word.
#[derive(Debug)]
pub struct Edits(Vec<(u16, u8, &'static str)>);

impl<'a> Arbitrary<'a> for Edits {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let mut edits = Vec::new();
        while edits.len() < 6 && u.ratio(1, 2)? {
            let removed = if u.ratio(1, 2)? { 0 } else { u.int_in_range(0..=40)? };
            edits.push((u.arbitrary()?, removed, *u.choose(&WORDS)?));
        }
        Ok(Self(edits))
    }
}

impl Edits {
    /// Applies them. What follows a comma or a bracket is the likeliest place, where a word does least damage.
    pub fn apply(&self, document: String) -> Vec<u8> {
        let mut bytes = document.into_bytes();
        for (at, removed, word) in &self.0 {
            let at = usize::from(*at);
            let places: Vec<usize> =
                (1..bytes.len()).filter(|at| matches!(bytes[at - 1], b',' | b'{' | b'[' | b':')).collect();
            let at = if at % 4 == 0 || places.is_empty() {
                at % (bytes.len() + 1)
            } else {
                places[at % places.len()]
            };
            let end = (at + usize::from(*removed)).min(bytes.len());
            bytes.splice(at..end, word.bytes());
        }
        bytes
    }
}
