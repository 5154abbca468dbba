//! Where a kernel and its modules come from, and the cache of what was taken from there.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::apt::{Apt, Package, Wanted};
use crate::error::read_file;
use crate::modules::{Module, ModuleRecord, ModuleTree};
use crate::store::{Draft, Store, Stored};
use crate::vmlinux::{Vmlinux, valid_release};
use crate::{Error, KernelError, Result, bzimage, deb};

/// The name of the kernel's ELF in its directories.
pub(crate) const KERNEL: &str = "kernel";
/// The meta-packages of Debian's kernels for virtual machines, the newest first. Debian 12 has 6.1 under the plain
/// name and 6.12 beside it; later releases have theirs under the plain name.
const META_PACKAGES: [&str; 2] = ["linux-image-6.12-cloud-amd64", "linux-image-cloud-amd64"];
const PACKAGE_PREFIX: &str = "linux-image-";
/// The most that a kernel's file may weigh, packed or not.
const IMAGE_LIMIT: u64 = 1 << 30;

/// Where the guest's kernel and its modules are taken from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelSource {
    /// Debian's package for virtual machines, through the host's apt.
    Debian,
    /// `/boot/vmlinuz-RELEASE` (or `/lib/modules/RELEASE/vmlinuz`) and `/lib/modules/RELEASE`.
    Host {
        /// The release; that of the running kernel if `None`.
        release: Option<String>,
    },
    /// Files of the user's.
    Files {
        /// A bzImage or an ELF.
        kernel: PathBuf,
        /// A directory such as `/lib/modules/6.12.9`. `None` says that everything is part of the kernel: no module
        /// is looked for then, and the guest finds out.
        modules: Option<PathBuf>,
    },
}

impl KernelSource {
    /// What suits this host: Debian's package where there is apt, else the host's own kernel.
    pub fn for_this_host() -> Self {
        if Apt::is_installed() { Self::Debian } else { Self::Host { release: None } }
    }
}

/// Where something was taken from, as manifests keep it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceRecord {
    /// A package of Debian's.
    Debian {
        /// Its name.
        package: String,
        /// Its version.
        version: String,
    },
    /// A file.
    File {
        /// Its path.
        path: PathBuf,
    },
}

/// What a manifest says of a kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelContents {
    /// The release, such as `6.12.9-cloud-amd64`.
    pub release: String,
    /// Where it came from.
    pub source: SourceRecord,
    /// Its modules, in load order.
    pub modules: Vec<ModuleRecord>,
}

/// A kernel as it was found, before anything was looked into.
struct Found {
    /// The kernel's path, on disk or in a package.
    path: PathBuf,
    image: Vec<u8>,
    /// `None` if there are none to look for.
    modules: Option<ModuleTree>,
    source: SourceRecord,
}

/// The kernel from `source`, in the cache. A package that is there already is not fetched again.
pub(crate) fn obtain(
    source: &KernelSource,
    store: &Store<KernelContents>,
    apt: &mut Apt<'_>,
    unpacking: &dyn Fn(),
) -> Result<Stored<KernelContents>> {
    let found = match source {
        KernelSource::Debian => {
            let cached = store.current().ok().flatten().filter(|cached| cached.verify().is_ok());
            let is_cached = |package: &Package| {
                let record =
                    SourceRecord::Debian { package: package.name.clone(), version: package.version.clone() };
                cached.as_ref().is_some_and(|cached| cached.manifest.contents.source == record)
            };
            let wanted = Wanted::DependencyOf { metas: &META_PACKAGES, prefix: PACKAGE_PREFIX };
            let (package, deb) = apt.fetch(wanted, &is_cached)?;
            match (deb, cached) {
                (Some(deb), _) => {
                    unpacking();
                    from_package(package, &deb)?
                }
                (None, Some(cached)) => return Ok(cached),
                (None, None) => return Err(Error::NoKernel { place: package.name.into() }),
            }
        }
        KernelSource::Host { release } => {
            unpacking();
            from_host(Path::new("/"), release.as_deref())?
        }
        KernelSource::Files { kernel, modules } => {
            unpacking();
            from_files(kernel, modules.as_deref())?
        }
    };
    let mut draft = store.draft()?;
    let contents = found.unpack(&mut draft)?;
    let stored = store.publish(draft, contents)?;
    store.keep_only(&stored.id)?;
    Ok(stored)
}

fn from_package(package: Package, deb: &Path) -> Result<Found> {
    let mut files = deb::files(deb, &|path| path.starts_with("boot/vmlinuz-") || ModuleTree::wants(path))?;
    let path = files.keys().find(|path| path.starts_with("boot/")).cloned();
    let (path, image) = path
        .and_then(|path| files.remove_entry(&path))
        .ok_or_else(|| Error::NoKernel { place: deb.into() })?;
    Ok(Found {
        path: path.into(),
        image,
        modules: Some(ModuleTree::from_files(files)),
        source: SourceRecord::Debian { package: package.name, version: package.version },
    })
}

fn from_host(root: &Path, release: Option<&str>) -> Result<Found> {
    let running = rustix::system::uname();
    let release = release.map_or_else(|| running.release().to_string_lossy(), Into::into);
    // It becomes part of a path.
    let release =
        valid_release(release.as_bytes()).ok_or_else(|| Error::NoKernel { place: root.join("boot") })?;

    let modules = root.join("lib/modules").join(&release);
    let kernels = [root.join(format!("boot/vmlinuz-{release}")), modules.join("vmlinuz")];
    let kernel = kernels.iter().find(|path| path.exists());
    let kernel = kernel.ok_or_else(|| Error::NoKernel { place: root.join("boot") })?;
    from_files(kernel, Some(&modules))
}

fn from_files(kernel: &Path, modules: Option<&Path>) -> Result<Found> {
    Ok(Found {
        path: kernel.into(),
        image: read_file(kernel, IMAGE_LIMIT)?,
        modules: modules.map(ModuleTree::from_dir).transpose()?,
        source: SourceRecord::File { path: kernel.into() },
    })
}

impl Found {
    /// Writes the kernel's ELF and the modules that a guest gets.
    fn unpack(self, draft: &mut Draft) -> Result<KernelContents> {
        let named = bzimage::release(&self.image);
        let (release, elf) =
            ready_kernel(self.image, named).map_err(|source| Error::Kernel { path: self.path, source })?;
        let modules = self.modules.map_or_else(|| Ok(Vec::new()), |modules| modules.closure(&release))?;

        draft.write(KERNEL, &elf)?;
        let mut records = Vec::with_capacity(modules.len());
        for (place, Module { name, need, bytes }) in modules.into_iter().enumerate() {
            let file = format!("{place:02}-{name}.ko");
            draft.write(&file, &bytes)?;
            records.push(ModuleRecord { name, file, need, size: bytes.len() as u64 });
        }
        Ok(KernelContents { release, source: self.source, modules: records })
    }
}

/// The release and the packed ELF.
fn ready_kernel(image: Vec<u8>, named: Option<String>) -> Result<(String, Vec<u8>), KernelError> {
    let elf = bzimage::unpack(image)?;
    let kernel = Vmlinux::parse(&elf)?;
    let release = named.map_or_else(|| kernel.release(), Ok)?;
    Ok((release, kernel.pack()))
}

#[cfg(test)]
pub(crate) mod tests;
