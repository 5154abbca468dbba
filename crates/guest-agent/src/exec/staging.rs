//! Owns the files that are written before a program starts: whole, or not at all.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cellule_protocol::v1::StagedFile;
use cellule_protocol::v1::start_failure::Kind;
use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, fchmod, fchown, openat};
use rustix::io::Errno;

use super::failure::{Failure, quote};
use super::users::Identity;

const MAX_FILES: usize = 4096;
/// Permission bits if the request names none.
const MODE: u32 = 0o644;

/// Writes each file beside its place, as `owner`'s, and renames it into it.
pub(super) fn write(files: &[StagedFile], owner: &Identity) -> Result<(), Failure> {
    for (at, file) in files.iter().enumerate() {
        let path = Path::new(OsStr::from_bytes(&file.path));
        put(file, path, owner).map_err(|(doing, error)| {
            let kind = match Errno::from_io_error(&error) {
                Some(Errno::NOSPC | Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::DQUOT) => {
                    Kind::ResourceExhausted
                }
                _ => Kind::InvalidArgument,
            };
            let message = format!("{doing} {}: {error}", quote(&file.path));
            Failure::new(kind, format!("files[{at}]"), message).with_errno(&error)
        })?;
    }
    Ok(())
}

/// Whether every file has a place to go to, as far as that can be told from its name.
pub(super) fn check(files: &[StagedFile]) -> Result<(), Failure> {
    if files.len() > MAX_FILES {
        return Err(Failure::invalid("files", format!("has more than {MAX_FILES} entries")));
    }
    for (at, file) in files.iter().enumerate() {
        let refused = |why: &str| Err(Failure::invalid(format!("files[{at}]"), why));
        let path = Path::new(OsStr::from_bytes(&file.path));
        if !path.is_absolute() || path.file_name().is_none() || file.path.ends_with(b"/") {
            return refused("its path is not the absolute one of a file");
        }
        if file.path.contains(&0) {
            return refused("its path has a NUL byte");
        }
        if file.mode & !0o7777 != 0 {
            return refused("its mode has more than permission bits");
        }
    }
    Ok(())
}

fn put(file: &StagedFile, path: &Path, owner: &Identity) -> Result<(), (&'static str, io::Error)> {
    let temporary = beside(path);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = openat(CWD, &temporary, flags, Mode::from_raw_mode(0o600));
    let mut written = File::from(opened.map_err(|error| ("make a file for", error.into()))?);
    let done = (|| {
        written.write_all(&file.content).map_err(|error| ("write", error))?;
        // Only an agent outside a guest lacks the right to give files away, and its programs run as what it is.
        if rustix::process::geteuid().is_root() {
            fchown(&written, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))
                .map_err(|error| ("change the owner of", error.into()))?;
        }
        let mode = if file.mode == 0 { MODE } else { file.mode };
        fchmod(&written, Mode::from_raw_mode(mode)).map_err(|error| ("change the mode of", error.into()))?;
        std::fs::rename(&temporary, path).map_err(|error| ("rename a file to", error))
    })();
    if done.is_err() {
        let _reported = std::fs::remove_file(&temporary);
    }
    done
}

/// A name in the same directory that nobody else has.
fn beside(path: &Path) -> PathBuf {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let random = RandomState::new().build_hasher().finish();
    path.with_file_name(format!(".cellule-{random:016x}"))
}
