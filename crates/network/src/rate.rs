//! Owns limits of rates: a bucket that fills with time and is emptied by what passes.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// How long a bucket of bytes takes to fill. What was not used longer ago is lost.
const BYTES_FULL_AFTER: f64 = 0.25;
/// The same of connections: a program that begins some at once has what it may have in a second.
const CONNECTIONS_FULL_AFTER: f64 = 1.0;

/// At most so much each second.
#[derive(Debug)]
pub(crate) struct Rate {
    /// `None`: there is no limit.
    per_second: Cell<Option<f64>>,
    full_after: f64,
    /// Less than nothing while somebody waits for what is to come.
    level: Cell<f64>,
    at: Cell<Instant>,
}

impl Rate {
    pub(crate) fn of_bytes(per_second: Option<u64>) -> Self {
        Self::new(per_second, BYTES_FULL_AFTER)
    }

    pub(crate) fn of_connections(per_second: Option<u64>) -> Self {
        Self::new(per_second, CONNECTIONS_FULL_AFTER)
    }

    fn new(per_second: Option<u64>, full_after: f64) -> Self {
        let (level, at) = (Cell::new(0.0), Cell::new(Instant::now()));
        let rate = Self { per_second: Cell::new(None), full_after, level, at };
        rate.set(per_second);
        rate
    }

    fn burst(&self, per_second: f64) -> f64 {
        (per_second * self.full_after).max(1.0)
    }

    /// Changes the limit.
    #[expect(clippy::cast_precision_loss, reason = "nobody's limit is that exact")]
    pub(crate) fn set(&self, per_second: Option<u64>) {
        // Nothing at all is not a rate: it is what a policy refuses.
        let limit = per_second.map(|limit| limit.max(1) as f64);
        self.level.set(limit.map_or(0.0, |limit| self.burst(limit)));
        self.per_second.set(limit);
    }

    /// How much may pass now.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is positive and bounded")]
    pub(crate) fn allows(&self) -> usize {
        let Some(per_second) = self.per_second.get() else { return usize::MAX };
        let now = Instant::now();
        let passed = now.duration_since(self.at.replace(now)).as_secs_f64();
        let level = (self.level.get() + passed * per_second).min(self.burst(per_second));
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

    /// After which time one more may pass, for who spends it now and waits. Who comes later waits for longer.
    pub(crate) fn delay(&self) -> Duration {
        let Some(per_second) = self.per_second.get() else { return Duration::ZERO };
        _ = self.allows();
        let missing = 1.0 - self.level.get();
        Duration::try_from_secs_f64(missing.max(0.0) / per_second).unwrap_or(Duration::MAX)
    }

    /// After which time a worthwhile amount may pass.
    pub(crate) fn wait(&self) -> Duration {
        let Some(per_second) = self.per_second.get() else { return Duration::ZERO };
        let missing = (self.burst(per_second) / 4.0).max(1.0) - self.level.get();
        Duration::from_secs_f64((missing / per_second).clamp(0.001, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_nothing_is_the_least_that_there_is() {
        let rate = Rate::of_bytes(Some(0));
        rate.spend(rate.allows());
        assert!(rate.wait() <= Duration::from_secs(1));
    }

    #[test]
    fn what_is_spent_is_not_there_until_time_has_passed() {
        let rate = Rate::of_bytes(Some(4000));
        assert_eq!(rate.allows(), 1000);
        rate.spend(1000);
        assert!(rate.allows() < 1000);
        std::thread::sleep(Duration::from_millis(50));
        let after = rate.allows();
        assert!(after >= 200, "{after}");
        rate.set(None);
        assert_eq!(rate.allows(), usize::MAX);
    }

    #[test]
    fn who_waits_has_a_turn_of_its_own() {
        let rate = Rate::of_connections(Some(10));
        assert_eq!(rate.allows(), 10);
        let delay = || {
            let delay = rate.delay();
            rate.spend(1);
            delay.as_secs_f64()
        };
        let delays: Vec<f64> = (0..30).map(|_| delay()).collect();
        assert!(delays[..10].iter().all(|delay| *delay == 0.0), "{delays:?}");
        // Time passes meanwhile, though not much.
        assert!((1.5..=2.0).contains(&delays[29]), "{delays:?}");
        assert!(delays[10..].windows(2).all(|two| two[1] > two[0]), "{delays:?}");
    }
}
