//! Makes sure that there is a boot bundle, and words what can go wrong with that.

use std::path::Path;

use cellule_boot::{AGENT, AptError, Bundle, Error, KernelSource, OnProgress};

use crate::failure::Failure;

/// A bundle from this source, or from what suits this host.
pub(crate) fn setup(
    home: &Path,
    source: Option<KernelSource>,
    progress: OnProgress<'_>,
) -> Result<Bundle, Failure> {
    let made = match source {
        Some(source) => cellule_boot::setup(home, &AGENT, &source, progress),
        None => cellule_boot::ensure(home, &AGENT, progress),
    };
    made.map_err(|error| failure(&error))
}

pub(crate) fn failure(error: &Error) -> Failure {
    let failure = Failure::because("cannot set the boot bundle up", error);
    match error {
        Error::NoKernel { .. } => {
            failure.hint("give a kernel of your own: cellule setup --kernel FILE --modules DIR")
        }
        Error::Apt(AptError::NotFound { .. }) => {
            failure.hint("this host's apt has no such kernel; its own may serve: cellule setup --host-kernel")
        }
        Error::Apt(_) => failure.hint(
            "see whether the network and this host's apt sources work (apt-get update), or use the host's own kernel: \
             cellule setup --host-kernel",
        ),
        Error::DiskFull { .. } => failure.hint("free some space there; a bundle takes about 60 MB"),
        Error::Kernel { .. } | Error::ModuleMissing { .. } => {
            failure.hint("Debian's kernel for virtual machines works: cellule setup")
        }
        Error::Damaged { .. } => failure.hint("make it anew: cellule setup --force"),
        _ => failure,
    }
}
