//! `cellule kill`: sends the commands of sandboxes a signal.

use std::process::ExitCode;

use cellule::Signal;

use crate::each::each;
use crate::failure::Failure;
use crate::{completion, host, library_failure};

/// Send the commands of running sandboxes a signal; SIGKILL ends the sandbox at once
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Names, or what ids begin with
    #[arg(required = true, value_name = "SANDBOX", add = completion::sandbox())]
    sandboxes: Vec<String>,
    /// The signal, by name or number
    #[arg(short, long, default_value = "KILL")]
    signal: Signal,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let host = host::locate()?;
    let signal = arguments.signal;
    let killing = each(&arguments.sandboxes, |name| {
        let host = host.clone();
        async move {
            let killed = async { host.connect(&name).await?.kill(signal).await };
            killed.await.map_err(|error| library_failure::of(&error))?;
            Ok(name)
        }
    });
    super::runtime()?.block_on(killing)
}
