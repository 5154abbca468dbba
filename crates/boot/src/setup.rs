//! Making the bundle.
//!
//! ```text
//!  ensure ──> current bundle serves ───────────────────────────────────────────> done
//!    │ no
//!    v  lock, sweep, look again
//!    ├── kernel and base image cached and intact ──────────────> compose ──> done
//!    v  else
//!  setup ──> lock, sweep ──> kernel ──> base image ──> compose ──> done
//! ```
//! A setup that is killed anywhere leaves the bundle before it in use.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::apt::Apt;
use crate::base::{BaseContents, Busybox};
use crate::bundle::{BASE, Stores};
use crate::lock::SetupLock;
use crate::progress::{OnProgress, Phase, Progress};
use crate::source::{KernelContents, obtain};
use crate::store::Stored;
use crate::{Agent, Bundle, Current, Error, KernelSource, Result};

/// How long a setup waits for another: as long as one may take over a slow line.
const LOCK_LIMIT: Duration = Duration::from_secs(45 * 60);

/// Where a busybox is found; the directory is for what must not last.
type FindBusybox<'a> = &'a dyn Fn(&mut Apt<'_>, &Path) -> Result<Busybox>;

/// Makes a bundle from `source` and puts it in use. What the last setup took from the same package is used again.
///
/// Blocks for as long as a download takes; needs no root.
///
/// # Errors
/// Any of [`Error`]'s; the bundle in use before stays in use.
pub fn setup(
    home: &Path,
    agent: &Agent<'_>,
    source: &KernelSource,
    on_progress: OnProgress<'_>,
) -> Result<Bundle> {
    let (stores, _lock) = begin(home, on_progress)?;
    make(&stores, agent, source, &Busybox::find, on_progress)
}

/// The bundle in use, if it serves; else one made from what is cached, without network; else one made by [`setup`]
/// from what suits this host.
///
/// # Errors
/// As [`setup`].
pub fn ensure(home: &Path, agent: &Agent<'_>, on_progress: OnProgress<'_>) -> Result<Bundle> {
    ensure_from(home, agent, &KernelSource::for_this_host(), &Busybox::find, on_progress)
}

fn ensure_from(
    home: &Path,
    agent: &Agent<'_>,
    source: &KernelSource,
    find_busybox: FindBusybox<'_>,
    on_progress: OnProgress<'_>,
) -> Result<Bundle> {
    if let Current::Ready(bundle) = Bundle::open_current(home, agent)? {
        return Ok(*bundle);
    }
    let (stores, _lock) = begin(home, on_progress)?;
    // Another setup may have made it meanwhile.
    if let Current::Ready(bundle) = Bundle::open_current(home, agent)? {
        return Ok(*bundle);
    }
    if let Some((kernel, base)) = cached(&stores) {
        on_progress(Progress::begin(Phase::Composing));
        return stores.compose(&kernel, &base, agent);
    }
    make(&stores, agent, source, find_busybox, on_progress)
}

fn begin(home: &Path, on_progress: OnProgress<'_>) -> Result<(Stores, SetupLock)> {
    fs::create_dir_all(home).map_err(Error::write(home))?;
    let lock = SetupLock::take(home, LOCK_LIMIT, on_progress)?;
    let stores = Stores::new(home);
    stores.sweep()?;
    Ok((stores, lock))
}

/// The kernel and the base image of the last setup, if both are as they were made.
fn cached(stores: &Stores) -> Option<(Stored<KernelContents>, Stored<BaseContents>)> {
    let kernel = stores.kernels.current().ok()??;
    let base = stores.bases.current().ok()??;
    (kernel.verify().is_ok() && base.verify().is_ok()).then_some((kernel, base))
}

fn make(
    stores: &Stores,
    agent: &Agent<'_>,
    source: &KernelSource,
    find_busybox: FindBusybox<'_>,
    on_progress: OnProgress<'_>,
) -> Result<Bundle> {
    let scratch = stores.kernels.scratch()?;
    let mut apt = Apt::new(scratch.path(), on_progress);
    let kernel =
        obtain(source, &stores.kernels, &mut apt, &|| on_progress(Progress::begin(Phase::Unpacking)))?;
    on_progress(Progress::begin(Phase::MakingBase));
    let base = base_image(stores, &find_busybox(&mut apt, scratch.path())?)?;
    on_progress(Progress::begin(Phase::Composing));
    stores.compose(&kernel, &base, agent)
}

fn base_image(stores: &Stores, busybox: &Busybox) -> Result<Stored<BaseContents>> {
    let mut draft = stores.bases.draft()?;
    draft.write_with(BASE, |out| busybox.write_tar(out))?;
    let base = stores.bases.publish(draft, busybox.contents())?;
    stores.bases.keep_only(&base.id)?;
    Ok(base)
}

#[cfg(test)]
mod tests;
