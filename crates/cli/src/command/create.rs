//! `cellule create`: makes a sandbox that is started later.

use std::process::ExitCode;
use std::sync::Arc;

use crate::attached;
use crate::failure::Failure;
use crate::report::Report;
use crate::sandbox_options::SandboxOptions;
use crate::watch::Watch;
use crate::{host, library_failure};

/// Make a sandbox without starting it, and print its id
#[derive(Debug, clap::Args)]
#[command(override_usage = "cellule create [OPTIONS] IMAGE [COMMAND [ARG...]]")]
pub(crate) struct Arguments {
    #[command(flatten)]
    options: SandboxOptions,
    /// Remove the sandbox when its command ends
    #[arg(long)]
    rm: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let Arguments { options, rm } = arguments;
    let report = Arc::new(Report::new(options.verbose, options.quiet));
    let watch = Arc::new(Watch::new(options.quiet));
    let host = host::locate()?;
    let builder =
        options.builder(&host, None, false, attached::window(), &watch, &report)?.remove_when_ended(*rm);
    let created = super::runtime()?.block_on(builder.create());
    watch.clear();
    let entry = created.map_err(|error| library_failure::of(&error))?;
    crate::answer(&format!("{}\n", entry.spec.id))?;
    Ok(ExitCode::SUCCESS)
}
