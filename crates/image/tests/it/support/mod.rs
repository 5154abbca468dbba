//! What the tests share: images made in memory, a registry that can misbehave, and a look at what is left on disk.

mod fixture;
mod server;

use std::{fs, path::Path, time::Duration};

use cellule_image::{Credentials, Error, Image, Network, Options, Policy, Store};

pub(crate) use self::{
    fixture::{Fixture, digest_of, gzip, tar_of},
    server::{Auth, Reply, Server},
};

/// Options for tests: no credentials, and short waits.
pub(crate) fn options() -> Options {
    Options {
        platform: "linux/amd64".parse().unwrap(),
        credentials: Credentials::none(),
        lock_wait: Duration::from_secs(20),
        network: Network {
            stall: Duration::from_millis(400),
            backoff: Duration::from_millis(10),
            longest_wait: Duration::from_secs(3),
            attempts: 3,
            ..Network::default()
        },
        ..Options::default()
    }
}

pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

pub(crate) fn pull(store: &Store, source: &str) -> Result<Image, Error> {
    run(store.pull(&source.parse().unwrap(), Policy::Missing, &options()))
}

pub(crate) fn new_store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("store")).unwrap();
    (dir, store)
}

/// The names of all files below a directory.
pub(crate) fn files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.path().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path().display().to_string());
        }
    }
    found
}

/// Fails unless the store has no temporary file, no image, and nothing but its own two documents.
pub(crate) fn assert_nothing_left(store: &Store) {
    assert!(store.list().unwrap().is_empty());
    assert_tmp_is_empty(store);
    // Documents and layers that were complete may stay until they are pruned; nothing else may.
    store.prune(&cellule_image::PruneOptions::default()).unwrap();
    let left: Vec<_> =
        files(store.root()).into_iter().filter(|f| f.contains("/blobs/") || f.contains("/rootfs/")).collect();
    assert_eq!(left, Vec::<String>::new());
}

pub(crate) fn assert_tmp_is_empty(store: &Store) {
    assert_eq!(
        fs::read_dir(store.root().join("tmp")).unwrap().count(),
        0,
        "{:?}",
        files(&store.root().join("tmp"))
    );
}
