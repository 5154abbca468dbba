//! `cellule rename`: gives a sandbox another name.

use std::process::ExitCode;

use cellule::SandboxName;

use crate::failure::Failure;
use crate::{completion, host, library_failure};

/// Give a sandbox another name, whether it runs or not
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The sandbox's name, or what its id begins with
    #[arg(add = completion::sandbox())]
    sandbox: String,
    /// The new name; no other sandbox can have it
    name: SandboxName,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let host = host::locate()?;
    let renamed = || -> Result<(), cellule::Error> {
        let entry = host.find(&arguments.sandbox)?;
        Ok(host.sandboxes()?.rename(&entry.spec.id, &arguments.name)?)
    };
    renamed().map_err(|error| library_failure::of(&error))?;
    Ok(ExitCode::SUCCESS)
}
