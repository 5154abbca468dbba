//! The image store of the state directory, and the options that commands share that get images.

use std::path::Path;
use std::sync::Arc;

use cellule_boot::Bundle;
use cellule_image::{
    Error, Image, ImageConfig, Import, ImportFrom, Options, Platform, Policy, RegistryError, Source, Store,
};

use crate::failure::Failure;
use crate::watch::Watch;

/// The image that needs no registry.
const BASE: &str = "base";

/// How an image is got.
#[derive(Debug, clap::Args)]
pub(crate) struct GetOptions {
    /// The platform to take from an image of several, such as linux/amd64
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Accept plain HTTP and unverified certificates from any registry, not only from this host
    #[arg(long)]
    insecure: bool,
}

impl GetOptions {
    /// As the library wants them, with progress shown by `watch`.
    pub(crate) fn options(&self, watch: &Arc<Watch>) -> Options {
        let watch = Arc::clone(watch);
        let mut options = Options {
            insecure: self.insecure,
            progress: Arc::new(move |event| watch.image(&event)),
            ..Options::default()
        };
        if let Some(platform) = &self.platform {
            options.platform = platform.clone();
        }
        options
    }
}

/// Opens the store.
pub(crate) fn open(home: &Path) -> Result<Store, Failure> {
    Store::open(home.join("images")).map_err(|error| failure("cannot open the image store", &error))
}

/// Gets an image ready to run. `base` comes from the boot bundle and no registry is asked for it.
pub(crate) async fn get(
    store: &Store,
    bundle: &Bundle,
    name: &str,
    policy: Policy,
    options: &Options,
) -> Result<Image, Failure> {
    let failed = |error: &Error| failure(format!("cannot get the image {name}"), error);
    if name == BASE {
        return match store.get(BASE, options).await {
            Err(Error::NoSuchImage { .. }) => add_base(store, bundle, options).await,
            other => other.map_err(|error| failed(&error)),
        };
    }
    let source: Source = name.parse().map_err(|error| failed(&Error::Source(error)))?;
    store.pull(&source, policy, options).await.map_err(|error| failed(&error))
}

/// Adds the bundle's own image to the store.
pub(crate) async fn add_base(store: &Store, bundle: &Bundle, options: &Options) -> Result<Image, Failure> {
    let base = &bundle.manifest.contents.base;
    let config = ImageConfig { cmd: base.cmd.clone(), env: base.env.clone(), ..ImageConfig::default() };
    let name =
        BASE.parse().map_err(|error| failure("the image base has no name", &Error::Reference(error)))?;
    let import = Import { name: Some(name), config };
    let imported = store.import(ImportFrom::Tar(bundle.base_tar.clone()), import, options).await;
    imported.map_err(|error| failure("cannot add the image base", &error))
}

/// The failure for an error of the library's, with what can be done about it.
pub(crate) fn failure(message: impl Into<String>, error: &Error) -> Failure {
    let failure = Failure::because(message, error);
    match error {
        Error::Registry(error) => registry_hint(failure, error),
        Error::NoSuchImage { .. } => failure.hint("cellule images lists the images that are here"),
        Error::DiskFull { .. } => {
            failure.hint("free space there, or remove images: cellule image prune --all")
        }
        Error::WrongPlatform { .. } => {
            failure.hint("cellule runs images of this host's architecture; build or choose one for it")
        }
        Error::Locked { .. } => failure.hint("see what the other process does, and try again"),
        Error::SeveralNames { .. } | Error::InUse { .. } => failure.hint("--force removes it all the same"),
        _ => failure,
    }
}

fn registry_hint(failure: Failure, error: &RegistryError) -> Failure {
    match error {
        RegistryError::Denied { registry, .. } => {
            failure.hint(format!("if the image is there and private: cellule login {registry}"))
        }
        RegistryError::NotFound { .. } => failure.hint("see whether the name and the tag are right: nothing like it was found"),
        RegistryError::RateLimited { registry, .. } => {
            failure.hint(format!("wait a while, or log in for a higher limit: cellule login {registry}"))
        }
        RegistryError::Unreachable { .. } => failure.hint(
            "see whether the name is right and the network works; a registry without TLS needs --insecure, a proxy HTTPS_PROXY",
        ),
        RegistryError::Stalled { .. } | RegistryError::Interrupted { .. } | RegistryError::Truncated { .. } => {
            failure.hint("the transfer stalled; try again, it goes on where it stopped")
        }
        RegistryError::ServerError { .. } => failure.hint("the registry has trouble of its own; try again later"),
        _ => failure,
    }
}
