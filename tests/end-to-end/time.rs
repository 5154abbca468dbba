//! Time in the guest is the host's, also while the host is busy.

use std::io::{BufRead as _, BufReader};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use cellule_tests::Home;

struct Load(Arc<AtomicBool>);

impl Load {
    /// Keeps both cores busy until it is dropped.
    fn start() -> Self {
        let go_on = Arc::new(AtomicBool::new(true));
        for _ in 0..2 {
            let go_on = Arc::clone(&go_on);
            std::thread::spawn(move || {
                while go_on.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Self(go_on)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// What the guest's clocks say, and when the host learned it.
struct Reading {
    uptime: f64,
    uptime_seen: Instant,
    date: f64,
    date_seen: f64,
}

/// Runs a guest that sleeps between two readings of its clocks, and compares what passed with the host's own time.
/// `late`, in seconds: how much later one line may reach us than another.
fn check(sleep: u32, late: f64) {
    let home = Home::new();
    let script = format!("cat /proc/uptime; date +%s; sleep {sleep}; cat /proc/uptime; date +%s");
    let mut child = home.run(["--quiet", "base", "sh", "-c", &script]).start_raw();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    let mut read = || {
        let uptime = lines.next().unwrap();
        let uptime_seen = Instant::now();
        let uptime = uptime.split(' ').next().unwrap().parse().unwrap();
        let date = lines.next().unwrap().parse().unwrap();
        Reading { uptime, uptime_seen, date, date_seen: now() }
    };
    let (first, second) = (read(), read());
    assert!(child.wait().unwrap().success());
    let guest = second.uptime - first.uptime;
    let host = (second.uptime_seen - first.uptime_seen).as_secs_f64();
    // /proc/uptime counts in hundredths.
    let asked = f64::from(sleep);
    assert!((asked - 0.02..asked + 5.0).contains(&guest), "a sleep of {asked} s took {guest} s");
    assert!((guest - host).abs() <= host * 0.01 + late, "{guest} s in the guest were {host} s on the host");
    for Reading { date, date_seen, .. } in [first, second] {
        assert!((date - date_seen).abs() < 1.5, "the guest's clock says {date}, the host's {date_seen}");
    }
}

#[test]
fn time_passes_in_the_guest_as_on_the_host() {
    check(10, 0.05);
}

/// Longer, so that the lateness of lines does not hide a clock that goes wrong.
#[test]
fn time_passes_in_the_guest_as_on_the_host_while_the_host_is_busy() {
    let _load = Load::start();
    check(30, 0.35);
}
