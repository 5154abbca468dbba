//! Which modules a guest gets, and in which order they load.
//!
//! A package has no `modules.dep` (`depmod` writes that at installation), so dependencies come from the modules
//! themselves, and from `modules.builtin` comes what needs no file.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::decompress::Format;
use crate::error::read_file;
use crate::modinfo::{Modinfo, module_name, without_signature};
use crate::{Error, ModuleError, Result};

/// What every guest needs: the transport, the disk, the network card, and the two file systems that make a rootfs.
pub const REQUIRED_MODULES: [&str; 5] = ["virtio_mmio", "virtio_blk", "virtio_net", "erofs", "overlay"];

/// What a guest can use if the kernel has it; loaded by the agent when something calls for it, not at boot.
pub const OPTIONAL_MODULES: [&str; 4] =
    ["virtio_balloon", "virtio_rng", "vmw_vsock_virtio_transport", "virtiofs"];

/// The most that one module may unpack to; the largest of Debian's needs a tenth of it.
const MODULE_LIMIT: u64 = 64 << 20;
/// How long a chain of dependencies may get; real ones have five links.
const DEPTH_MAX: usize = 32;
/// How many files a directory of modules may hold; a distribution's has five thousand.
const FILES_MAX: usize = 100_000;
/// The ends of file names that modules have.
const SUFFIXES: [&str; 4] = [".ko", ".ko.xz", ".ko.zst", ".ko.gz"];

/// When a module is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Need {
    /// At boot.
    Required,
    /// When something calls for it.
    Optional,
}

impl Need {
    /// The word for it in `modules.order`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Optional => "optional",
        }
    }
}

/// One module of a kernel, as manifests list it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleRecord {
    /// Its name, `-` written as `_`.
    pub name: String,
    /// Its file: the place in the load order and the name, as in `00-virtio_mmio.ko`.
    pub file: String,
    /// When it is loaded.
    pub need: Need,
    /// Its size, unpacked and without a signature, in bytes.
    pub size: u64,
}

/// A module that a guest gets: unpacked, without its signature.
#[derive(Debug)]
pub(crate) struct Module {
    pub(crate) name: String,
    pub(crate) need: Need,
    pub(crate) bytes: Vec<u8>,
}

/// The modules that come with a kernel, by name, and the names of those that are part of it.
#[derive(Debug, Default)]
pub(crate) struct ModuleTree {
    files: BTreeMap<String, ModuleFile>,
    builtin: BTreeSet<String>,
}

#[derive(Debug)]
struct ModuleFile {
    path: PathBuf,
    /// The file's bytes, where they are in memory already.
    bytes: Option<Vec<u8>>,
}

impl ModuleTree {
    /// Finds the modules under `dir`, such as `/lib/modules/6.12.9-cloud-amd64`. Symbolic links are not followed:
    /// `build` and `source` lead to whole source trees.
    pub(crate) fn from_dir(dir: &Path) -> Result<Self> {
        let mut tree = Self::default();
        let list = dir.join("modules.builtin");
        if list.exists() {
            tree.add_builtin(&read_file(&list, MODULE_LIMIT)?);
        }
        let mut paths = Vec::new();
        let mut dirs = vec![dir.to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(&dir).map_err(Error::read(&dir))? {
                let entry = entry.map_err(Error::read(&dir))?;
                let kind = entry.file_type().map_err(Error::read(entry.path()))?;
                if kind.is_dir() {
                    dirs.push(entry.path());
                } else if kind.is_file() {
                    paths.push(entry.path());
                }
                if paths.len() + dirs.len() > FILES_MAX {
                    return Err(Error::TooLarge { path: dir, limit: FILES_MAX as u64 });
                }
            }
        }
        // Of two files for one module the last in this order counts: "updates" comes after "kernel", as for depmod.
        paths.sort();
        for path in paths {
            tree.add(path, None);
        }
        Ok(tree)
    }

    /// Adds what a package holds: paths and bytes, modules and others, in any order.
    pub(crate) fn from_files(files: BTreeMap<String, Vec<u8>>) -> Self {
        let mut tree = Self::default();
        for (path, bytes) in files {
            if path.ends_with("/modules.builtin") {
                tree.add_builtin(&bytes);
            } else {
                tree.add(path.into(), Some(bytes));
            }
        }
        tree
    }

    /// Whether a file may be of use to [`Self::from_files`].
    pub(crate) fn wants(path: &str) -> bool {
        path.contains("lib/modules/") && (path.ends_with("/modules.builtin") || stem(path).is_some())
    }

