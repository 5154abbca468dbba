//! Pulls, imports, stores and describes OCI images.
//!
//! This crate owns everything between a text that names an image and a root filesystem that can be run, with the
//! configuration that says how: [`Source`]s, the registry client, [`Credentials`], and the [`Store`] on disk. How layers
//! merge is the business of `cellule-rootfs`. It must never know of VMs, sandboxes, terminals or command lines: what
//! takes time is told to a [`Progress`], and who uses an image is told by the caller or seen by a [`Hold`].
//!
//! ```no_run
//! # async fn example() -> cellule_image::Result<()> {
//! use cellule_image::{Options, Policy, Store};
//!
//! let store = Store::open("/var/lib/cellule/images")?;
//! let image = store.pull(&"debian:12".parse()?, Policy::Missing, &Options::default()).await?;
//! println!("{} runs {:?}", image.rootfs.path.display(), image.info.config.cmd);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod archive;
mod change;
mod config;
mod credentials;
mod decompress;
mod error;
mod image;
mod import;
mod layout;
mod manifest;
mod options;
mod platform;
mod progress;
mod pull;
mod reference;
mod registry;
mod save;
mod source;
mod store;

pub use cellule_rootfs::Digest;

pub use self::{
    archive::LoadFrom,
    change::InvalidChange,
    config::ImageConfig,
    credentials::{Credential, Credentials, CredentialsError},
    error::{Error, Result},
    image::Image,
    import::{Import, ImportFrom},
    options::{Limits, Network, Options, Policy},
    platform::{InvalidPlatform, Platform},
    progress::{Event, Progress, Silent},
    reference::{InvalidReference, Reference, ReferencePart},
    registry::RegistryError,
    source::{InvalidSource, Source},
    store::{Hold, ImageInfo, LayerInfo, PruneOptions, Pruned, RemoveOptions, Removed, RootfsInfo, Store},
};
