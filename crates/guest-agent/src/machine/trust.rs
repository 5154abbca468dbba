//! Owns which certificate authorities programs trust besides the image's own.
//!
//! Each distribution has a file of all of them, and most programs read it. What stands in it stays, with ours behind it; so a program that
//! trusts the image's authorities still does. Where an image has no such file, ours are alone in the one that most look for.

mod java;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::configuration::{Configured, replace};
use crate::fault::{Context, Fault};

/// Where programs look, of Debian and Alpine first; `SSL_CERT_FILE` names it.
const COMMON: &str = "/etc/ssl/certs/ca-certificates.crt";
/// The others' places.
const OTHERS: [&str; 4] = [
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Ours alone, for programs that have their own authorities built in; `NODE_EXTRA_CA_CERTS` names it.
const OURS: &str = "/etc/ssl/cellule.pem";
/// A bundle with all that the world trusts has 250 KB.
const LARGEST: u64 = 4 << 20;

/// How much of each file is the image's.
#[derive(Debug, Default)]
pub(super) struct Trusted {
    original: HashMap<PathBuf, usize>,
    /// What Java's stores are in the image.
    stores: HashMap<PathBuf, Vec<u8>>,
}

/// The files that are put over the image's.
pub(super) fn files(authorities: &[u8]) -> Vec<PathBuf> {
    if authorities.is_empty() { Vec::new() } else { [COMMON, OURS].map(PathBuf::from).to_vec() }
}

/// Whether some are provided already.
pub(super) fn is_provided<'a>(mut mounted: impl Iterator<Item = &'a Path>) -> bool {
    mounted.any(|path| path == Path::new(OURS))
}

/// Has programs trust these authorities.
pub(super) fn provide(
    files: &OwnedFd,
    authorities: &[u8],
    trusted: &mut Trusted,
    configured: &mut Configured,
) -> Result<(), Fault> {
    if let Some(dir) = Path::new(COMMON).parent() {
        fs::create_dir_all(dir).context(format_args!("make {}", dir.display()))?;
    }
    replace(files, "authorities", Path::new(OURS), authorities, configured)?;
    // Names for one file are one file.
    let mut bundles: Vec<PathBuf> = OTHERS.iter().filter_map(|path| fs::canonicalize(path).ok()).collect();
    let common = fs::canonicalize(COMMON).unwrap_or_else(|_| PathBuf::from(COMMON));
    bundles.retain(|bundle| *bundle != common);
    bundles.sort_unstable();
    bundles.dedup();
    let mut known = read(&common, trusted)?;
    for (number, bundle) in bundles.iter().enumerate() {
        let original = read(bundle, trusted)?;
        let name = format!("authorities-{number}");
        replace(files, &name, bundle, &with(&original, authorities), configured)?;
        if known.is_empty() {
            known = original;
        }
    }
    replace(files, "authorities-common", &common, &with(&known, authorities), configured)?;
    for (number, path) in java::stores().into_iter().enumerate() {
        let original = match trusted.stores.get(&path) {
            Some(original) => original.clone(),
            None => whole(&path)?,
        };
        if let Some(store) = java::with(&original, &known, authorities) {
            replace(files, &format!("authorities-java-{number}"), &path, &store, configured)?;
            trusted.stores.insert(path, original);
        }
    }
    Ok(())
}

/// All of a file; nothing if there is none.
fn whole(path: &Path) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => {
            file.take(LARGEST).read_to_end(&mut bytes).context(format_args!("read {}", path.display()))?;
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).context(format_args!("open {}", path.display())),
    }
    Ok(bytes)
}

/// What the image has in a file.
fn read(path: &Path, trusted: &mut Trusted) -> Result<Vec<u8>, Fault> {
    let mut bytes = whole(path)?;
    // What an earlier session put behind it is not the image's.
    let original = *trusted.original.entry(path.to_owned()).or_insert(bytes.len());
    bytes.truncate(original);
    Ok(bytes)
}

fn with(original: &[u8], authorities: &[u8]) -> Vec<u8> {
    let end: &[u8] = if original.is_empty() || original.ends_with(b"\n") { b"" } else { b"\n" };
    [original, end, authorities].concat()
}
