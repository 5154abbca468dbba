//! Starts a supervisor's process.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Stdio;

use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use super::SandboxError;
use crate::directory::{DirectoryError, LOGS, SandboxDir, private_dir};
use crate::log::SUPERVISOR_LOG;
use crate::record::Record;
use crate::secrets;
use crate::spec::SandboxSpec;

/// Buffers of connections are memory that is zero and mostly stays so, and costs nothing where each comes from the kernel. A heap would
/// keep those that are given back, and clear them again for the next.
const MALLOC: &str = "GLIBC_TUNABLES";

/// What a supervisor is started as.
#[derive(Debug, Clone, Copy)]
pub(super) enum As {
    /// That of a sandbox.
    Supervisor,
    /// One whose machine is ready for whoever claims it.
    Standby,
}

/// Starts the supervisor, which has the lock of the directory from then on, and nobody else.
pub(super) fn spawn(
    mut dir: SandboxDir,
    program: &Path,
    as_what: As,
) -> Result<(Child, UnixStream), SandboxError> {
    let before = match dir.record() {
        Ok(record) => record,
        Err(DirectoryError::Damaged { .. }) => Record::lost(),
        Err(error) => return Err(error.into()),
    };
    let spec = dir.spec()?;
    dir.write_record(&before.starting())?;
    match start(&dir, &spec, program, as_what) {
        Ok(started) => {
            dir.hand_over();
            Ok(started)
        }
        Err(source) => {
            // As if nothing had been asked.
            if before.kept {
                dir.write_record(&before)?;
            } else {
                dir.remove()?;
            }
            Err(SandboxError::Spawn { program: program.to_path_buf(), source })
        }
    }
}

fn start(
    dir: &SandboxDir,
    spec: &SandboxSpec,
    program: &Path,
    as_what: As,
) -> io::Result<(Child, UnixStream)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let ours = UnixStream::from_std(ours)?;
    let logs = dir.path().join(LOGS);
    if !logs.exists() {
        private_dir(&logs, false)?;
    }
    let log = logs.join(SUPERVISOR_LOG);
    let log = File::options().write(true).create(true).truncate(true).mode(0o600).open(log)?;
    let mut command = std::process::Command::new(program);
    command
        // What lists of processes show, whatever path it was started by.
        .arg0("cellule")
        .arg("supervise")
        .arg(dir.path())
        .args(matches!(as_what, As::Standby).then_some("--standby"))
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(dir.share_lock()?)
        .stderr(log)
        .current_dir("/");
    if std::env::var_os(MALLOC).is_none() {
        command.env(MALLOC, "glibc.malloc.mmap_threshold=16384");
    }
    // What it needs of them it is told; the machine's process is to have none.
    for variable in secrets::variables(&spec.network.secrets) {
        command.env_remove(variable);
    }
    // Not killed when it is dropped: the end of the connection has it clear everything away, which it could not once dead.
    let child = Command::from(command).spawn()?;
    Ok((child, ours))
}
