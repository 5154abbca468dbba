//! What can go wrong, with what a reporter needs to name the remedy.

use std::{io, path::PathBuf, time::Duration};

use crate::{
    CredentialsError, Digest, InvalidChange, InvalidPlatform, InvalidReference, InvalidSource, Platform,
    RegistryError,
};

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an image could not be had, kept or removed. A message never repeats its source's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A text is no reference.
    #[error(transparent)]
    Reference(#[from] InvalidReference),
    /// A text is no source.
    #[error(transparent)]
    Source(#[from] InvalidSource),
    /// A text is no platform.
    #[error(transparent)]
    Platform(#[from] InvalidPlatform),
    /// A change to a configuration is malformed.
    #[error(transparent)]
    Change(#[from] InvalidChange),
    /// The registry refused or failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Credentials could not be read or written.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The host's file system refused something.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The host's reason.
        source: io::Error,
    },
    /// There is no room for a file, by disk, quota or size limit. What there was of it has been removed.
    #[error("no space left to write {}", path.display())]
    DiskFull {
        /// The file that could not be written.
        path: PathBuf,
        /// The host's reason.
        source: io::Error,
    },
    /// Another process holds what is needed for longer than this one may wait.
    #[error("another process has held {} for more than {} s", path.display(), waited.as_secs())]
    Locked {
        /// The file or directory that is locked.
        path: PathBuf,
        /// How long this process waited.
        waited: Duration,
    },
    /// The store has no such image.
    #[error("no image {name:?} in the store")]
    NoSuchImage {
        /// The reference or id as given.
        name: String,
    },
    /// The beginning of an id fits more than one image.
    #[error("{prefix:?} is the beginning of {count} image ids")]
    AmbiguousId {
        /// The beginning of the id.
        prefix: String,
        /// How many images fit.
        count: usize,
    },
    /// The image is used and must stay.
    #[error("image {image} is used by {user}")]
    InUse {
        /// The reference or id as given.
        image: String,
        /// Who uses it.
        user: String,
        /// Whether force would remove it all the same.
        can_be_forced: bool,
    },
    /// An image was to be removed by its id, but several repositories name it. Force removes all its names.
    #[error("image {image} has names in several repositories: {}", names.join(", "))]
    SeveralNames {
        /// The id as given.
        image: String,
        /// The names.
        names: Vec<String>,
    },
    /// The image exists, but not for the platform.
    #[error("{what} has no image for {wanted}, only for: {}", list(offered))]
    WrongPlatform {
        /// The image.
        what: String,
        /// What was asked for.
        wanted: Platform,
        /// What there is.
        offered: Vec<Platform>,
    },
    /// The bytes are not those that their digest promised.
    #[error("{what} has the digest {actual} and not {expected}")]
    DigestMismatch {
        /// What was read.
        what: String,
        /// The digest that was promised.
        expected: Digest,
        /// The digest of the bytes.
        actual: Digest,
    },
    /// There are more or fewer bytes than promised.
    #[error("{what} has {}{actual} bytes and not {expected}", if *at_least { "at least " } else { "" })]
    SizeMismatch {
        /// What was read.
        what: String,
        /// The size that was promised.
        expected: u64,
        /// The size found, where reading stopped.
        actual: u64,
        /// Whether there may be more.
        at_least: bool,
    },
    /// A layer does not unpack to what the configuration promises.
    #[error(
        "layer {number} ({layer}) unpacks to {actual} and not to {expected}, as the image's configuration says"
    )]
    DiffIdMismatch {
        /// Which layer, the bottom one being 1.
        number: usize,
        /// The digest of the layer as it is stored.
        layer: Digest,
        /// What the configuration says.
        expected: Digest,
        /// The digest of the uncompressed layer.
        actual: Digest,
    },
    /// The configuration speaks of another number of layers than the manifest.
    #[error("{what} has {layers} layers, but {diff_ids} diff ids")]
    LayerCount {
        /// The image.
        what: String,
        /// Layers of the manifest.
        layers: usize,
        /// Entries of `rootfs.diff_ids` in the configuration.
        diff_ids: usize,
    },
    /// The manifest is of the form that Docker gave up in 2017; it has no digests to verify.
    #[error("{what} is a Docker schema 1 manifest, which is no longer supported")]
    Schema1 {
        /// The image.
        what: String,
    },
    /// The document is neither an image nor an index of images, such as a chart or a signature.
    #[error("{what} is not an image{}", media_type.as_ref().map(|t| format!(", but {t}")).unwrap_or_default())]
    NotAnImage {
        /// What was read.
        what: String,
        /// What it says that it is.
        media_type: Option<String>,
    },
    /// A layer that must not be distributed by registries, such as those of Windows.
    #[error("layer {digest} is foreign: it has to be fetched from elsewhere, which is not supported")]
    ForeignLayer {
        /// The layer.
        digest: Digest,
        /// Where the manifest says that it is.
        urls: Vec<String>,
    },
    /// A layer of a type that is not known, such as an encrypted one.
    #[error("layer {digest} is of the unsupported type {media_type}")]
    UnsupportedLayer {
        /// The layer.
        digest: Digest,
        /// Its type.
        media_type: String,
    },
    /// Something exceeds [`Limits`](crate::Limits).
    #[error("{what} has {actual} {field}; the limit is {allowed}")]
    Limit {
        /// What was read.
        what: String,
        /// What there is too much of.
        field: &'static str,
        /// How much.
        actual: u64,
        /// The limit.
        allowed: u64,
    },
    /// A document is not of the form that the specification gives it.
    #[error("{what} is malformed")]
    Malformed {
        /// What was read.
        what: String,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A layout or an archive points to something that is not in it.
    #[error("{} has no {what}", path.display())]
    Missing {
        /// The layout or archive.
        path: PathBuf,
        /// What is missing.
        what: String,
    },
    /// A layout or an archive has several images, and none was named.
    #[error("{} has several images; name one of: {}", path.display(), names.join(", "))]
    SeveralImages {
        /// The layout or archive.
        path: PathBuf,
        /// Their names.
        names: Vec<String>,
    },
    /// A path holds something else than what was asked for.
    #[error("{} is {found}, not {expected}", path.display())]
    WrongKind {
        /// The path.
        path: PathBuf,
        /// What was expected.
        expected: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// The layers could not be merged.
    #[error("cannot build the root filesystem of {what}")]
    Rootfs {
        /// The image.
        what: String,
        /// The cause.
        source: cellule_rootfs::Error,
    },
    /// The caller stopped waiting.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// Makes an error of the file system's refusal; a full disk is told from the rest.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        move |source| {
            let path = path.into();
            if is_disk_full(&source) {
                Self::DiskFull { path, source }
            } else {
                Self::Io { action, path, source }
            }
        }
    }
}

fn is_disk_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

fn list(platforms: &[Platform]) -> String {
    match platforms {
        [] => "none".into(),
        _ => platforms.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

/// Runs blocking work where it blocks nobody, and returns its result. A panic in it goes on here.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down.
            Err(_) => Err(Error::Cancelled),
        },
    }
}
