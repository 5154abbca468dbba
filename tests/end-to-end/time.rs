//! Time in the guest is the host's, also while the host is busy.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

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

/// Runs a guest that sleeps ten seconds between two lines, and sees how long that was for the host.
fn check() {
    use std::io::{BufRead as _, BufReader};
    let home = Home::new();
    let script = "cat /proc/uptime; date +%s; sleep 10; cat /proc/uptime; date +%s";
    let mut child = home.run(["--quiet", "base", "sh", "-c", script]).start_raw();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    let mut read = || -> (f64, f64, f64) {
        let uptime = lines.next().unwrap();
        let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        let date: f64 = lines.next().unwrap().parse().unwrap();
        (uptime, date, now())
    };
    let (first, second) = (read(), read());
    child.wait().unwrap();
    let (guest, host) = (second.0 - first.0, second.2 - first.2);
    // The host sees the lines a little late when it is busy, hence the two tenths on either side.
    assert!((guest - 10.0).abs() < 0.3, "ten seconds of sleep were {guest} s in the guest");
    assert!((guest - host).abs() < host * 0.01 + 0.2, "{guest} s in the guest were {host} s on the host");
    for (_, date, now) in [first, second] {
        assert!((date - now).abs() < 1.5, "the guest's clock says {date}, the host's {now}");
    }
}

#[test]
fn ten_seconds_in_the_guest_are_ten_seconds() {
    check();
}

#[test]
fn ten_seconds_in_the_guest_are_ten_seconds_while_the_host_is_busy() {
    let _load = Load::start();
    check();
}
