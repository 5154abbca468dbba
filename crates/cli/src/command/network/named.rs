//! `cellule network create`, `ls` and `rm`: networks that sandboxes are on.

use std::collections::HashMap;
use std::process::ExitCode;

use cellule::{NamedNetwork, NetworkName, NetworksError};
use serde::Serialize;

use crate::each::code;
use crate::failure::Failure;
use crate::listing::{Listing, Row};
use crate::{host, library_failure};

pub(super) fn create(name: &NetworkName) -> Result<ExitCode, Failure> {
    host::locate()?.networks().create(name).map_err(|error| library_failure::networks(&error))?;
    crate::answer(&format!("{name}\n"))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn list(listing: Listing) -> Result<ExitCode, Failure> {
    let host = host::locate()?;
    let networks = host.networks().list().map_err(|error| library_failure::networks(&error))?;
    let sandboxes = host.list().map_err(|error| library_failure::of(&error))?;
    let names: HashMap<String, String> = sandboxes
        .into_iter()
        .filter_map(|entry| Some((entry.spec.id.to_string(), entry.name?.to_string())))
        .collect();
    let rows: Vec<Shown> = networks.iter().map(|network| Shown::of(network, &names)).collect();
    crate::answer(&listing.render(&rows, true)?)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn remove(names: &[NetworkName]) -> Result<ExitCode, Failure> {
    let networks = host::locate()?.networks();
    let mut failed = false;
    for name in names {
        match networks.remove(name) {
            Ok(()) => crate::answer(&format!("{name}\n"))?,
            Err(error) => {
                let failure = match error {
                    NetworksError::NotFound(_) => {
                        Failure::of(&error).hint("those that there are: cellule network ls")
                    }
                    _ => library_failure::networks(&error),
                };
                crate::say(&failure.render());
                failed = true;
            }
        }
    }
    Ok(code(failed))
}

/// A network as it is shown.
#[derive(Debug, Serialize)]
struct Shown {
    name: String,
    /// The sandboxes on it that run, by their names, or ids where they have none.
    sandboxes: Vec<String>,
}

impl Shown {
    fn of(network: &NamedNetwork, names: &HashMap<String, String>) -> Self {
        let called = |id: &str| names.get(id).map_or(id, String::as_str).to_owned();
        let sandboxes = network.members.iter().map(|id| called(id.as_str())).collect();
        Self { name: network.name.to_string(), sandboxes }
    }
}

impl Row<2> for Shown {
    const HEADER: [&'static str; 2] = ["NETWORK", "SANDBOXES"];

    fn id(&self) -> String {
        self.name.clone()
    }

    fn lines(&self, _full: bool) -> Vec<[String; 2]> {
        vec![[self.name.clone(), self.sandboxes.join(", ")]]
    }
}
