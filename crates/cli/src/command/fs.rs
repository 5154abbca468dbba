//! `cellule fs …`: the files of a running sandbox.

mod change;
mod content;
mod list;
mod watch;

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::process::ExitCode;

use cellule::{FileError, Sandbox};

use crate::failure::Failure;
use crate::flow::FlowError;
use crate::{completion, host};

/// Work with the files of a running sandbox
///
/// Each command takes the sandbox first and then paths in it; one that does not begin with a slash is taken from the
/// root. All is done as root.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Write a file's contents to standard output
    Read(content::Read),
    /// Write standard input to a file, in one step: it has the old contents or the new ones, and never a part
    Write(content::Write),
    /// List a directory
    Ls(list::Ls),
    /// Tell what is at a path
    Stat(list::Stat),
    /// Make directories
    Mkdir(change::Mkdir),
    /// Remove files
    Rm(change::Rm),
    /// Give a file another name
    Mv(change::Mv),
    /// Copy a file to another place in the same sandbox, with its owner, its permissions and its time
    Cp(change::Cp),
    /// Set permissions
    Chmod(change::Chmod),
    /// Set owners
    Chown(change::Chown),
    /// Make a symbolic link
    Ln(change::Ln),
    /// Print where a symbolic link leads
    Readlink(list::Readlink),
    /// Tell whether there is something at a path: exit with 0 if so, and with 1 if not
    Exists(list::Exists),
    /// Write a file or directory to standard output, as a tar
    TarOut(content::TarOut),
    /// Unpack a tar from standard input into a directory
    TarIn(content::TarIn),
    /// Print what changes beneath a path, until interrupted
    Watch(watch::Arguments),
}

/// A path in a sandbox.
#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    /// The sandbox's name, or what its id begins with
    #[arg(add = completion::sandbox())]
    sandbox: String,
    /// The path in it
    path: OsString,
}

/// Paths in a sandbox.
#[derive(Debug, clap::Args)]
pub(crate) struct Places {
    /// The sandbox's name, or what its id begins with
    #[arg(add = completion::sandbox())]
    sandbox: String,
    /// The paths in it
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<OsString>,
}

pub(crate) fn run(command: Command) -> Result<ExitCode, Failure> {
    let runtime = super::runtime()?;
    let result = runtime.block_on(async {
        match command {
            Command::Read(arguments) => content::read(&arguments).await,
            Command::Write(arguments) => content::write(&arguments).await,
            Command::Ls(arguments) => list::ls(&arguments).await,
            Command::Stat(arguments) => list::stat(&arguments).await,
            Command::Mkdir(arguments) => change::mkdir(&arguments).await,
            Command::Rm(arguments) => change::rm(&arguments).await,
            Command::Mv(arguments) => change::mv(&arguments).await,
            Command::Cp(arguments) => change::cp(&arguments).await,
            Command::Chmod(arguments) => change::chmod(&arguments).await,
            Command::Chown(arguments) => change::chown(&arguments).await,
            Command::Ln(arguments) => change::ln(&arguments).await,
            Command::Readlink(arguments) => list::readlink(&arguments).await,
            Command::Exists(arguments) => list::exists(&arguments).await,
            Command::TarOut(arguments) => content::tar_out(&arguments).await,
            Command::TarIn(arguments) => content::tar_in(&arguments).await,
            Command::Watch(arguments) => watch::run(&arguments).await,
        }
    });
    // A thread may still wait for standard input, which need not end for us to.
    runtime.shutdown_background();
    result
}

/// The path as the guest takes it.
fn absolute(path: &OsStr) -> Vec<u8> {
    let path = path.as_bytes();
    if path.starts_with(b"/") { path.to_vec() } else { [b"/", path].concat() }
}

/// What came of an operation, or its failure in words.
async fn done<T>(sandbox: &mut Sandbox, result: Result<T, FileError>) -> Result<T, Failure> {
    match result {
        Ok(done) => Ok(done),
        Err(error) => Err(host::explained(sandbox, error).await),
    }
}

/// The failure of a transfer: the guest's, or that of our own standard stream.
pub(super) async fn broken(sandbox: &mut Sandbox, error: FlowError, doing: &str) -> Failure {
    let (FlowError::Read(source) | FlowError::Write(source)) = error;
    guests(sandbox, source, doing).await
}

/// The failure behind an error of a stream, which is the guest's if that gave it.
pub(super) async fn guests(sandbox: &mut Sandbox, error: io::Error, doing: &str) -> Failure {
    match error.downcast::<FileError>() {
        Ok(theirs) => host::explained(sandbox, theirs).await,
        Err(ours) => Failure::because(format!("cannot {doing}"), &ours),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_taken_from_the_root_whatever_its_bytes() {
        assert_eq!(absolute("etc/hosts".as_ref()), b"/etc/hosts");
        assert_eq!(absolute("/etc/".as_ref()), b"/etc/");
        assert_eq!(absolute(OsStr::from_bytes(b"\xff")), b"/\xff");
    }
}
