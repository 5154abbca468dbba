//! Owns how seldom the kernel wakes by itself: an idle guest's processor is emulated too, and each wake-up costs the host
//! about a millisecond.

use std::fs;
use std::io;

use crate::fault::{Context, Fault};

/// What runs by the clock and that nobody in a guest of this size waits for.
const SETTINGS: [(&str, &str); 2] = [
    // Looks twice a second whether large pages are worth making room for.
    ("vm/compaction_proactiveness", "0"),
    // Seconds between the sums of per-processor counters: /proc/vmstat is that old at most.
    ("vm/stat_interval", "60"),
];

/// Lets the kernel rest. Needs /proc.
pub(super) fn set() -> Result<(), Fault> {
    for (name, value) in SETTINGS {
        match fs::write(format!("/proc/sys/{name}"), value) {
            // Another kernel may not have it, nor then do it.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).context(format_args!("set {name}"));
            }
            _ => {}
        }
    }
    Ok(())
}
