//! The last steps on every way to an image: check, build, record, hold.

use crate::{
    Digest, Error, Hold, ImageInfo, Options, Reference, Result, RootfsInfo, Store,
    config::ConfigFile,
    error::blocking,
    manifest::{Descriptor, Manifest},
    store::{Entry, Found, Operation},
};

/// An image that is ready to run: its root filesystem is built, and stays as long as this value lives.
#[derive(Debug, Clone)]
pub struct Image {
    /// What the image is.
    pub info: ImageInfo,
    /// Its root filesystem.
    pub rootfs: RootfsInfo,
    /// Keeps the root filesystem from being removed.
    pub hold: Hold,
}

/// An image whose blobs are all in the store, and pinned.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) descriptor: Descriptor,
    pub(crate) manifest: Manifest,
    pub(crate) config: ConfigFile,
    pub(crate) names: Vec<Reference>,
    /// What the registry says that the names stand for.
    pub(crate) resolved: Option<Digest>,
    /// What to call the image in errors.
    pub(crate) what: String,
}

/// Refuses an image of another platform. One that states none is taken for the right one.
pub(crate) fn check_platform(config: &ConfigFile, options: &Options, what: &str) -> Result<()> {
    let platform = config.platform();
    let unstated = platform.os.is_empty() && platform.architecture.is_empty();
    if unstated || options.platform.rank(&platform).is_some() {
        return Ok(());
    }
    let wanted = options.platform.clone();
    Err(Error::WrongPlatform { what: what.into(), wanted, offered: vec![platform] })
}

pub(crate) fn parse_config(bytes: &[u8], what: &str) -> Result<ConfigFile> {
    let malformed = |source| Error::Malformed { what: format!("the configuration of {what}"), source };
    serde_json::from_slice(bytes).map_err(malformed)
}

impl Store {
    /// Builds the root filesystem, records the image, and holds it.
    pub(crate) async fn complete(
        &self,
        operation: &Operation,
        fetched: Fetched,
        options: &Options,
    ) -> Result<Image> {
        let Fetched { mut descriptor, manifest, config, names, resolved, what } = fetched;
        check_platform(&config, options, &what)?;
        let rootfs = self.rootfs(operation, &manifest, &config.rootfs.diff_ids, &what, options).await?;
        descriptor.platform = Some(config.platform());
        let store = self.clone();
        let image = blocking(move || {
            let hold = Hold::take(&rootfs.path)?;
            let digest = descriptor.digest;
            store.record(&Entry { descriptor, names, resolved })?;
            let names = store.names_of(&digest)?;
            Ok(Image { info: store.describe(&digest, names)?, rootfs, hold })
        })
        .await?;
        options.progress.event(crate::Event::Done);
        Ok(image)
    }

    /// The image of that manifest, from what the store has; `None` if a part of it is missing or damaged.
    pub(crate) async fn local(
        &self,
        operation: &Operation,
        manifest: Digest,
        options: &Options,
    ) -> Result<Option<Image>> {
        let store = self.clone();
        let Ok(documents) = blocking(move || store.documents(&manifest)).await else { return Ok(None) };
        let what = format!("image {}", documents.manifest.config.digest);
        if check_platform(&documents.config, options, &what).is_err() {
            return Ok(None);
        }
        let store = self.clone();
        let blobs: Vec<Descriptor> = documents.manifest.blobs().cloned().collect();
        let pinning = operation.clone();
        let complete = blocking(move || {
            pinning.pin_blobs(&store, blobs.iter().map(|blob| &blob.digest).chain([&manifest]))?;
            Ok(blobs.iter().all(|blob| matches!(store.find_blob(&blob.digest, blob.size), Ok(Found::Yes))))
        });
        if !complete.await? {
            return Ok(None);
        }
        let diff_ids = &documents.config.rootfs.diff_ids;
        let rootfs = self.rootfs(operation, &documents.manifest, diff_ids, &what, options).await?;
        let store = self.clone();
        let image = blocking(move || {
            let hold = Hold::take(&rootfs.path)?;
            let names = store.names_of(&manifest)?;
            Ok(Image { info: store.describe(&manifest, names)?, rootfs, hold })
        });
        let image = image.await?;
        options.progress.event(crate::Event::Done);
        Ok(Some(image))
    }

    /// Makes the image of that name, id, or unambiguous beginning of an id ready to run, from what the store has.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchImage`] or [`Error::AmbiguousId`]; or if the root filesystem has to be built and cannot be.
    pub async fn get(&self, name: &str, options: &Options) -> Result<Image> {
        let (store, owned) = (self.clone(), name.to_owned());
        let (operation, info) =
            blocking(move || Ok((Operation::begin(&store)?, store.inspect(&owned)?))).await?;
        // The caller names the very image; its platform is no question.
        let options = Options { platform: info.platform, ..options.clone() };
        let image = self.local(&operation, info.manifest_digest, &options).await?;
        image.ok_or_else(|| Error::NoSuchImage { name: name.into() })
    }
}
