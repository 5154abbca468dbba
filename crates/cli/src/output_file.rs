//! An archive on its way to a file, a pipe, or standard output.

use std::fs::{File, Permissions};
use std::io::{self, IsTerminal as _, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::failure::Failure;

/// Has `write` write to the file, whole or not at all, with this mode; to standard output if none is named.
pub(crate) fn write(
    path: Option<&Path>,
    mode: u32,
    write: impl FnOnce(&mut dyn Write) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let Some(path) = path else {
        let mut out = io::stdout().lock();
        if out.is_terminal() {
            return Err(
                Failure::new("an archive is no text for a terminal").hint("name a file: --output FILE")
            );
        }
        write(&mut out)?;
        return out.flush().map_err(|error| Failure::because("cannot write standard output", &error));
    };
    let cannot = |error| Failure::because(format!("cannot write {}", path.display()), &error);
    if path.metadata().is_ok_and(|there| !there.is_file()) {
        // A pipe or a device is written to, not replaced.
        return write(&mut File::options().write(true).open(path).map_err(cannot)?);
    }
    // A file that is there is somebody's.
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(dir)
        .map_err(cannot)?;
    write(&mut file)?;
    file.as_file().sync_all().map_err(cannot)?;
    file.persist(path).map(drop).map_err(|error| cannot(error.error))
}

/// Refuses to read an archive from a terminal.
pub(crate) fn refuse_terminal(what: &str) -> Result<(), Failure> {
    if io::stdin().is_terminal() {
        return Err(Failure::new(format!("{what} is expected on standard input, which is a terminal"))
            .hint("name a file, or pipe one in"));
    }
    Ok(())
}
