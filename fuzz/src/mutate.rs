//! Mutation that begins with valid examples and keeps checksums right, for targets that take plain bytes.

use libfuzzer_sys::fuzzer_mutate;

/// The body of a `fuzz_mutator!`: what is too short to be anything becomes one of the `examples`, all else is mutated
/// as usual and, seven times in eight, repaired.
pub fn mutate(
    data: &mut [u8],
    size: usize,
    max_size: usize,
    seed: u32,
    examples: &[Vec<u8>],
    repair: impl FnOnce(&mut [u8]),
) -> usize {
    let choice = seed as usize;
    if size < 16 {
        let example = &examples[choice % examples.len()];
        let size = example.len().min(max_size);
        data[..size].copy_from_slice(&example[..size]);
        return size;
    }
    let size = fuzzer_mutate(data, size, max_size);
    if choice % 8 != 0 {
        repair(&mut data[..size]);
    }
    size
}
