//! One line of a log: written and read.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What of a line's content is in one piece at most.
pub(super) const PIECE: usize = 16 << 10;
/// `2026-01-31T12:00:00.000000000Z`: always this long, so that times compare as texts do.
pub(super) const TIME: usize = 30;
/// A time, a stream, a flag and the spaces behind them.
const HEAD: usize = TIME + 10;
/// The longest line, its end included.
pub(super) const LINE: usize = HEAD + PIECE + 1;

/// A time as lines have it.
pub(super) fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_nanos(time).to_string()
}

/// A time of nanoseconds since 1970, as lines have it.
pub(super) fn time_of(ns: i64) -> String {
    time(UNIX_EPOCH + Duration::from_nanos(u64::try_from(ns).unwrap_or(0)))
}

/// Adds a line.
pub(super) fn write(to: &mut Vec<u8>, time: &str, stderr: bool, partial: bool, bytes: &[u8]) {
    to.extend_from_slice(time.as_bytes());
    to.extend_from_slice(if stderr { b" stderr " } else { b" stdout " });
    to.extend_from_slice(if partial { b"P " } else { b"F " });
    to.extend_from_slice(bytes);
    to.push(b'\n');
}

/// A line taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    pub(super) time: &'a str,
    pub(super) stderr: bool,
    pub(super) partial: bool,
    pub(super) bytes: &'a [u8],
}

/// Takes a line apart, its end left out; `None` if it is none.
pub(super) fn read(line: &[u8]) -> Option<Line<'_>> {
    let (time, rest) = line.split_at_checked(TIME)?;
    let time = std::str::from_utf8(time).ok().filter(|time| time.ends_with('Z') && time.is_ascii())?;
    let (stderr, rest) = match rest.split_at_checked(8)? {
        (b" stdout ", rest) => (false, rest),
        (b" stderr ", rest) => (true, rest),
        _ => return None,
    };
    let (partial, bytes) = match rest.split_at_checked(2)? {
        (b"P ", bytes) => (true, bytes),
        (b"F ", bytes) => (false, bytes),
        _ => return None,
    };
    Some(Line { time, stderr, partial, bytes })
}

/// The nanoseconds since 1970 of a line's time; `None` if it is none.
pub(super) fn nanoseconds(time: &str) -> Option<i64> {
    let time = humantime::parse_rfc3339(time).ok()?;
    i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_nanos()).ok()
}
