//! `cellule pool keep`: the process that keeps one pool. Not for users: `cellule pool create` starts it.

use std::time::{Duration, Instant};

use cellule::Pool;
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::Failure;
use crate::pool::{PoolDir, PoolName};
use crate::{host, library_failure};

/// How long machines that are nobody's any more may take to be gone.
const END: Duration = Duration::from_secs(10);
/// How long others may have the lock who look whether it is held.
const LOOKED_AT: Duration = Duration::from_secs(1);
/// How often is looked whether the pool is still there.
const LOOK: Duration = Duration::from_secs(2);

pub(super) fn keep(name: &PoolName) -> Result<(), Failure> {
    // A terminal that goes away takes no pool down.
    _ = rustix::process::setsid();
    let host = host::locate()?;
    let pool = PoolDir::find(&host, name)?;
    let failed = |error| Failure::because(format!("cannot keep the pool {name}"), &error);
    let begun = Instant::now();
    let _lock = loop {
        match pool.place.try_lock().map_err(failed)? {
            Some(lock) => break lock,
            // Somebody who only looks has it for an instant.
            None if begun.elapsed() < LOOKED_AT => std::thread::sleep(LOOKED_AT / 50),
            None => return Err(Failure::new(format!("the pool {name} is kept already"))),
        }
    };
    super::super::runtime()?.block_on(async {
        let mut end = signal(SignalKind::terminate()).map_err(failed)?;
        let library = |error: cellule::Error| library_failure::of(&error);
        let prepared = pool.document().builder(&host)?.prepare().await.map_err(library)?;
        let kept =
            Pool::start_in(prepared, pool.document().options(), pool.place.ready()).map_err(library)?;
        let mut stats = kept.watch();
        stats.mark_changed();
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                _ = end.recv() => break,
                changed = stats.changed() => match changed {
                    Ok(()) => {
                        let now = stats.borrow_and_update().clone();
                        // A full disk is no reason to end what runs: it is told with the next change.
                        _ = pool.place.tell(now);
                    }
                    Err(_) => break,
                },
                _ = look.tick() => if !pool.place.path.exists() { break },
            }
        }
        _ = tokio::time::timeout(END, kept.end()).await;
        Ok(())
    })
}
