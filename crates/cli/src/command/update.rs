//! `cellule update`: changes what running sandboxes may have.

use std::process::ExitCode;

use crate::each::each;
use crate::failure::Failure;
use crate::quantity::{parse_size, show_size};
use crate::{completion, host, library_failure};

/// Change how much memory running sandboxes have, up to what their machines were made with
///
/// What is taken from a guest goes back to this host, until the sandbox stops. A guest is asked for no more than its programs
/// can spare.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Names, or what ids begin with
    #[arg(required = true, value_name = "SANDBOX", add = completion::sandbox())]
    sandboxes: Vec<String>,
    /// Memory of the guest
    #[arg(short, long, value_name = "SIZE", value_parser = parse_size)]
    memory: u64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let host = host::locate()?;
    let memory = arguments.memory;
    let updating = each(&arguments.sandboxes, |name| {
        let host = host.clone();
        async move {
            let updated = async { host.connect(&name).await?.set_memory(memory).await };
            let has = updated.await.map_err(|error| library_failure::of(&error))?;
            if has > memory {
                let (has, memory) = (show_size(has), show_size(memory));
                crate::say(&format!(
                    "cellule: {name} has {has} still, and not {memory}: its programs hold the rest\n"
                ));
            }
            Ok(name)
        }
    });
    super::runtime()?.block_on(updating)
}
