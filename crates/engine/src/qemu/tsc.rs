//! The frequency of this host's time stamp counter.
//!
//! Under TCG the guest's counter is the host's own, and QEMU's `microvm` machine has no second clock that a busy
//! host leaves accurate: the guest kernel's own calibration fails now and then, and the guest hangs for ever. So the
//! kernel is told the frequency. It must be the true one: whatever it is wrong by, the guest's time is wrong by.

use std::arch::x86_64::_rdtsc;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The two samples are at least this far apart: with samples good to 100 ns, that is 5 parts in a million.
const WINDOW: Duration = Duration::from_millis(20);
/// Samples further apart are not used: the host may have been suspended in between, which the counter and the
/// clock may see differently.
const WINDOW_MAX: Duration = Duration::from_secs(10);
/// How often a sample is taken to find one that wasn't interrupted.
const TRIES: usize = 64;

/// A reading of the counter and of the clock at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    ticks: u64,
    clock: Duration,
}

impl Sample {
    /// Reads both now. Between its two readings of the clock the counter was read; of many such brackets the
    /// tightest is taken, so that one in which this thread was preempted doesn't count.
    pub(super) fn now() -> Self {
        let bracket = || {
            let before = raw_clock();
            let ticks = ticks();
            let width = raw_clock().saturating_sub(before);
            (width, Self { ticks, clock: before + width / 2 })
        };
        let mut best = bracket();
        for _ in 1..TRIES {
            let next = bracket();
            if next.0 < best.0 {
                best = next;
            }
        }
        best.1
    }

    /// The frequency in kHz, from this sample to a later one.
    fn khz_until(self, later: Self) -> Option<u64> {
        let nanoseconds = later.clock.checked_sub(self.clock)?.as_nanos();
        let ticks = u128::from(later.ticks.checked_sub(self.ticks)?);
        u64::try_from((ticks * 1_000_000 + nanoseconds / 2).checked_div(nanoseconds)?).ok()
    }
}

/// The frequency in kHz, measured once in each process. `since` is a sample from earlier; the rest of the time that
/// is needed between two samples is slept.
pub(super) async fn khz(since: Sample) -> u64 {
    static KHZ: OnceLock<u64> = OnceLock::new();
    if let Some(known) = KHZ.get() {
        return *known;
    }
    let mut first = since;
    loop {
        let passed = raw_clock().saturating_sub(first.clock);
        if passed > WINDOW_MAX {
            first = Sample::now();
            continue;
        }
        if passed < WINDOW {
            tokio::time::sleep(WINDOW.saturating_sub(passed)).await;
        }
        // A counter that stood still or ran backwards was reset by a suspend in between: once more.
        match first.khz_until(Sample::now()) {
            Some(khz) if khz > 0 => return *KHZ.get_or_init(|| khz),
            _ => first = Sample::now(),
        }
    }
}

fn raw_clock() -> Duration {
    let now = clock_gettime(ClockId::MonotonicRaw);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

fn ticks() -> u64 {
    // SAFETY: reading the counter has no precondition on x86-64, and Linux does not forbid it to programs.
    unsafe { _rdtsc() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(ticks: u64, clock: Duration) -> Sample {
        Sample { ticks, clock }
    }

    #[test]
    fn the_frequency_is_ticks_by_time() {
        let first = sample(1_000, Duration::from_secs(5));
        let later = sample(1_000 + 52_000_000, Duration::from_millis(5_020));
        assert_eq!(first.khz_until(later), Some(2_600_000));
    }

    #[test]
    fn a_counter_that_was_reset_gives_none() {
        let first = sample(9_000, Duration::from_secs(5));
        assert_eq!(first.khz_until(sample(100, Duration::from_secs(6))), None);
        assert_eq!(first.khz_until(sample(10_000, Duration::from_secs(5))), None);
        assert_eq!(first.khz_until(sample(10_000, Duration::from_secs(4))), None);
    }

    #[test]
    fn two_measurements_of_this_host_agree() {
        let first = Sample::now();
        std::thread::sleep(WINDOW);
        let second = Sample::now();
        std::thread::sleep(WINDOW);
        let (a, b) = (first.khz_until(second), second.khz_until(Sample::now()));
        let (a, b) = (a.expect("a running counter"), b.expect("a running counter"));
        assert!(a.abs_diff(b) * 1_000 < a, "{a} kHz and {b} kHz");
    }
}
