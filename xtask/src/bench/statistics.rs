//! Percentiles of samples, and how a figure stands beside its floor.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// What half, 95 and 99 of 100 samples do not exceed, and the largest, in milliseconds or MB/s.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) p50: f64,
    pub(crate) p95: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Percentiles {
    /// Of times, in milliseconds.
    pub(crate) fn of(times: &[Duration]) -> Self {
        Self::of_values(times.iter().map(|time| time.as_secs_f64() * 1e3).collect())
    }

    /// Of anything.
    pub(crate) fn of_values(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        // The smallest value that so many percent of all do not exceed.
        let rank = |percent: usize| {
            let at = (values.len() * percent).div_ceil(100).saturating_sub(1);
            values.get(at).copied().unwrap_or(f64::NAN)
        };
        Self { p50: rank(50), p95: rank(95), p99: rank(99), max: rank(100) }
    }

    /// For people.
    pub(crate) fn in_ms(&self) -> String {
        format!(
            "p50 {:.0} ms, p95 {:.0} ms, p99 {:.0} ms, max {:.0} ms",
            self.p50, self.p95, self.p99, self.max
        )
    }
}

/// One thing that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    name: String,
    unit: &'static str,
    samples: usize,
    measured: Percentiles,
    floor: Option<FloorFigure>,
}

#[derive(Debug, Serialize)]
struct FloorFigure {
    name: String,
    measured: Percentiles,
    /// The medians' ratio, ours to the floor's.
    ratio: f64,
}

impl Figure {
    /// A figure of times.
    pub(crate) fn time(name: &str, times: &[Duration], floor: Option<(&str, &[Duration])>) -> Self {
        let measured = Percentiles::of(times);
        let floor = floor.map(|(name, times)| (name, Percentiles::of(times)));
        Self::new(name, "ms", times.len(), measured, floor)
    }

    /// A figure of rates in MB/s.
    pub(crate) fn rate(name: &str, rates: &[f64], floor: Option<(&str, &[f64])>) -> Self {
        let measured = Percentiles::of_values(rates.to_vec());
        let floor = floor.map(|(name, rates)| (name, Percentiles::of_values(rates.to_vec())));
        Self::new(name, "MB/s", rates.len(), measured, floor)
    }

    fn new(
        name: &str,
        unit: &'static str,
        samples: usize,
        measured: Percentiles,
        floor: Option<(&str, Percentiles)>,
    ) -> Self {
        let floor = floor.map(|(name, floor)| FloorFigure {
            name: name.to_owned(),
            measured: floor,
            ratio: measured.p50 / floor.p50,
        });
        Self { name: name.to_owned(), unit, samples, measured, floor }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |f: &mut fmt::Formatter<'_>, name: &str, p: &Percentiles| {
            write!(f, "{name:<40} p50 {:>8.1}  p95 {:>8.1}  p99 {:>8.1} {}", p.p50, p.p95, p.p99, self.unit)
        };
        row(f, &self.name, &self.measured)?;
        if let Some(floor) = &self.floor {
            writeln!(f, "  ratio {:.2}", floor.ratio)?;
            row(f, &format!("  floor: {}", floor.name), &floor.measured)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples_that_were_taken() {
        let times: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        let Percentiles { p50, p95, p99, max } = Percentiles::of(&times);
        assert_eq!([p50, p95, p99, max].map(|ms| format!("{ms:.0}")), ["50", "95", "99", "100"]);
        assert!((Percentiles::of(&times[..1]).p99 - 1.0).abs() < 1e-9);
    }
}
