//! Moments as people write and read them. Inside they are nanoseconds since 1970, as everywhere in the state directory.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SECOND: i64 = 1_000_000_000;

/// Now.
pub(crate) fn now() -> i64 {
    of(SystemTime::now())
}

/// What the clock says, in nanoseconds. What is before 1970 or after 2262 is the nearest of both.
pub(crate) fn of(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Reads a moment: by RFC 3339, as seconds since 1970, or as a duration before now.
///
/// # Errors
/// It is none of these; says what would be.
pub(crate) fn parse(text: &str) -> Result<i64, String> {
    parse_at(text, now())
}

fn parse_at(text: &str, now: i64) -> Result<i64, String> {
    let parsed = if text.contains(['T', '-', ':']) {
        rfc3339(text)
    } else if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        unix_seconds(text)
    } else {
        humantime::parse_duration(text)
            .ok()
            .and_then(|ago| now.checked_sub(i64::try_from(ago.as_nanos()).ok()?))
            .map(|time| time.max(0))
    };
    parsed.ok_or_else(|| {
        "write it as 2024-05-01T12:00:00Z, as seconds since 1970, or as a time ago such as 10m".to_owned()
    })
}

/// A date alone, or with a time, and without an offset is UTC.
fn rfc3339(text: &str) -> Option<i64> {
    let date = text.get(..10)?;
    let time = text.get(11..).unwrap_or_default();
    let (time, offset) = match time.find(['Z', 'z', '+', '-']) {
        Some(at) => (&time[..at], offset(&time[at..])?),
        None => (time, 0),
    };
    let time = match time.matches(':').count() {
        0 if text.len() == date.len() => "00:00:00".to_owned(),
        1 => format!("{time}:00"),
        _ => time.to_owned(),
    };
    if text.len() > date.len() && !text[date.len()..].starts_with(['T', 't', ' ']) {
        return None;
    }
    let utc = humantime::parse_rfc3339(&format!("{date}T{time}Z")).ok()?;
    of(utc).checked_sub(offset)
}

/// `Z`, or hours and minutes such as `+02:00`, in nanoseconds.
fn offset(text: &str) -> Option<i64> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'Z' | b'z' if text.len() == 1 => return Some(0),
        b'+' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => return None,
    };
    let (hours, minutes) = digits.split_once(':')?;
    let number = |text: &str, below: i64| {
        let number = (text.len() == 2).then(|| text.parse::<u8>().ok()).flatten().map(i64::from)?;
        (number < below).then_some(number)
    };
    Some(sign * (number(hours, 24)? * 60 + number(minutes, 60)?) * 60 * SECOND)
}

fn unix_seconds(text: &str) -> Option<i64> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds: i64 = digits.parse().ok()?;
    seconds.parse::<i64>().ok()?.checked_mul(SECOND)?.checked_add(nanoseconds)
}

/// How long it is until then.
pub(crate) fn left(until: i64) -> Duration {
    Duration::from_nanos(u64::try_from(until.saturating_sub(now())).unwrap_or(0))
}

/// By RFC 3339, in UTC, with nanoseconds.
pub(crate) fn show(time_ns: i64) -> String {
    // What is read from a file may be any number, and the formatter takes none before 1970.
    let since = Duration::from_nanos(u64::try_from(time_ns).unwrap_or(0));
    humantime::format_rfc3339_nanos(UNIX_EPOCH + since).to_string()
}

/// How long ago that was, in Docker's words: `5 minutes`, `About an hour`.
pub(crate) fn since(time_ns: i64, now: i64) -> String {
    let past = Duration::from_nanos(u64::try_from(now.saturating_sub(time_ns)).unwrap_or(0));
    about(past)
}

fn about(past: Duration) -> String {
    let seconds = past.as_secs();
    let minutes = seconds / 60;
    let hours = (past.as_secs() + 1800) / 3600;
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours < 2 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_714_564_800 * SECOND;

    #[test]
    fn each_way_to_write_a_moment_is_read() {
        for (text, seconds) in [
            ("2024-05-01T12:00:00Z", 0),
            ("2024-05-01T12:00:00", 0),
            ("2024-05-01T12:00", 0),
            ("2024-05-01 12:00:05", 5),
            ("2024-05-01T14:30:00+02:30", 0),
            ("2024-05-01T10:00:00-02:00", 0),
            ("2024-05-01", -43_200),
            ("1714564800", 0),
            ("10m", -600),
            ("1h30m", -5400),
            ("0s", 0),
        ] {
            assert_eq!(parse_at(text, NOW), Ok(NOW + seconds * SECOND), "{text}");
        }
        assert_eq!(parse_at("2024-05-01T12:00:00.25Z", NOW), Ok(NOW + SECOND / 4));
        assert_eq!(parse_at("1714564800.000000001", NOW), Ok(NOW + 1));
        assert_eq!(parse_at("100years", NOW), Ok(0));
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in [
            "",
            "soon",
            "2024-13-01",
            "2024-05-01T12:00:00+2",
            "2024-05-01T12:00:00+25:00",
            "2024-05-01X12:00:00",
            "2024-05-01T",
            "é024-05-01",
            "1.2.3",
            "99999999999999999999",
            "-5",
            "2024-05-01Zz",
            "2024-05-01T12é00",
            ".",
        ] {
            assert!(parse_at(text, NOW).is_err(), "{text}");
        }
    }

    #[test]
    fn any_number_can_be_shown() {
        assert_eq!(show(NOW + 1), "2024-05-01T12:00:00.000000001Z");
        assert_eq!(show(-1), "1970-01-01T00:00:00.000000000Z");
        assert!(show(i64::MAX).starts_with("2262-"));
    }

    #[test]
    fn a_time_that_is_over_leaves_nothing() {
        assert_eq!(left(0), Duration::ZERO);
        assert!(left(now() + 10 * SECOND) > Duration::from_secs(5));
    }

    #[test]
    fn what_is_past_is_told_in_dockers_words() {
        const HOUR: u64 = 3600;
        for (seconds, words) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (300, "5 minutes"),
            (HOUR, "About an hour"),
            (HOUR + HOUR / 2, "2 hours"),
            (47 * HOUR, "47 hours"),
            (72 * HOUR, "3 days"),
            (24 * 21 * HOUR, "3 weeks"),
            (24 * 90 * HOUR, "3 months"),
            (24 * 800 * HOUR, "2 years"),
        ] {
            assert_eq!(about(Duration::from_secs(seconds)), words, "{seconds}");
        }
        // A clock that was set back.
        assert_eq!(since(NOW, NOW - SECOND), "Less than a second");
    }
}
