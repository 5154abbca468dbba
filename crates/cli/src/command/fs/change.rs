//! Changes to files that need no contents.

use std::ffi::OsString;
use std::process::ExitCode;

use cellule::{FileError, Files};

use super::content::parse_mode;
use super::{Places, absolute, done};
use crate::each::code;
use crate::failure::Failure;
use crate::{completion, host};

#[derive(Debug, clap::Args)]
pub(crate) struct Mkdir {
    /// Make the directories above too; one that is there is no failure
    #[arg(short, long)]
    parents: bool,
    /// Give them these permissions, in octal; by default 0755
    #[arg(short, long, value_parser = parse_mode)]
    mode: Option<u32>,
    #[command(flatten)]
    places: Places,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Rm {
    /// Remove directories with all in them
    #[arg(short, long)]
    recursive: bool,
    #[command(flatten)]
    places: Places,
}

/// From one path to another.
#[derive(Debug, clap::Args)]
struct Both {
    /// The sandbox's name, or what its id begins with
    #[arg(add = completion::sandbox())]
    sandbox: String,
    /// The path that there is
    from: OsString,
    /// The path that there is to be, its last name included
    to: OsString,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Mv {
    /// Refuse if there is something of that name
    #[arg(short, long)]
    no_clobber: bool,
    #[command(flatten)]
    both: Both,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Cp {
    /// Copy directories with all in them
    #[arg(short, long)]
    recursive: bool,
    #[command(flatten)]
    both: Both,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Chmod {
    /// The sandbox's name, or what its id begins with
    #[arg(add = completion::sandbox())]
    sandbox: String,
    /// The permissions, in octal
    #[arg(value_parser = parse_mode)]
    mode: u32,
    /// The paths in it
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<OsString>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Chown {
    /// Of a symbolic link, set the owner of the link itself
    #[arg(long)]
    no_follow: bool,
    /// The sandbox's name, or what its id begins with
    #[arg(add = completion::sandbox())]
    sandbox: String,
    /// The user and the group, names of the image's or numbers
    #[arg(value_name = "USER[:GROUP]")]
    owner: String,
    /// The paths in it
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<OsString>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Ln {
    /// The sandbox's name, or what its id begins with
    #[arg(add = completion::sandbox())]
    sandbox: String,
    /// Where the link is to lead; there need not be anything
    target: OsString,
    /// The path of the link
    path: OsString,
}

pub(super) async fn mkdir(arguments: &Mkdir) -> Result<ExitCode, Failure> {
    let Mkdir { parents, mode, places } = arguments;
    each(&places.sandbox, &places.paths, async |files, path| files.make_dir(path, *parents, *mode).await)
        .await
}

pub(super) async fn rm(arguments: &Rm) -> Result<ExitCode, Failure> {
    let Rm { recursive, places } = arguments;
    each(&places.sandbox, &places.paths, async |files, path| files.remove(path, *recursive).await).await
}

pub(super) async fn mv(arguments: &Mv) -> Result<ExitCode, Failure> {
    let Both { sandbox, from, to } = &arguments.both;
    let mut sandbox = host::connect(sandbox).await?;
    let renamed = sandbox.files().rename(absolute(from), absolute(to), arguments.no_clobber).await;
    done(&mut sandbox, renamed).await?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn cp(arguments: &Cp) -> Result<ExitCode, Failure> {
    let Both { sandbox, from, to } = &arguments.both;
    let mut sandbox = host::connect(sandbox).await?;
    let copied = sandbox.files().copy(absolute(from), absolute(to), arguments.recursive).await;
    done(&mut sandbox, copied).await?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn chmod(arguments: &Chmod) -> Result<ExitCode, Failure> {
    let Chmod { sandbox, mode, paths } = arguments;
    each(sandbox, paths, async |files, path| files.set_mode(path, *mode).await).await
}

pub(super) async fn chown(arguments: &Chown) -> Result<ExitCode, Failure> {
    let Chown { no_follow, sandbox, owner, paths } = arguments;
    each(sandbox, paths, async |files, path| files.set_owner(path, owner, *no_follow).await).await
}

pub(super) async fn ln(arguments: &Ln) -> Result<ExitCode, Failure> {
    use std::os::unix::ffi::OsStrExt as _;
    let mut sandbox = host::connect(&arguments.sandbox).await?;
    // The target is the link's own text: nothing is added to it.
    let made = sandbox.files().symlink(arguments.target.as_bytes(), absolute(&arguments.path)).await;
    done(&mut sandbox, made).await?;
    Ok(ExitCode::SUCCESS)
}

/// Does something to each path, whatever becomes of the others.
async fn each(
    sandbox: &str,
    paths: &[OsString],
    act: impl AsyncFn(Files, Vec<u8>) -> Result<(), FileError>,
) -> Result<ExitCode, Failure> {
    let mut sandbox = host::connect(sandbox).await?;
    let mut failed = false;
    for path in paths {
        let acted = act(sandbox.files(), absolute(path)).await;
        if let Err(failure) = done(&mut sandbox, acted).await {
            crate::say(&failure.render());
            failed = true;
        }
    }
    Ok(code(failed))
}
