//! What makes a guest's memory what it is, and the name that follows from it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::FORMAT;

/// Hexadecimal digits of an id.
const DIGITS: usize = 24;

/// All that would make the memory of a guest that has just booted another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemplateKey {
    /// The engine's name.
    pub engine: String,
    /// Its program, where one is named. Its version is in the saved machine itself.
    pub program: Option<PathBuf>,
    /// Virtual processors.
    pub cpus: u32,
    /// Guest memory in MiB.
    pub memory_mib: u64,
    /// The size of its scratch disk in MiB; 0 if it has none.
    pub disk_mib: u64,
    /// A name of what it boots from, that nothing else has: such as a hash.
    pub boot: String,
    /// The same of its root filesystem.
    pub rootfs: String,
    /// What ran in it before it was saved, in the words of whoever had it run; empty if nothing did.
    pub warm_up: String,
}

impl TemplateKey {
    /// The name of a template made of this.
    pub fn id(&self) -> TemplateId {
        let mut hash = Sha256::new();
        hash.update(FORMAT.to_le_bytes());
        // Each part behind its length, so that no two keys are one text.
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        part(self.engine.as_bytes());
        part(self.program.as_ref().map_or(&[], |path| path.as_os_str().as_encoded_bytes()));
        part(&self.cpus.to_le_bytes());
        part(&self.memory_mib.to_le_bytes());
        part(&self.disk_mib.to_le_bytes());
        part(self.boot.as_bytes());
        part(self.rootfs.as_bytes());
        part(self.warm_up.as_bytes());
        let mut id = hex::encode(hash.finalize());
        id.truncate(DIGITS);
        TemplateId(id)
    }
}

/// A template's name: 24 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TemplateId(String);

/// A text that is no template's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a template's id has {DIGITS} hexadecimal digits")]
pub struct InvalidTemplateId;

impl TemplateId {
    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TemplateId {
    type Err = InvalidTemplateId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() == DIGITS && text.as_bytes().iter().all(hex) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidTemplateId)
        }
    }
}

impl fmt::Display for TemplateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn key() -> TemplateKey {
        TemplateKey {
            engine: "qemu".to_owned(),
            program: None,
            cpus: 1,
            memory_mib: 96,
            disk_mib: 0,
            boot: "b".to_owned(),
            rootfs: "r".to_owned(),
            warm_up: String::new(),
        }
    }

    #[test]
    fn every_part_makes_another_id() {
        let others = [
            TemplateKey { engine: "kvm".to_owned(), ..key() },
            TemplateKey { program: Some("/q".into()), ..key() },
            TemplateKey { cpus: 2, ..key() },
            TemplateKey { memory_mib: 97, ..key() },
            TemplateKey { disk_mib: 1, ..key() },
            TemplateKey { boot: "c".to_owned(), ..key() },
            TemplateKey { boot: "br".to_owned(), rootfs: String::new(), ..key() },
            TemplateKey { rootfs: "rr".to_owned(), ..key() },
            TemplateKey { warm_up: "w".to_owned(), ..key() },
        ];
        let mut ids: Vec<TemplateId> = others.iter().map(TemplateKey::id).collect();
        ids.push(key().id());
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 10);
        assert_eq!(key().id(), key().id());
    }

    #[test]
    fn an_id_is_read_back_and_nothing_else_is() {
        let id = key().id();
        assert_eq!(id.as_str().parse(), Ok(id.clone()));
        for bad in
            ["", "../..", "0123456789abcdef0123456", "0123456789ABCDEF01234567", "0123456789abcdef012345678"]
        {
            assert_eq!(bad.parse::<TemplateId>(), Err(InvalidTemplateId), "{bad}");
        }
    }
}
