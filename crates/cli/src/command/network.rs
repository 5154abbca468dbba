//! `cellule network …`: what the programs of sandboxes may reach, and the networks that they are on.

mod check;
mod named;
mod show;

use std::process::ExitCode;

use cellule::{NetworkName, Sandbox};

use self::check::Question;
use crate::config::Config;
use crate::failure::Failure;
use crate::listing::{FormatOption, Listing};
use crate::network_options::PolicyOptions;
use crate::{completion, host, library_failure};

/// Change, ask and show what the programs of sandboxes may reach; manage the networks between them
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Make a network, for sandboxes that reach one another by name: `cellule run --network NAME`
    Create {
        /// Its name: 2 to 63 of a-z 0-9 -
        name: NetworkName,
    },
    /// List networks, and the sandboxes on them that run
    Ls {
        #[command(flatten)]
        listing: Listing,
    },
    /// Remove networks that no running sandbox is on
    Rm {
        /// Their names
        #[arg(required = true, add = completion::named_network())]
        names: Vec<NetworkName>,
    },
    /// Change what the programs of a sandbox may reach, all of it: what is not given is as at `run`
    ///
    /// If it runs, connections that are not allowed any more are reset. It holds when the sandbox is started again too.
    Set {
        /// The sandbox's name, or what its id begins with
        #[arg(add = completion::sandbox())]
        sandbox: String,
        #[command(flatten)]
        policy: PolicyOptions,
    },
    /// Ask what would become of a connection of a running sandbox's programs: a line for each address
    ///
    /// Names are looked up as for the programs, if they may be. Nothing is connected to. The exit code is 0 if all of it is
    /// allowed, and 1 if any of it is refused.
    Check {
        /// The sandbox's name, or what its id begins with
        #[arg(add = completion::sandbox())]
        sandbox: String,
        /// To where: example.com:443, 10.0.0.1:53/udp, `[2001:db8::1]:443` or example.com/icmp
        #[arg(value_name = "HOST:PORT[/PROTOCOL]", value_parser = check::parse)]
        to: Question,
        #[command(flatten)]
        format: FormatOption,
    },
    /// Show what the programs of a sandbox may reach, with the numbers by which reasons name the rules
    Show {
        /// The sandbox's name, or what its id begins with
        #[arg(add = completion::sandbox())]
        sandbox: String,
    },
}

pub(crate) fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Create { name } => named::create(&name),
        Command::Ls { listing } => named::list(listing),
        Command::Rm { names } => named::remove(&names),
        Command::Set { sandbox, policy } => super::runtime()?.block_on(set(&sandbox, &policy)),
        Command::Check { sandbox, to, format } => {
            super::runtime()?.block_on(check::check(&sandbox, &to, format))
        }
        Command::Show { sandbox } => {
            let entry = host::locate()?.find(&sandbox).map_err(|error| library_failure::of(&error))?;
            crate::answer(&show::text(&entry))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn set(name: &str, policy: &PolicyOptions) -> Result<ExitCode, Failure> {
    if !policy.is_given() {
        // An empty set of options would open the internet, which is to be said.
        return Err(Failure::new("nothing is said of what programs may reach")
            .hint("--network public is what a sandbox has by default; --network none closes all"));
    }
    let policy = policy.policy(&Config::read()?.network)?;
    let failed = |error: cellule::Error| library_failure::of(&error);
    let host = host::locate()?;
    let entry = host.find(name).map_err(failed)?;
    if entry.is_live() {
        let mut sandbox = Sandbox::open(host, entry).await.map_err(failed)?;
        sandbox.set_policy(&policy).await.map_err(failed)?;
    } else {
        host.set_policy(&entry, &policy).map_err(failed)?;
    }
    crate::answer(&format!("{name}\n"))?;
    Ok(ExitCode::SUCCESS)
}
