//! What a guest says first on a connection, read as TLS and as HTTP: nothing panics, and what is said later changes no name that was found.
#![no_main]

use cellule_network::fuzzing::shown;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, &[u8])| {
    let (tls, said) = input;
    let said = if tls { [&[22, 3, 1], said].concat() } else { said.to_vec() };
    let all = shown(&said);
    for length in [said.len() / 2, said.len().saturating_sub(1)] {
        if let Some(part) = shown(&said[..length]) {
            assert_eq!(Some(part), all, "the name became another");
        }
    }
});
