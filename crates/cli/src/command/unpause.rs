//! `cellule unpause`: lets paused guests go on.

use std::process::ExitCode;

use crate::each::each;
use crate::failure::Failure;
use crate::{completion, host, library_failure};

/// Let paused sandboxes go on, their clocks set to this host's
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Names, or what ids begin with
    #[arg(required = true, value_name = "SANDBOX", add = completion::sandbox())]
    sandboxes: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let host = host::locate()?;
    let resuming = each(&arguments.sandboxes, |name| {
        let host = host.clone();
        async move {
            let resumed = async { host.connect(&name).await?.resume().await };
            resumed.await.map_err(|error| library_failure::of(&error))?;
            Ok(name)
        }
    });
    super::runtime()?.block_on(resuming)
}
