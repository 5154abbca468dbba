//! `cellule supervise`: the process that owns one sandbox. Not for users: it is started with the connection to its
//! owner as standard input and the lock of the sandbox's directory as standard output.

use std::path::PathBuf;
use std::process::ExitCode;

use cellule_supervisor::SandboxDir;

use crate::failure::Failure;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The sandbox's directory
    dir: PathBuf,
    /// Have a machine ready for whoever claims it
    #[arg(long)]
    standby: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let runtime = super::runtime()?;
    runtime.block_on(async {
        let failed = |error| Failure::because("this command is started by cellule itself", &error);
        let (owner, lock) = cellule_supervisor::inherited().map_err(failed)?;
        let (dir, spec) = SandboxDir::adopt(&arguments.dir, lock)
            .map_err(|error| Failure::because("cannot take the sandbox over", &error))?;
        let ended = if arguments.standby {
            Box::pin(cellule_supervisor::stand_by(dir, spec, owner)).await
        } else {
            cellule_supervisor::supervise(dir, spec, owner).await
        };
        ended.map_err(|error| Failure::because("cannot put the sandbox's directory in order", &error))
    })?;
    Ok(ExitCode::SUCCESS)
}
