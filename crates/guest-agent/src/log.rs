//! Owns what the agent said lately: the last lines, for hosts that ask later, and the next ones for those that listen.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use cellule_protocol::v1::LogLine;
use tokio::sync::Notify;

/// Bytes that are kept, and what of them one line may have.
const MAX_KEPT: usize = 64 * 1024;
const MAX_LINE: usize = 4 * 1024;
/// What a line takes beside its text.
const OVERHEAD: usize = 64;

/// The agent's own; the console is nobody's either.
pub(crate) static LOG: Log = Log::new();

#[derive(Debug)]
pub(crate) struct Log {
    kept: Mutex<Kept>,
    news: Notify,
}

#[derive(Debug)]
struct Kept {
    lines: VecDeque<LogLine>,
    bytes: usize,
    /// How many lines came before the first one kept.
    dropped: u64,
}

/// One listener's place.
#[derive(Debug)]
pub(crate) struct Lines<'a> {
    log: &'a Log,
    next: u64,
}

impl Log {
    const fn new() -> Self {
        let kept = Kept { lines: VecDeque::new(), bytes: 0, dropped: 0 };
        Self { kept: Mutex::new(kept), news: Notify::const_new() }
    }

    /// Keeps a line, and tells those who listen.
    pub(crate) fn add(&self, text: &str) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let text: String = text.chars().take(MAX_LINE / 4).collect();
        let mut kept = self.lock();
        kept.bytes += text.len() + OVERHEAD;
        kept.lines.push_back(LogLine { time_ns: i64::try_from(now.as_nanos()).unwrap_or(0), text });
        while kept.bytes > MAX_KEPT {
            let Some(oldest) = kept.lines.pop_front() else { break };
            kept.bytes -= oldest.text.len() + OVERHEAD;
            kept.dropped += 1;
        }
        drop(kept);
        self.news.notify_waiters();
    }

    /// From the oldest line that is kept.
    pub(crate) fn lines(&self) -> Lines<'_> {
        Lines { log: self, next: 0 }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines<'_> {
    /// Waits for the next line. A listener that is too slow misses some.
    pub(crate) async fn next(&mut self) -> LogLine {
        loop {
            let news = self.log.news.notified();
            if let Some(line) = self.now() {
                return line;
            }
            news.await;
        }
    }

    fn now(&mut self) -> Option<LogLine> {
        let kept = self.log.lock();
        let at = self.next.max(kept.dropped);
        let line = kept.lines.get(usize::try_from(at - kept.dropped).ok()?)?.clone();
        self.next = at + 1;
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_gets_what_is_kept_and_then_each_line() {
        let log = Log::new();
        log.add("one");
        let mut lines = log.lines();
        log.add("two");
        assert_eq!([lines.now().unwrap().text, lines.now().unwrap().text], ["one", "two"]);
        assert!(lines.now().is_none());
        log.add("three");
        assert_eq!(lines.now().unwrap().text, "three");
    }

    #[test]
    fn what_is_kept_is_bounded_and_a_slow_listener_goes_on_at_the_oldest() {
        let log = Log::new();
        let mut lines = log.lines();
        for at in 0..10_000 {
            log.add(&format!("line {at}"));
        }
        log.add(&"x".repeat(1 << 20));
        let kept = log.lock().lines.len();
        assert!(log.lock().bytes <= MAX_KEPT && (100..1000).contains(&kept));
        assert_eq!(lines.now().unwrap().text, format!("line {}", 10_001 - kept));
    }
}
