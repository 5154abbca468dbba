//! The names of sandboxes: symbolic links to their ids. The one truth about names, changed under a lock of their directory.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use crate::directory::DirectoryError;
use crate::name::{SandboxId, SandboxName};
use crate::sandboxes::{Names, Sandboxes};

/// How long to wait for whoever changes the names, which takes nobody longer than a look at a few links.
const WAIT: Duration = Duration::from_secs(10);

/// Locks the names against change.
pub(crate) fn lock(dir: &Path) -> Result<File, DirectoryError> {
    let failed = |source| DirectoryError::Read { path: dir.to_path_buf(), source };
    let file = File::open(dir).map_err(failed)?;
    let begun = Instant::now();
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(error) if error == rustix::io::Errno::WOULDBLOCK && begun.elapsed() < WAIT => {
                thread::sleep(Duration::from_millis(2));
            }
            Err(error) => return Err(failed(error.into())),
        }
    }
}

/// Whose name it is. A link that leads elsewhere is nobody's claim.
pub(crate) fn owner(dir: &Path, name: &SandboxName) -> Option<SandboxId> {
    target(&dir.join(name.as_str()))
}

fn target(link: &Path) -> Option<SandboxId> {
    let target = fs::read_link(link).ok()?.into_os_string().into_string().ok()?;
    SandboxId::try_from(target).ok()
}

/// Binds a name to an id, whoever had it. Under the lock.
pub(crate) fn bind(dir: &Path, name: &SandboxName, id: &SandboxId) -> Result<(), DirectoryError> {
    let link = dir.join(name.as_str());
    // Beginning with a dot it is no name.
    let temporary = dir.join(format!(".{id}"));
    let bound = || {
        _ = fs::remove_file(&temporary);
        symlink(id.as_str(), &temporary)?;
        fs::rename(&temporary, &link)
    };
    bound().map_err(|source| DirectoryError::write(&link, source))
}

/// Takes a name away from the sandbox that has it. Under the lock.
pub(crate) fn unbind(dir: &Path, name: &SandboxName, id: &SandboxId) {
    // Only its own claim: the name may have been given away since.
    if owner(dir, name).as_ref() == Some(id) {
        _ = fs::remove_file(dir.join(name.as_str()));
    }
}

/// The name of a sandbox.
pub(crate) fn of(dir: &Path, id: &SandboxId) -> Option<SandboxName> {
    all(dir).remove(id)
}

/// All names. A directory that cannot be read has none.
pub(crate) fn all(dir: &Path) -> Names {
    let mut names = Names::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().ok().and_then(|name| SandboxName::try_from(name).ok());
        if let (Some(name), Some(id)) = (name, target(&entry.path())) {
            names.insert(id, name);
        }
    }
    names
}

/// Removes the names of sandboxes that are gone.
pub(crate) fn sweep(sandboxes: &Sandboxes) -> Result<(), DirectoryError> {
    let dir = sandboxes.names();
    let dangles = |id: &SandboxId| !sandboxes.path_of(id).exists();
    // Mostly there is nothing to do, and nobody to be kept from the names.
    if !all(&dir).keys().any(dangles) {
        return Ok(());
    }
    let _names = lock(&dir)?;
    for (id, name) in all(&dir) {
        if dangles(&id) {
            unbind(&dir, &name, &id);
        }
    }
    Ok(())
}
