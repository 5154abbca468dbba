//! `cellule man`: writes the manual pages. Hidden, as it is for packages and not for users.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::CommandFactory as _;

use crate::failure::Failure;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The directory that gets them, one for each command
    dir: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let dir = &arguments.dir;
    let failed = |error| Failure::because(format!("cannot write manual pages to {}", dir.display()), &error);
    std::fs::create_dir_all(dir).map_err(failed)?;
    clap_mangen::generate_to(super::Cellule::command(), dir).map_err(failed)?;
    Ok(ExitCode::SUCCESS)
}
