//! What all templates together may take.

use std::fs::{self, File};

use super::{LOCK, TemplateState, Templates};
use crate::directory::{entries, try_lock};
use crate::error::Error;
use crate::key::TemplateId;

impl Templates {
    /// Removes those that were not used for longest, until all take no more than they may. `keep` stays in any case.
    ///
    /// # Errors
    /// The directory cannot be read, or one of them not removed.
    pub fn make_room(&self, keep: &TemplateId) -> Result<u64, Error> {
        let all = self.list()?;
        let mut taken: u64 = all.iter().map(|template| template.disk_bytes).sum();
        let mut freed = 0;
        for template in all.iter().rev().filter(|template| template.id != *keep) {
            if taken <= self.limit {
                break;
            }
            let bytes = self.remove(&template.id)?;
            taken = taken.saturating_sub(bytes);
            freed += bytes;
        }
        Ok(freed)
    }

    /// Removes those that failed, or all, and the locks that nobody holds. Returns what was removed, with its bytes.
    ///
    /// # Errors
    /// The directory cannot be read, or one of them not removed.
    pub fn prune(&self, all: bool) -> Result<Vec<(TemplateId, u64)>, Error> {
        let mut removed = Vec::new();
        for template in self.list()? {
            if all || template.state != TemplateState::Ready {
                removed.push((template.id.clone(), self.remove(&template.id)?));
            }
        }
        for path in entries(&self.dir)? {
            let is_lock =
                path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.ends_with(LOCK));
            // Whoever opened it just now and finds it removed makes what another may make too: the later one finds it made.
            if is_lock && File::open(&path).is_ok_and(|lock| try_lock(&lock).unwrap_or(false)) {
                _ = fs::remove_file(&path);
            }
        }
        Ok(removed)
    }
}
