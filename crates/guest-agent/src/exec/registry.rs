//! Owns the table of the guest's execs, whatever session they came by.
//!
//! ```text
//!   reserve ──▶ starting ──▶ enter ──▶ running ──▶ ended ──┬─▶ owned: gone
//!                  │                                       └─▶ detached: kept ──▶ forgotten, or pushed out by later ones
//!                  └──▶ dropped: gone
//! ```

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::failure::Failure;
use super::ring::Budget;
use super::running::Exec;

/// Execs that run at a time.
const MAX_RUNNING: usize = 512;
/// Detached execs that ended and are kept, and the output that is kept of them.
const MAX_ENDED: usize = 64;
const MAX_ENDED_OUTPUT: usize = 16 * 1024 * 1024;

#[derive(Debug, Default)]
pub(crate) struct Registry {
    table: Mutex<Table>,
    pub(super) budget: Arc<Budget>,
}

#[derive(Debug, Default)]
struct Table {
    /// None: it is being started.
    execs: HashMap<u64, Option<Arc<Exec>>>,
    /// Those of them that ended, oldest first.
    ended: VecDeque<u64>,
}

/// A place in the table for an exec that is being started.
#[derive(Debug)]
pub(super) struct Reservation<'a> {
    registry: &'a Registry,
    id: u64,
}

/// Why something of an exec was not forgotten.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotForgotten {
    Unknown,
    Running,
}

impl Registry {
    /// A place for an exec with this id, which nobody else may have.
    pub(super) fn reserve(&self, id: u64) -> Result<Reservation<'_>, Failure> {
        let mut table = self.lock();
        if id == 0 {
            return Err(Failure::invalid("exec_id", "is zero"));
        }
        if table.execs.contains_key(&id) {
            return Err(Failure::invalid("exec_id", "an exec with this id is there already"));
        }
        if table.running() >= MAX_RUNNING {
            return Err(Failure::too_many(MAX_RUNNING));
        }
        table.execs.insert(id, None);
        Ok(Reservation { registry: self, id })
    }

    /// The exec of this id, running or kept.
    pub(crate) fn find(&self, id: u64) -> Option<Arc<Exec>> {
        self.lock().execs.get(&id)?.clone()
    }

    /// All that are there, in the order of their start.
    pub(crate) fn all(&self) -> Vec<Arc<Exec>> {
        let mut all: Vec<_> = self.lock().execs.values().flatten().cloned().collect();
        all.sort_by_key(|exec| (exec.started(), exec.id()));
        all
    }

    /// Leaves all that run to themselves.
    pub(crate) fn detach_all(&self) {
        for exec in self.all() {
            exec.detach();
        }
    }

    /// How many run or are being started.
    pub(crate) fn running(&self) -> usize {
        self.lock().running()
    }

    /// An exec has ended: keeps what is to be kept of it.
    pub(super) fn ended(&self, exec: &Exec) {
        let mut table = self.lock();
        if !exec.is_detached() {
            table.execs.remove(&exec.id());
            return;
        }
        table.ended.push_back(exec.id());
        while table.ended.len() > MAX_ENDED || table.ended_output() > MAX_ENDED_OUTPUT {
            let Some(oldest) = table.ended.pop_front() else { break };
            table.remove(oldest);
        }
    }

    /// Drops what is kept of an exec that ended.
    pub(crate) fn forget(&self, id: u64) -> Result<(), NotForgotten> {
        let mut table = self.lock();
        let Some(at) = table.ended.iter().position(|ended| *ended == id) else {
            return Err(match table.execs.get(&id) {
                Some(_) => NotForgotten::Running,
                None => NotForgotten::Unknown,
            });
        };
        table.ended.remove(at);
        table.remove(id);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn running(&self) -> usize {
        self.execs.len() - self.ended.len()
    }

    fn ended_output(&self) -> usize {
        let kept = self.ended.iter().filter_map(|id| self.execs.get(id)?.as_ref());
        kept.map(|exec| exec.memory()).sum()
    }

    fn remove(&mut self, id: u64) {
        if let Some(Some(exec)) = self.execs.remove(&id) {
            // Whatever still lies in its pipes: nobody new can come for it any more.
            exec.rings().for_each(|ring| ring.set_kept(false));
        }
    }
}

impl Reservation<'_> {
    /// It runs.
    pub(super) fn enter(self, exec: &Arc<Exec>) {
        self.registry.lock().execs.insert(self.id, Some(Arc::clone(exec)));
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        let mut table = self.registry.lock();
        if table.execs.get(&self.id).is_some_and(Option::is_none) {
            table.execs.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_taken_until_its_start_failed() {
        let registry = Registry::default();
        let first = registry.reserve(7).unwrap();
        registry.reserve(7).unwrap_err();
        registry.reserve(0).unwrap_err();
        assert_eq!(registry.running(), 1);
        drop(first);
        assert_eq!(registry.running(), 0);
        registry.reserve(7).unwrap();
    }

    #[test]
    fn no_more_than_the_limit_run() {
        let registry = Registry::default();
        let all: Vec<_> = (1..=MAX_RUNNING as u64).map(|id| registry.reserve(id).unwrap()).collect();
        registry.reserve(u64::MAX).unwrap_err();
        drop(all);
        registry.reserve(u64::MAX).unwrap();
    }

    #[test]
    fn what_never_was_cannot_be_forgotten() {
        let registry = Registry::default();
        let _starting = registry.reserve(7).unwrap();
        assert_eq!(registry.forget(7), Err(NotForgotten::Running));
        assert_eq!(registry.forget(8), Err(NotForgotten::Unknown));
    }
}
