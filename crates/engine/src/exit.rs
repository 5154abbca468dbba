//! Why a machine ended, and how that is read from what was left of it.

use std::fmt;
use std::process::ExitStatus;

/// Why a machine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitReason {
    /// The guest switched itself off: the orderly end.
    PoweredOff,
    /// The guest asked for a reset, or its processor got stuck in a triple fault. A machine never boots twice.
    Reset,
    /// The guest's kernel panicked.
    GuestPanicked {
        /// What the kernel gave as the reason, without its prefix. The guest's word: one line, printable.
        message: String,
        /// Whether the guest's memory ran out, as far as its console tells.
        out_of_memory: bool,
    },
    /// [`crate::Machine::kill`] ended it.
    Killed,
    /// The engine's process died or gave up.
    EngineDied {
        /// Its exit code, or the signal that killed it.
        status: ExitStatus,
        /// The last of what it wrote to stderr; may be empty.
        stderr: String,
    },
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PoweredOff => f.write_str("the guest powered off"),
            Self::Reset => f.write_str("the guest reset itself"),
            Self::GuestPanicked { message, out_of_memory: false } => {
                write!(f, "the guest's kernel panicked: {message}")
            }
            Self::GuestPanicked { message, out_of_memory: true } => {
                write!(f, "the guest ran out of memory and its kernel panicked: {message}")
            }
            Self::Killed => f.write_str("it was killed"),
            Self::EngineDied { status, stderr } => {
                write!(f, "the engine's process ended ({status})")?;
                match stderr.trim() {
                    "" => Ok(()),
                    said => write!(f, "; it said: {said}"),
                }
            }
        }
    }
}

/// What the kernel puts before the reason of its panic.
const PANIC: &str = "Kernel panic - not syncing: ";
/// Longest reason that is passed on.
const PANIC_MAX: usize = 200;
/// What a console shows when memory was short: the OOM killer, an initramfs that didn't fit, and the two panics of
/// a kernel with nothing left to kill.
const OUT_OF_MEMORY: [&str; 4] = [
    "Out of memory: ",
    "deadlocked on memory",
    "Initramfs unpacking failed: write error",
    "page allocation failure",
];

/// Finds a kernel's panic in the last of its console.
///
/// A program in the guest may write the same to the console; so this is only asked about a guest that did reset
/// itself, which is what a panic leads to here.
pub(crate) fn panic_in(console: &[u8]) -> Option<ExitReason> {
    let text = String::from_utf8_lossy(console);
    let at = text.find(PANIC)?;
    let message = text[at + PANIC.len()..]
        .chars()
        .take_while(|c| !matches!(c, '\r' | '\n'))
        .filter(|c| !c.is_control())
        .take(PANIC_MAX)
        .collect();
    Some(ExitReason::GuestPanicked {
        message,
        out_of_memory: OUT_OF_MEMORY.iter().any(|sign| text.contains(sign)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_found_with_its_reason() {
        let console = b"[    1.2] ok\r\n[    1.3] Kernel panic - not syncing: Attempted to kill init!\x1b[0m exitcode=0x9\r\nCPU: 0\r\n";
        assert_eq!(
            panic_in(console),
            Some(ExitReason::GuestPanicked {
                message: "Attempted to kill init![0m exitcode=0x9".to_owned(),
                out_of_memory: false
            })
        );
    }

    #[test]
    fn memory_that_ran_out_is_told_from_other_panics() {
        let console = b"Kernel panic - not syncing: System is deadlocked on memory\r\n";
        let Some(ExitReason::GuestPanicked { out_of_memory, .. }) = panic_in(console) else {
            panic!("no panic")
        };
        assert!(out_of_memory);
    }

    #[test]
    fn a_console_without_a_panic_has_none() {
        assert_eq!(panic_in(b"all is well\n"), None);
        assert_eq!(panic_in(b""), None);
    }

    #[test]
    fn an_endless_reason_is_cut() {
        let console = format!("{PANIC}{}", "x".repeat(100_000));
        let Some(ExitReason::GuestPanicked { message, .. }) = panic_in(console.as_bytes()) else {
            panic!("no panic")
        };
        assert_eq!(message.len(), PANIC_MAX);
    }
}
