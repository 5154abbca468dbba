//! `cellule pause`: stops the processors of guests.

use std::process::ExitCode;

use crate::each::each;
use crate::failure::Failure;
use crate::{completion, host, library_failure};

/// Pause sandboxes: their programs and their time stand still
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Names, or what ids begin with
    #[arg(required = true, value_name = "SANDBOX", add = completion::sandbox())]
    sandboxes: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let host = host::locate()?;
    let pausing = each(&arguments.sandboxes, |name| {
        let host = host.clone();
        async move {
            let paused = async { host.connect(&name).await?.pause().await };
            paused.await.map_err(|error| library_failure::of(&error))?;
            Ok(name)
        }
    });
    super::runtime()?.block_on(pausing)
}
