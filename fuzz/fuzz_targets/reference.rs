//! Texts as references: what is one is written in a form that means the same, and in a short form that does too.
#![no_main]

use cellule_image::Reference;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(reference) = text.parse::<Reference>() else { return };
    let parsed = |text: String| text.parse::<Reference>().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(parsed(reference.to_string()), reference);
    assert_eq!(parsed(reference.familiar()), reference);
    assert!(reference.tag().is_some() || reference.digest().is_some());
    // It becomes part of a URL.
    let name = reference.name();
    assert!(name.len() <= 255 && name.bytes().all(|byte| byte.is_ascii_graphic()));
    assert!(!name.split('/').any(|part| matches!(part, "" | "." | "..")));
    let other = reference.with_digest(cellule_image::Digest::of(b""));
    assert_eq!(parsed(other.to_string()), other);
});
