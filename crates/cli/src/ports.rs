//! How ports that lead into a sandbox are told.

use cellule::Sandbox;
use cellule::network::Forward;

use crate::failure::Failure;
use crate::library_failure;
use crate::report::Report;

/// As `cellule ps` shows it.
pub(crate) fn show(forward: &Forward) -> String {
    format!("{}->{}/{}", forward.host, forward.guest, forward.protocol)
}

/// Tells which ports of this host were chosen, where that was left to us.
pub(crate) fn tell_chosen(sandbox: &Sandbox, report: &Report) -> Result<(), Failure> {
    if sandbox.spec().network.ports.iter().all(|forward| forward.host.port() != 0) {
        return Ok(());
    }
    let entry = sandbox.host().find(sandbox.id()).map_err(|error| library_failure::of(&error))?;
    for forward in &entry.record.ports {
        report.warn(&format!("{} leads to port {}/{}", forward.host, forward.guest, forward.protocol));
    }
    Ok(())
}
