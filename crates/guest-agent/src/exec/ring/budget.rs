//! Owns how much memory all rings together may take.

use std::sync::atomic::{AtomicUsize, Ordering};

/// What all rings together may take beyond their first pages.
pub(super) const BUDGET: usize = 64 * 1024 * 1024;

/// The memory of all rings.
#[derive(Debug, Default)]
pub(crate) struct Budget(AtomicUsize);

impl Budget {
    /// Whether so much more may be taken, which then is.
    pub(super) fn take(&self, bytes: usize) -> bool {
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
            taken.checked_add(bytes).filter(|sum| *sum <= BUDGET)
        });
        taken.is_ok()
    }

    pub(super) fn give_back(&self, bytes: usize) {
        let _always = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| Some(taken.saturating_sub(bytes)));
    }

    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}
