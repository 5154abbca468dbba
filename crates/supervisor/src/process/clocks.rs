//! The clocks of a sandbox: the limit of the step that it is at, the end of its time, how long nobody used it.

use std::time::Duration;

use tokio::time::Instant;

use crate::record::now_ns;
use crate::spec::SandboxSpec;

/// A wall clock may be set, and stands still for nobody while the host sleeps: it is looked at this often.
const LOOK: Duration = Duration::from_secs(30);
/// The shortest time between two questions whether a sandbox is idle.
const BREATH: Duration = Duration::from_millis(100);
/// How often to ask a guest in which something runs.
const GLANCE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Clocks {
    deadline: Option<Instant>,
    expires_ns: Option<i64>,
    idle_after: Option<Duration>,
    /// Whether the guest is just being asked.
    looking: bool,
    /// Whether something ran in it when it was asked last.
    busy: bool,
}

impl Clocks {
    pub(super) fn new(spec: &SandboxSpec) -> Self {
        Self {
            deadline: None,
            expires_ns: spec.expires_ns,
            idle_after: spec.idle.map(|rule| Duration::from_millis(rule.after_ms)),
            looking: false,
            busy: false,
        }
    }

    /// Sets the deadline, whatever it was.
    pub(super) fn set(&mut self, within: Duration) {
        self.deadline = Instant::now().checked_add(within);
    }

    /// Brings the deadline nearer.
    pub(super) fn shorten(&mut self, within: Duration) {
        let sooner = Instant::now().checked_add(within);
        self.deadline = match (self.deadline, sooner) {
            (Some(now), Some(sooner)) => Some(now.min(sooner)),
            (now, sooner) => now.or(sooner),
        };
    }

    /// Waits for the deadline. It stays one until it is [passed](Self::passed).
    pub(super) async fn deadline(&self) {
        match self.deadline {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    }

    /// The deadline was taken note of.
    pub(super) fn passed(&mut self) {
        self.deadline = None;
    }

    /// Waits until the sandbox's time is over. It is so until it is [expired](Self::expired).
    pub(super) async fn expiry(&self) {
        let Some(expires) = self.expires_ns else { return std::future::pending().await };
        loop {
            let left = Duration::from_nanos(u64::try_from(expires.saturating_sub(now_ns())).unwrap_or(0));
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(LOOK)).await;
        }
    }

    /// The end of its time was taken note of.
    pub(super) fn expired(&mut self) {
        self.expires_ns = None;
    }

    /// The guest is being asked.
    pub(super) fn look(&mut self) {
        self.looking = true;
    }

    /// The guest has answered.
    pub(super) fn looked(&mut self, busy: bool) {
        (self.looking, self.busy) = (false, busy);
    }

    /// In which time to look whether the sandbox is idle, if at all.
    pub(super) fn look_in(&self, watched: bool, idle_for: Duration) -> Option<Duration> {
        let after = self.idle_after.filter(|_| watched && !self.looking)?;
        let left = after.saturating_sub(idle_for).max(BREATH);
        // When that ends which only the guest knows of, only looking tells.
        Some(if self.busy { left.min(GLANCE) } else { left })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clocks(expires_ns: Option<i64>, idle_after: Option<Duration>) -> Clocks {
        Clocks { deadline: None, expires_ns, idle_after, looking: false, busy: false }
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_comes_once_and_is_only_ever_brought_nearer() {
        let mut clocks = clocks(None, None);
        let begun = Instant::now();
        clocks.set(Duration::from_secs(10));
        clocks.shorten(Duration::from_secs(20));
        clocks.deadline().await;
        assert_eq!(begun.elapsed().as_secs(), 10);
        clocks.set(Duration::from_secs(10));
        clocks.shorten(Duration::from_secs(1));
        clocks.deadline().await;
        assert_eq!(begun.elapsed().as_secs(), 11);
        clocks.passed();
        assert!(tokio::time::timeout(Duration::from_secs(60), clocks.deadline()).await.is_err());
    }

    #[tokio::test]
    async fn time_that_is_over_is_over_at_once_and_once() {
        let mut clocks = clocks(Some(now_ns() - 1), None);
        tokio::time::timeout(Duration::from_secs(20), clocks.expiry()).await.unwrap();
        clocks.expired();
        assert!(tokio::time::timeout(Duration::from_millis(20), clocks.expiry()).await.is_err());
    }

    #[test]
    fn only_a_sandbox_that_is_watched_is_looked_at() {
        let minute = Duration::from_secs(60);
        let mut clocks = clocks(None, Some(minute));
        assert_eq!(clocks.look_in(false, minute), None);
        assert_eq!(clocks.look_in(true, Duration::ZERO), Some(minute));
        assert_eq!(clocks.look_in(true, 2 * minute), Some(BREATH));
        clocks.look();
        assert_eq!(clocks.look_in(true, minute), None);
        clocks.looked(true);
        assert_eq!(clocks.look_in(true, Duration::ZERO), Some(GLANCE));
    }
}
