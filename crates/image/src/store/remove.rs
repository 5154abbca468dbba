//! Removing images, by Docker's rules.
//!
//! | named by | other names of the image | what happens |
//! |---|---|---|
//! | a reference | some | the name goes |
//! | a reference | none | the image goes |
//! | an id | none, or all in one repository | the names and the image go |
//! | an id | in several repositories | refused; with force as above |
//!
//! An image that is used stays. Force removes one of which the caller says that it is used; but a root filesystem that
//! some process [holds](super::Hold) is never removed.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{ImageInfo, Store, list::find, lock::Mode, prune::is_held};
use crate::{Digest, Error, Reference, Result, manifest::REF_NAME};

/// How an image is removed.
#[derive(Debug, Clone, Default)]
pub struct RemoveOptions {
    /// Remove it although it has several names or the caller knows of a user.
    pub force: bool,
    /// Images, by id, that the caller knows to be used, and by what: such as sandboxes that are stopped.
    pub in_use: BTreeMap<Digest, String>,
}

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// The names that are gone.
    pub untagged: Vec<Reference>,
    /// The id of the image, if that is gone too.
    pub deleted: Option<Digest>,
    /// Bytes on disk that were freed.
    pub bytes: u64,
}

impl Store {
    /// Removes the image, or the name, that `name` means: a reference, an id, or the beginning of an id.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchImage`], [`Error::AmbiguousId`], [`Error::InUse`] or [`Error::SeveralNames`]; or if the store
    /// cannot be read or written.
    pub fn remove(&self, name: &str, options: &RemoveOptions) -> Result<Removed> {
        let _lock = self.lock(Mode::Exclusive)?;
        let images = self.list()?;
        let image = &images[find(&images, name)?];
        let reference = name.parse::<Reference>().ok().filter(|reference| image.names.contains(reference));
        let mut removed = Removed::default();
        match reference {
            Some(reference) if image.names.len() > 1 => removed.untagged.push(reference),
            named => {
                let same: Vec<&ImageInfo> = images.iter().filter(|other| other.id == image.id).collect();
                check_unused(name, &same, named.is_some(), options)?;
                removed.untagged = same.iter().flat_map(|image| image.names.clone()).collect();
                removed.deleted = Some(image.id);
            }
        }
        let untagged: BTreeSet<String> = removed.untagged.iter().map(ToString::to_string).collect();
        let doomed: BTreeSet<Digest> = images
            .iter()
            .filter(|image| removed.deleted == Some(image.id))
            .map(|image| image.manifest_digest)
            .collect();
        let mut index = self.read_index()?;
        index.manifests.retain(|entry| {
            !doomed.contains(&entry.digest)
                && entry.annotation(REF_NAME).is_none_or(|name| !untagged.contains(name))
        });
        // The names go before the files, so that a crash in between leaves no name without its files.
        self.write_index(index.clone())?;
        if removed.deleted.is_some() {
            removed.bytes = self.collect_garbage(&index, false)?.iter().map(|(_, size)| size).sum();
        }
        Ok(removed)
    }
}

fn check_unused(name: &str, same: &[&ImageInfo], by_name: bool, options: &RemoveOptions) -> Result<()> {
    let in_use =
        |user: &str, can_be_forced| Error::InUse { image: name.into(), user: user.into(), can_be_forced };
    for image in same {
        let known = options.in_use.get(&image.id).map(String::as_str);
        if is_held(image) {
            return Err(in_use(known.unwrap_or("a running process"), false));
        }
        if let Some(user) = known.filter(|_| !options.force) {
            return Err(in_use(user, true));
        }
    }
    let names: Vec<&Reference> = same.iter().flat_map(|image| &image.names).collect();
    let repositories: BTreeSet<String> = names.iter().map(|name| name.name()).collect();
    if repositories.len() > 1 && !by_name && !options.force {
        let names = names.iter().map(|name| name.familiar()).collect();
        return Err(Error::SeveralNames { image: name.into(), names });
    }
    Ok(())
}
