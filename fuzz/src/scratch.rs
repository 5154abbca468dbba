//! Places for files that are gone with the process, in memory where the host has such a place.

use std::fs::File;
use std::path::Path;

use tempfile::TempDir;

const MEMORY: &str = "/dev/shm";

/// A file without a name.
pub fn file() -> File {
    tempfile::tempfile_in(place()).expect("the host has room for a file")
}

/// A directory of its own.
pub fn directory() -> TempDir {
    tempfile::tempdir_in(place()).expect("the host has room for a directory")
}

fn place() -> std::path::PathBuf {
    if Path::new(MEMORY).is_dir() { MEMORY.into() } else { std::env::temp_dir() }
}