    fn add(&mut self, path: PathBuf, bytes: Option<Vec<u8>>) {
        let name = path.file_name().and_then(|name| stem(name.to_str()?)).and_then(module_name);
        if let Some(name) = name {
            self.files.insert(name, ModuleFile { path, bytes });
        }
    }

    fn add_builtin(&mut self, list: &[u8]) {
        let list = String::from_utf8_lossy(list);
        let names = list.lines().filter_map(|line| module_name(stem(line.rsplit('/').next()?)?));
        self.builtin.extend(names);
    }

    /// The module for a soft dependency, if there is one. Such a name may be an algorithm's rather than a module's:
    /// libcrc32c wants `crc32c`, which every kernel has as `crc32c_generic`, and does not load without. Other
    /// modules may have it too, for some processors only.
    fn soft(&self, name: &str) -> Option<String> {
        let known = |name: &String| self.builtin.contains(name) || self.files.contains_key(name);
        [name.to_owned(), format!("{name}_generic")].into_iter().find(known)
    }

    /// The modules that a guest gets, each behind those it depends on, those needed at boot first.
    pub(crate) fn closure(&self, release: &str) -> Result<Vec<Module>> {
        let mut walk = Walk { tree: self, release, order: Vec::new(), path: Vec::new() };
        for name in REQUIRED_MODULES {
            walk.visit(name, Need::Required)?;
        }
        for name in OPTIONAL_MODULES {
            let before = walk.order.len();
            match walk.visit(name, Need::Optional) {
                // Without one of its parts it is of no use, so it goes as a whole.
                Err(Error::ModuleMissing { .. }) => walk.order.truncate(before),
                other => other?,
            }
            walk.path.clear();
        }
        Ok(walk.order)
    }
}

/// The part of a file's name before `.ko` and what follows; `None` if this is no module.
fn stem(path: &str) -> Option<&str> {
    SUFFIXES.iter().find_map(|suffix| path.strip_suffix(suffix))
}

/// A walk down the dependencies; `order` is what it leaves behind, `path` where it is.
struct Walk<'a> {
    tree: &'a ModuleTree,
    release: &'a str,
    order: Vec<Module>,
    path: Vec<String>,
}

impl Walk<'_> {
    fn visit(&mut self, name: &str, need: Need) -> Result<()> {
        if self.tree.builtin.contains(name) || self.order.iter().any(|module| module.name == name) {
            return Ok(());
        }
        if self.path.iter().any(|above| above == name) || self.path.len() >= DEPTH_MAX {
            return Err(Error::ModuleCycle { name: name.to_owned() });
        }
        let Some(file) = self.tree.files.get(name) else {
            let wanted = match self.path.last() {
                Some(above) => format!("which {above} depends on"),
                None => "which every guest needs".to_owned(),
            };
            return Err(Error::ModuleMissing {
                name: name.to_owned(),
                wanted,
                release: self.release.to_owned(),
            });
        };
        let (bytes, info) = file.load(self.release)?;

        self.path.push(name.to_owned());
        for dependency in &info.depends {
            self.visit(dependency, need)?;
        }
        for dependency in &info.soft_depends {
            if let Some(name) = self.tree.soft(dependency).filter(|name| !self.path.contains(name)) {
                self.visit(&name, need)?;
            }
        }
        self.path.pop();
        self.order.push(Module { name: name.to_owned(), need, bytes });
        Ok(())
    }
}

impl ModuleFile {
    /// The module, unpacked and without its signature, and what it says of itself.
    fn load(&self, release: &str) -> Result<(Vec<u8>, Modinfo)> {
        let packed = match &self.bytes {
            Some(bytes) => Cow::Borrowed(bytes.as_slice()),
            None => Cow::Owned(read_file(&self.path, MODULE_LIMIT)?),
        };
        unpack(&packed, release).map_err(|source| Error::Module { path: self.path.clone(), source })
    }
}

fn unpack(packed: &[u8], release: &str) -> Result<(Vec<u8>, Modinfo), ModuleError> {
    let mut bytes = match Format::detect(packed) {
        Some(format) => format.unpack(packed, MODULE_LIMIT).map_err(ModuleError::Unpack)?,
        None => packed.to_vec(),
    };
    let length = without_signature(&bytes)?.len();
    bytes.truncate(length);
    let info = Modinfo::parse(&bytes)?;
    match &info.built_for {
        Some(built_for) if built_for != release => {
            Err(ModuleError::OtherKernel { built_for: built_for.clone(), release: release.to_owned() })
        }
        _ => Ok((bytes, info)),
    }
}

#[cfg(test)]
pub(crate) mod tests;
