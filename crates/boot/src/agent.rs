//! The agent's bytes and their digest.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

/// The guest agent that was built with this crate.
pub const AGENT: Agent<'static> = Agent {
    bytes: include_bytes!(env!("CELLULE_AGENT_PATH")),
    sha256: Cow::Borrowed(env!("CELLULE_AGENT_SHA256")),
};

/// A static program that becomes `/init` in the guest.
///
/// The digest goes with it, since each start of a guest asks whether the bundle holds this agent: hashing megabytes
/// then would cost more than restoring the guest.
#[derive(Clone)]
pub struct Agent<'a> {
    bytes: &'a [u8],
    sha256: Cow<'a, str>,
}

impl<'a> Agent<'a> {
    /// Takes the program's bytes and hashes them.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, sha256: Cow::Owned(hex::encode(Sha256::digest(bytes))) }
    }

    /// The program, an ELF.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The SHA-256 of the program, in lower-case hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }
}

impl std::fmt::Debug for Agent<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent").field("size", &self.bytes.len()).field("sha256", &self.sha256).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_made_at_build_time_is_the_digest_of_the_bytes() {
        assert_eq!(AGENT.sha256(), Agent::new(AGENT.bytes()).sha256());
    }

    #[test]
    fn the_agent_built_in_is_a_static_program() {
        let elf = elf::ElfBytes::<elf::endian::LittleEndian>::minimal_parse(AGENT.bytes()).unwrap();
        assert_eq!(elf.ehdr.e_machine, elf::abi::EM_X86_64);
        assert!(elf.segments().unwrap().iter().all(|segment| segment.p_type != elf::abi::PT_INTERP));
    }
}
