//! The image store of the state directory, and the options that commands share that get images.

use std::path::Path;
use std::sync::Arc;

use cellule_image::{Error, Options, Platform, RegistryError, Store};

use crate::failure::Failure;
use crate::watch::Watch;

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
        Error::InUse { can_be_forced: false, .. } => {
            failure.hint("cellule ps lists what runs; stop what uses it first")
        }
        Error::InUse { .. } => {
            failure.hint("remove that sandbox first (cellule rm); with --force the image goes, and the sandbox starts no more")
        }
        Error::SeveralNames { .. } => failure.hint("--force removes it all the same"),
        _ => failure,
    }
}

/// The same for an image that was asked for by this name.
pub(crate) fn named_failure(message: impl Into<String>, error: &Error, name: &str) -> Failure {
    let failure = failure(message, error);
    if matches!(error, Error::Registry(_)) && Path::new(name).exists() {
        return failure.hint(format!("for what is here under this name: ./{name}"));
    }
    failure
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_taken_for_an_image_of_a_registry_is_pointed_to() {
        let error = || {
            let (registry, what) = ("registry.example".to_owned(), "it".to_owned());
            Error::Registry(RegistryError::NotFound { registry, what, detail: String::new() })
        };
        let rendered = |name| named_failure("cannot get it", &error(), name).render();
        assert!(rendered("src/store.rs").contains("./src/store.rs"));
        assert!(!rendered("src/none.rs").contains("./src/none.rs"));
    }
}
