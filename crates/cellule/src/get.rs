//! Gets what a sandbox boots from: the boot bundle and the image.

use std::path::Path;
use std::sync::Arc;

use cellule_boot::{AGENT, Bundle};
use cellule_image::{
    Error as ImageError, Image, ImageConfig, Import, ImportFrom, Options, Policy, Source, Store,
};

use crate::{Error, Progress, ProgressSink};

/// The image that needs no registry.
pub(crate) const BASE: &str = "base";

/// The boot bundle in use, made first where there is none.
pub(crate) async fn bundle(home: &Path, progress: &ProgressSink) -> Result<Bundle, Error> {
    let (home, progress) = (home.to_path_buf(), Arc::clone(progress));
    let made = tokio::task::spawn_blocking(move || {
        cellule_boot::ensure(&home, &AGENT, &|step| progress(&Progress::Boot(step)))
    });
    match made.await {
        Ok(made) => made.map_err(|error| Error::Setup(Box::new(error))),
        Err(error) => Err(Error::Io { doing: "set up the boot bundle".to_owned(), source: error.into() }),
    }
}

/// Gets an image ready to run. `base` comes from the boot bundle and no registry is asked for it.
pub(crate) async fn image(
    store: &Store,
    bundle: &Bundle,
    name: &str,
    policy: Policy,
    options: &Options,
) -> Result<Image, Error> {
    let failed = |source| Error::Image { name: name.to_owned(), source: Box::new(source) };
    if name == BASE {
        return match store.get(BASE, options).await {
            Err(ImageError::NoSuchImage { .. }) => base(store, bundle, options).await,
            other => other.map_err(failed),
        };
    }
    let source: Source = name.parse().map_err(|error| failed(ImageError::Source(error)))?;
    store.pull(&source, policy, options).await.map_err(failed)
}

/// Adds the bundle's own image to a store.
///
/// # Errors
/// It cannot be added.
pub async fn base(store: &Store, bundle: &Bundle, options: &Options) -> Result<Image, Error> {
    let failed = |source| Error::Image { name: BASE.to_owned(), source: Box::new(source) };
    let base = &bundle.manifest.contents.base;
    let config = ImageConfig { cmd: base.cmd.clone(), env: base.env.clone(), ..ImageConfig::default() };
    let name = BASE.parse().map_err(|error| failed(ImageError::Reference(error)))?;
    let import = Import { name: Some(name), config };
    store.import(ImportFrom::Tar(bundle.base_tar.clone()), import, options).await.map_err(failed)
}
