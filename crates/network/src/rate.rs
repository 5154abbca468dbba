//! Owns limits of rates: a bucket that fills with time and is emptied by what passes.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// How long a bucket takes to fill. What was not used longer ago is lost.
const FULL_AFTER: f64 = 0.25;

/// At most so much each second.
#[derive(Debug)]
pub(crate) struct Rate {
    /// `None`: there is no limit.
    per_second: Cell<Option<f64>>,
    level: Cell<f64>,
    at: Cell<Instant>,
}

impl Rate {
    pub(crate) fn new(per_second: Option<u64>) -> Self {
        let rate = Self { per_second: Cell::new(None), level: Cell::new(0.0), at: Cell::new(Instant::now()) };
        rate.set(per_second);
        rate
    }

    /// Changes the limit.
    #[expect(clippy::cast_precision_loss, reason = "nobody's limit is that exact")]
    pub(crate) fn set(&self, per_second: Option<u64>) {
        // Nothing at all is not a rate: it is what a policy refuses.
        let limit = per_second.map(|limit| limit.max(1) as f64);
        self.level.set(limit.map_or(0.0, burst));
        self.per_second.set(limit);
    }

    /// How much may pass now.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is positive and bounded")]
    pub(crate) fn allows(&self) -> usize {
        let Some(per_second) = self.per_second.get() else { return usize::MAX };
        let now = Instant::now();
        let passed = now.duration_since(self.at.replace(now)).as_secs_f64();
        let level = (self.level.get() + passed * per_second).min(burst(per_second));
        self.level.set(level);
        level.max(0.0) as usize
    }

    /// So much has passed.
    #[expect(clippy::cast_precision_loss, reason = "nobody's limit is that exact")]
    pub(crate) fn spend(&self, amount: usize) {
        if self.per_second.get().is_some() {
            self.level.set(self.level.get() - amount as f64);
        }
    }

    /// After which time a worthwhile amount may pass.
    pub(crate) fn wait(&self) -> Duration {
        let Some(per_second) = self.per_second.get() else { return Duration::ZERO };
        let missing = (burst(per_second) / 4.0).max(1.0) - self.level.get();
        Duration::from_secs_f64((missing / per_second).clamp(0.001, 1.0))
    }
}

fn burst(per_second: f64) -> f64 {
    (per_second * FULL_AFTER).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_nothing_is_the_least_that_there_is() {
        let rate = Rate::new(Some(0));
        rate.spend(rate.allows());
        assert!(rate.wait() <= Duration::from_secs(1));
    }

    #[test]
    fn what_is_spent_is_not_there_until_time_has_passed() {
        let rate = Rate::new(Some(4000));
        assert_eq!(rate.allows(), 1000);
        rate.spend(1000);
        assert!(rate.allows() < 1000);
        std::thread::sleep(Duration::from_millis(50));
        let after = rate.allows();
        assert!(after >= 200, "{after}");
        rate.set(None);
        assert_eq!(rate.allows(), usize::MAX);
    }
}
