//! Amounts as people write them: memory, durations, and how sizes are shown.

use std::time::Duration;

/// A size in bytes by Docker's rule: a number with an optional unit `b`, `k`, `m`, `g`, `t`, each 1024 times the former.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let size = parse_size::Config::new().with_binary().parse_size(text);
    size.map_err(|error| format!("{error}; write a size such as 512m or 2g"))
}

/// A time such as `10s`, `1m30s` or `2h`. A number alone is seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => humantime::parse_duration(text)
            .map_err(|error| format!("{error}; write a time such as 10s or 5m"))?,
    };
    if duration.is_zero() { Err("it must be longer than nothing".to_owned()) } else { Ok(duration) }
}

/// A size for people: `1.5 MB`, in powers of 1000 as Docker shows them.
pub(crate) fn show_size(bytes: u64) -> String {
    indicatif::DecimalBytes(bytes).to_string()
}

/// A time for people, in the unit that suits it.
pub(crate) fn show_duration(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        seconds if seconds < 120.0 => format!("{seconds:.2} s"),
        seconds => format!("{:.0} min", seconds / 60.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_dockers() {
        for (text, size) in
            [("512m", 512 << 20), ("1g", 1 << 30), ("2048", 2048), ("64k", 64 << 10), ("1G", 1 << 30)]
        {
            assert_eq!(parse_size(text), Ok(size), "{text}");
        }
        for text in ["", "m", "12q", "-5m", "99999999999g"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_number_alone_is_seconds() {
        assert_eq!(parse_duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        for text in ["0", "0s", "", "-1", "soon"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
