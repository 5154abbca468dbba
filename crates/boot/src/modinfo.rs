//! What a kernel module says of itself, and the module without its signature.

use elf::ElfBytes;
use elf::endian::LittleEndian;

use crate::DecompressError;

/// What the kernel's build appends behind a module's signature.
const SIGNATURE_MARK: &[u8] = b"~Module signature appended~\n";
/// `struct module_signature`, between the signature and the mark.
const SIGNATURE_INFO: usize = 12;

/// Why a module cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModuleError {
    /// The file does not unpack.
    #[error("it cannot be unpacked")]
    Unpack(#[source] DecompressError),
    /// The ELF is malformed.
    #[error("its ELF is malformed")]
    Elf(#[source] elf::ParseError),
    /// The module has no `.modinfo`.
    #[error("it has no .modinfo section")]
    NoModinfo,
    /// The signature's length lies.
    #[error("its signature is said to be {length} bytes long, more than the file")]
    Signature {
        /// The length in the file.
        length: u32,
    },
    /// The module was built for another kernel.
    #[error("it was built for the kernel {built_for}, not for {release}")]
    OtherKernel {
        /// The release in its `vermagic`.
        built_for: String,
        /// The kernel's release.
        release: String,
    },
}

/// The parts of `.modinfo` that matter here. Names have `-` written as `_`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Modinfo {
    /// Modules whose symbols this one uses.
    pub(crate) depends: Vec<String>,
    /// Modules that this one asks to have loaded before, and can go without.
    pub(crate) soft_depends: Vec<String>,
    /// The release of the kernel that it was built for.
    pub(crate) built_for: Option<String>,
}

impl Modinfo {
    /// Reads the section from an unpacked module.
    pub(crate) fn parse(module: &[u8]) -> Result<Self, ModuleError> {
        let elf = ElfBytes::<LittleEndian>::minimal_parse(module).map_err(ModuleError::Elf)?;
        let header = elf
            .section_header_by_name(".modinfo")
            .map_err(ModuleError::Elf)?
            .ok_or(ModuleError::NoModinfo)?;
        let (section, compressed) = elf.section_data(&header).map_err(ModuleError::Elf)?;
        if compressed.is_some() {
            return Err(ModuleError::NoModinfo);
        }

        let mut info = Self::default();
        for field in section.split(|byte| *byte == 0) {
            let field = String::from_utf8_lossy(field);
            match field.split_once('=') {
                Some(("depends", names)) => info.depends.extend(names.split(',').filter_map(module_name)),
                Some(("softdep", text)) => info.soft_depends.extend(before(text)),
                Some(("vermagic", text)) => {
                    info.built_for = text.split_ascii_whitespace().next().map(str::to_owned);
                }
                _ => (),
            }
        }
        Ok(info)
    }
}

/// The names after `pre:` in a `softdep` field such as `pre: a b post: c`.
fn before(text: &str) -> Vec<String> {
    let words = text.split_ascii_whitespace().skip_while(|word| *word != "pre:").skip(1);
    words.take_while(|word| !word.ends_with(':')).filter_map(module_name).collect()
}

/// A module's name in the one form in which names are compared; `None` for what cannot be one.
pub(crate) fn module_name(text: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let name = text.trim();
    (!name.is_empty() && name.len() <= 64 && !name.starts_with('.') && name.chars().all(plain))
        .then(|| name.replace('-', "_"))
}

/// The module without the signature behind it.
///
/// The guest's kernel would verify it, which means RSA and a hash over the module, dear on an emulated CPU, to learn
/// what the host knows already: the package is signed, and the bundle is verified as a whole. A kernel that insists
/// on signatures (`CONFIG_MODULE_SIG_FORCE`) would refuse the module; no distribution's is built so.
pub(crate) fn without_signature(module: &[u8]) -> Result<&[u8], ModuleError> {
    let Some(rest) = module.strip_suffix(SIGNATURE_MARK) else { return Ok(module) };
    let lies = |length| ModuleError::Signature { length };
    let (rest, info) = rest.split_last_chunk::<SIGNATURE_INFO>().ok_or_else(|| lies(0))?;
    let length = u32::from_be_bytes([info[8], info[9], info[10], info[11]]);
    // Signer and key id come before the signature and have their lengths in the fourth and fifth byte; 0 today.
    let behind = length as usize + usize::from(info[3]) + usize::from(info[4]);
    rest.len().checked_sub(behind).map(|end| &rest[..end]).ok_or_else(|| lies(length))
}

#[cfg(test)]
pub(crate) mod tests;
