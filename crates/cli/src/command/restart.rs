//! `cellule restart`: stops sandboxes and starts them again.

use std::process::ExitCode;

use cellule::{Host, StopOptions, secrets};

use super::{start, stop};
use crate::each::each;
use crate::failure::Failure;
use crate::{completion, host, library_failure};

/// Stop sandboxes, if they run, and start them again
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Names, or what ids begin with
    #[arg(required = true, value_name = "SANDBOX", add = completion::sandbox())]
    sandboxes: Vec<String>,
    #[command(flatten)]
    grace: stop::Grace,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let host = host::locate()?;
    let options = StopOptions { grace: arguments.grace.time, signal: None, remove: false };
    let restarting = each(&arguments.sandboxes, |name| {
        let host = host.clone();
        async move {
            restart(&host, &name, options).await?;
            Ok(name)
        }
    });
    super::runtime()?.block_on(restarting)
}

async fn restart(host: &Host, name: &str, options: StopOptions) -> Result<(), Failure> {
    let entry = host.find(name).map_err(|error| library_failure::of(&error))?;
    if entry.spec.auto_remove && entry.is_live() {
        return Err(Failure::new(format!(
            "{name} is removed when it ends, so there is nothing to start again"
        ))
        .hint("make it without --rm"));
    }
    // What could not start again is better left as it is.
    secrets::check(&entry).map_err(|error| library_failure::of(&error))?;
    // It may get another name meanwhile.
    let id = entry.spec.id.to_string();
    stop::stop(host, entry, options).await?;
    start::again(host, &id).await
}
