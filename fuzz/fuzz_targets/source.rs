//! Texts as sources of images: what is one is written in a form that means the same.
#![no_main]

use cellule_image::Source;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(source) = text.parse::<Source>() else { return };
    let written = source.to_string();
    assert_eq!(written.parse::<Source>().as_ref(), Ok(&source), "{written:?}");
});
