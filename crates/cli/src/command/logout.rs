//! `cellule logout`: forgets the credential for a registry.

use std::process::ExitCode;

use cellule_image::Credentials;

use crate::failure::Failure;
use crate::store;

/// Log out of a registry
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The registry; Docker's own if none is named
    #[arg(default_value = "docker.io")]
    registry: String,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let registry = &arguments.registry;
    let done = super::runtime()?.block_on(Credentials::default().logout(registry));
    let was_in = done.map_err(|error| store::failure(format!("cannot log out of {registry}"), &error))?;
    let said = if was_in { "logged out of" } else { "there was no credential for" };
    crate::say(&format!("{said} {registry}\n"));
    Ok(ExitCode::SUCCESS)
}
