//! Owns the machine's end.

use std::time::Duration;

use rustix::process::Signal;
use rustix::system::{RebootCommand, reboot};

use crate::reaper::{Reaper, has_children};

/// How long SIGKILL may take to work; a process in an uninterruptible sleep must not keep the power on.
const KILL_WITHIN: Duration = Duration::from_secs(2);

/// Ends all processes, politely for as long as `grace`, and then the machine.
pub(crate) async fn shut_down(reaper: &Reaper, grace: Duration) -> ! {
    for (signal, limit) in [(Signal::TERM, grace), (Signal::KILL, KILL_WITHIN)] {
        if limit.is_zero() && signal == Signal::TERM {
            continue;
        }
        // SAFETY: the call has no memory to spoil; -1 is every process but this one.
        unsafe { libc::kill(-1, signal.as_raw()) };
        let all_gone = async {
            while has_children() {
                // A death between the look and the wait is seen at the next look.
                let _again = tokio::time::timeout(Duration::from_millis(20), reaper.reaped.notified()).await;
            }
        };
        if tokio::time::timeout(limit, all_gone).await.is_ok() {
            break;
        }
    }
    power_off()
}

/// Writes what is dirty and turns the power off.
pub fn power_off() -> ! {
    rustix::fs::sync();
    let _no_power_switch = reboot(RebootCommand::PowerOff);
    // A machine without a power switch ends by starting again, which its engine takes for an end.
    let _nor_that = reboot(RebootCommand::Restart);
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}
