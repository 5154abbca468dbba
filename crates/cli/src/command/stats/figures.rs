//! What two looks at a sandbox say of the time between them.

use std::time::Instant;

use cellule::{Entry, State, Stats};
use serde::Serialize;

use crate::listing::Row;
use crate::quantity::show_size;

/// What stands for a figure that nobody knows.
const UNKNOWN: &str = "--";

/// One look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) stats: Stats,
}

/// What a sandbox uses.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Figures {
    /// Of one processor of the guest, by the guest's own clock. None without an earlier look.
    pub(super) cpu_percent: Option<f64>,
    pub(super) memory_percent: f64,
    /// Of one processor of the host.
    pub(super) host_cpu_percent: Option<f64>,
    #[serde(flatten)]
    pub(super) stats: Stats,
}

/// One sandbox in a listing.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    id: String,
    name: Option<String>,
    state: String,
    #[serde(flatten)]
    figures: Option<Figures>,
}

impl Figures {
    /// What is known from this look and the one before.
    pub(super) fn between(before: Option<Sample>, now: Sample) -> Self {
        // A machine that was started again counts from nothing.
        let before = before.filter(|before| before.stats.uptime_us < now.stats.uptime_us);
        let cpu = before.and_then(|before| {
            share(
                now.stats.guest_cpu_us.checked_sub(before.stats.guest_cpu_us)?,
                now.stats.uptime_us - before.stats.uptime_us,
            )
        });
        let host_cpu = before.and_then(|before| {
            let past = now.at.saturating_duration_since(before.at).as_micros();
            share(now.stats.host_cpu_us.checked_sub(before.stats.host_cpu_us)?, u64::try_from(past).ok()?)
        });
        let stats = now.stats;
        let memory = share(stats.guest_memory_bytes, stats.guest_memory_limit_bytes).unwrap_or(0.0);
        Self { cpu_percent: cpu, memory_percent: memory, host_cpu_percent: host_cpu, stats }
    }
}

/// A part of a whole in percent, to two digits; none of nothing.
fn share(part: u64, whole: u64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
    let percent = part as f64 * 100.0 / whole as f64;
    percent.is_finite().then(|| (percent * 100.0).round() / 100.0)
}

impl Line {
    pub(super) fn of(entry: &Entry, figures: Option<Figures>) -> Self {
        Self {
            id: entry.spec.id.to_string(),
            name: entry.name.as_ref().map(ToString::to_string),
            state: entry.record.state.to_string(),
            figures,
        }
    }
}

impl Row<9> for Line {
    const HEADER: [&'static str; 9] = [
        "SANDBOX ID",
        "NAME",
        "CPU %",
        "MEM USAGE / LIMIT",
        "MEM %",
        "HOST CPU",
        "HOST MEM",
        "DISK I/O",
        "PIDS",
    ];

    fn id(&self) -> String {
        self.id.clone()
    }

    fn lines(&self, _full: bool) -> Vec<[String; 9]> {
        let name = self.name.clone().unwrap_or_else(|| UNKNOWN.to_owned());
        let unknown = || UNKNOWN.to_owned();
        let Some(figures) = &self.figures else {
            // What keeps the figures away is worth more than another dash.
            let why = if self.state == State::Running.to_string() {
                unknown()
            } else {
                format!("({})", self.state)
            };
            let mut cells = std::array::from_fn(|_| unknown());
            [cells[0], cells[1], cells[2]] = [self.id.clone(), name, why];
            return vec![cells];
        };
        let Stats { guest_memory_bytes, guest_memory_limit_bytes, .. } = figures.stats;
        let percent = |share: Option<f64>| share.map_or_else(unknown, |share| format!("{share:.2}%"));
        vec![[
            self.id.clone(),
            name,
            percent(figures.cpu_percent),
            format!("{} / {}", show_size(guest_memory_bytes), show_size(guest_memory_limit_bytes)),
            percent(Some(figures.memory_percent)),
            percent(figures.host_cpu_percent),
            show_size(figures.stats.host_memory_bytes),
            format!(
                "{} / {}",
                show_size(figures.stats.disk_read_bytes),
                show_size(figures.stats.disk_written_bytes)
            ),
            figures.stats.processes.to_string(),
        ]]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn sample(at: Instant, uptime_us: u64, guest_cpu_us: u64, host_cpu_us: u64) -> Sample {
        let stats = Stats {
            uptime_us,
            guest_cpu_us,
            host_cpu_us,
            guest_memory_bytes: 50_000_000,
            guest_memory_limit_bytes: 400_000_000,
            host_memory_bytes: 90_000_000,
            disk_read_bytes: 1_500_000,
            processes: 3,
            ..Stats::default()
        };
        Sample { at, stats }
    }

    fn line(state: &str, figures: Option<Figures>) -> Line {
        Line { id: "0123456789ab".to_owned(), name: None, state: state.to_owned(), figures }
    }

    #[test]
    fn shares_are_of_the_time_that_each_clock_counted() {
        let begun = Instant::now();
        let before = sample(begun, 10_000_000, 1_000_000, 5_000_000);
        // The guest's clock ran slower than the host's.
        let now = sample(begun + Duration::from_secs(2), 11_000_000, 1_250_000, 6_500_000);
        let figures = Figures::between(Some(before), now);
        assert_eq!((figures.cpu_percent, figures.host_cpu_percent), (Some(25.0), Some(75.0)));
        assert!((figures.memory_percent - 12.5).abs() < 1e-9);
        let first = Figures::between(None, now);
        assert_eq!((first.cpu_percent, first.host_cpu_percent), (None, None));
    }

    #[test]
    fn a_machine_that_was_started_again_or_counts_backwards_has_no_share() {
        let begun = Instant::now();
        let before = sample(begun, 10_000_000, 9_000_000, 5_000_000);
        let restarted = sample(begun + Duration::from_secs(1), 500_000, 100_000, 400_000);
        assert_eq!(Figures::between(Some(before), restarted).cpu_percent, None);
        let lying = sample(begun, 11_000_000, 1, 1);
        let figures = Figures::between(Some(before), lying);
        assert_eq!((figures.cpu_percent, figures.host_cpu_percent), (None, None));
        let empty = Sample { at: begun, stats: Stats::default() };
        assert!(Figures::between(None, empty).memory_percent.abs() < 1e-9);
    }

    #[test]
    fn a_line_has_the_figures_or_says_why_not() {
        let begun = Instant::now();
        let before = sample(begun, 10_000_000, 1_000_000, 5_000_000);
        let now = sample(begun + Duration::from_secs(1), 11_000_000, 1_012_300, 5_100_000);
        let cells = line("running", Some(Figures::between(Some(before), now))).lines(false).remove(0);
        assert_eq!(
            cells[2..].iter().map(String::as_str).collect::<Vec<_>>(),
            ["1.23%", "50.00 MB / 400.00 MB", "12.50%", "10.00%", "90.00 MB", "1.50 MB / 0 B", "3"]
        );
        assert_eq!(line("paused", None).lines(false)[0][1..4], ["--", "(paused)", "--"]);
        assert_eq!(line("running", None).lines(false)[0][2], "--");
    }

    #[test]
    fn programs_get_numbers_and_nothing_where_nobody_knows() {
        let now = sample(Instant::now(), 1, 0, 0);
        let json = serde_json::to_value(line("running", Some(Figures::between(None, now)))).unwrap();
        assert_eq!((&json["cpu_percent"], &json["processes"]), (&serde_json::Value::Null, &3.into()));
        assert!(serde_json::to_value(line("paused", None)).unwrap().get("processes").is_none());
    }
}
