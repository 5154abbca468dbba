//! Prefaces among anything else: the scanner, which sees one byte at a time, finds those that a search of the whole
//! finds, and each is written as it was read.
#![no_main]

use arbitrary::Arbitrary;
use cellule_protocol::preface::{PREFACE_LEN, Preface, Scanner, Side};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
enum Piece {
    Noise(Vec<u8>),
    Preface { host: bool, lowest: u16, highest: u16, nonce: [u8; 16], cut: Option<u8> },
}

fn side(host: bool) -> Side {
    if host { Side::Host } else { Side::Agent }
}

fn bytes(pieces: Vec<Piece>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Noise(noise) => bytes.extend(noise),
            Piece::Preface { host, lowest, highest, nonce, cut } => {
                let preface = Preface { versions: lowest..=highest, nonce }.encode(side(host));
                let end = cut.map_or(PREFACE_LEN, |cut| usize::from(cut) % PREFACE_LEN);
                bytes.extend(&preface[..end]);
            }
        }
    }
    bytes
}

fuzz_target!(|input: (bool, Vec<Piece>)| {
    let (host, pieces) = input;
    let (side, bytes) = (side(host), bytes(pieces));
    let encoded = Preface { versions: 0..=0, nonce: [0; 16] }.encode(side);
    let magic = &encoded[..8];

    let mut at = 0;
    let mut scanner = Scanner::new(side);
    while at < bytes.len() {
        let whole = bytes.get(at..at + PREFACE_LEN).filter(|part| part.starts_with(magic));
        let Some(whole) = whole else {
            // A byte that begins none; what the scanner holds back it must give up by itself. A preface that is cut
            // short by the end is held and never found.
            let rest = &bytes[at..];
            if rest.starts_with(magic) {
                assert!(rest.iter().all(|byte| scanner.push(*byte).is_none()));
                return;
            }
            assert!(scanner.push(bytes[at]).is_none());
            at += 1;
            continue;
        };
        let (last, first) = whole.split_last().expect("a preface has bytes");
        assert!(first.iter().all(|byte| scanner.push(*byte).is_none()));
        let found = scanner.push(*last).expect("a whole preface is found");
        assert_eq!(found.encode(side), whole);
        at += PREFACE_LEN;
    }
});
