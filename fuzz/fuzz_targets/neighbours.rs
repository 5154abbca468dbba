//! What a neighbour's gateway says first: whatever is a header is written back as it came, and its id leads to no other file.
#![no_main]

use arbitrary::Arbitrary;
use cellule_network::fuzzing::written_again;
use libfuzzer_sys::fuzz_target;

/// A header: any bytes, or one that is nearly right.
#[derive(Debug, Arbitrary)]
enum Header {
    Any(Vec<u8>),
    Near { udp: bool, is_v6: bool, ports: [u8; 4], longer: i8, id: Vec<u8> },
}

/// What an id may have, and some of what it may not.
const LETTERS: &[u8] = b"abz019_-.A/\0\xc3";

impl Header {
    fn bytes(self) -> Vec<u8> {
        match self {
            Self::Any(bytes) => bytes,
            Self::Near { udp, is_v6, ports, longer, id } => {
                // Few of them are wrong.
                let id: Vec<u8> = id.iter().map(|at| LETTERS[usize::from(at % 64) % LETTERS.len()]).collect();
                let length = (id.len() as u8).wrapping_add_signed(longer / 64);
                let fixed = [1, if udp { 17 } else { 6 }, if is_v6 { 6 } else { 4 }];
                [&fixed[..], &ports, &[length], &id].concat()
            }
        }
    }
}

fuzz_target!(|header: Header| {
    let bytes = header.bytes();
    let Some(written) = written_again(&bytes) else { return };
    assert_eq!(written, bytes);
    let id = &bytes[8..];
    assert!(!id.is_empty() && id[0] != b'.' && !id.contains(&b'/') && !id.contains(&0), "the id is a path");
});
