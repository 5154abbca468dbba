//! The bundle: what it is made of, and whether what lies there may be used.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::{BaseContents, ImageConfig};
use crate::source::{KERNEL, KernelContents};
use crate::store::{Store, Stored};
use crate::{Agent, Error, Manifest, Result, initramfs};

/// Raised with any change of what a bundle or a cache holds, or of how it is made: the one on disk is then made anew.
const FORMAT: u32 = 1;
const INITRAMFS: &str = "initramfs";
/// The name of the base image's tar in its directories.
pub(crate) const BASE: &str = "base.tar";

/// What a bundle's manifest says beside sizes and hashes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleContents {
    /// The kernel; its modules are those in the initramfs, in load order.
    pub kernel: KernelContents,
    /// The SHA-256 of the agent, in lower-case hexadecimal.
    pub agent: String,
    /// The configuration of the base image.
    pub base: ImageConfig,
}

/// A bundle that may be booted.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// The SHA-256 of its manifest, in lower-case hexadecimal.
    pub id: String,
    /// The guest's kernel, an ELF with a PVH entry.
    pub kernel_path: PathBuf,
    /// An uncompressed cpio with the agent and the modules.
    pub initramfs_path: PathBuf,
    /// The base image's root directory; its configuration is in the manifest.
    pub base_tar: PathBuf,
    /// What it is made of.
    pub manifest: Manifest<BundleContents>,
    stored: Stored<BundleContents>,
}

/// What lies in a home.
#[derive(Debug)]
pub enum Current {
    /// A bundle to boot.
    Ready(Box<Bundle>),
    /// There is none to boot, but all it takes to make one is here: no network is needed.
    Compose(Remake),
    /// A kernel or a base image has to be obtained first.
    Setup(Remake),
}

/// Why the bundle that lies there, if any, does not serve.
#[derive(Debug)]
pub enum Remake {
    /// There is none.
    Missing,
    /// It holds another agent.
    OtherAgent,
    /// It, or the pointer to it, is not as it was made.
    Damaged(Box<Error>),
}

impl Bundle {
    /// Looks at what a home has for this agent. Cheap enough for each start of a guest: the manifest is what it
    /// was, each file has its size, the agent is this one. [`Self::verify`] looks into the files.
    ///
    /// # Errors
    /// Fails only where the home cannot be read at all; damage is a reason to make the bundle anew.
    pub fn open_current(home: &Path, agent: &Agent<'_>) -> Result<Current> {
        let home = Stores::new(home);
        let reason = match home.bundles.current() {
            Ok(Some(stored)) if stored.manifest.contents.agent == agent.sha256() => {
                return Ok(Current::Ready(Box::new(stored.into())));
            }
            Ok(Some(_)) => Remake::OtherAgent,
            Ok(None) => Remake::Missing,
            Err(error @ Error::Damaged { .. }) => Remake::Damaged(Box::new(error)),
            Err(error) => return Err(error),
        };
        let cached =
            matches!(home.kernels.current(), Ok(Some(_))) && matches!(home.bases.current(), Ok(Some(_)));
        Ok(if cached { Current::Compose(reason) } else { Current::Setup(reason) })
    }

    /// Hashes every file.
    ///
    /// # Errors
    /// [`Error::Damaged`] names the first file that is not as it was made.
    pub fn verify(&self) -> Result<()> {
        self.stored.verify()
    }
}

impl From<Stored<BundleContents>> for Bundle {
    fn from(stored: Stored<BundleContents>) -> Self {
        Self {
            id: stored.id.clone(),
            kernel_path: stored.path(KERNEL),
            initramfs_path: stored.path(INITRAMFS),
            base_tar: stored.path(BASE),
            manifest: stored.manifest.clone(),
            stored,
        }
    }
}

/// The stores in a home.
#[derive(Debug)]
pub(crate) struct Stores {
    pub(crate) kernels: Store<KernelContents>,
    pub(crate) bases: Store<BaseContents>,
    pub(crate) bundles: Store<BundleContents>,
}

impl Stores {
    pub(crate) fn new(home: &Path) -> Self {
        Self {
            kernels: Store::new(home.join("kernels"), FORMAT),
            bases: Store::new(home.join("bases"), FORMAT),
            bundles: Store::new(home.join("bundles"), FORMAT),
        }
    }

    /// Removes what setups that died left behind. Only under the setup lock.
    pub(crate) fn sweep(&self) -> Result<()> {
        self.kernels.sweep()?;
        self.bases.sweep()?;
        self.bundles.sweep()
    }

    /// Makes the bundle from a kernel, a base image and an agent, and puts it in use.
    pub(crate) fn compose(
        &self,
        kernel: &Stored<KernelContents>,
        base: &Stored<BaseContents>,
        agent: &Agent<'_>,
    ) -> Result<Bundle> {
        let mut contents = kernel.manifest.contents.clone();
        contents.modules = initramfs::chosen(&contents.modules);
        let modules = contents
            .modules
            .iter()
            .map(|module| Ok((module.clone(), kernel.read(&module.file)?)))
            .collect::<Result<Vec<_>>>()?;

        let mut draft = self.bundles.draft()?;
        draft.copy(KERNEL, kernel)?;
        draft.copy(BASE, base)?;
        draft.write_with(INITRAMFS, |out| initramfs::write(out, agent.bytes(), &modules))?;
        let contents = BundleContents {
            kernel: contents,
            agent: agent.sha256().to_owned(),
            base: base.manifest.contents.config.clone(),
        };
        Ok(self.bundles.publish(draft, contents)?.into())
    }
}
