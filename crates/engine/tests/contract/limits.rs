//! What the guest gets, and no more: memory, CPUs, disks, time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cellule_engine::{CpuCount, Disk, Engine, MAX_DISKS, MachineState, MemorySize};
use tokio::time::{sleep, timeout};

use crate::guest::{Guest, config, patterned, sum_of};

const MIB: usize = 1 << 20;

pub(crate) async fn the_guest_sees_the_memory_it_was_given(engine: &dyn Engine) {
    for mib in [192, 512] {
        let (mut config, dir) = config();
        config.memory = MemorySize::from_mib(mib).expect("a host with half a GiB");
        let mut guest = Guest::boot_with(engine, config, dir).await;
        let info = guest.session.ask("read /proc/meminfo").await;
        let total: u32 = info
            .split_whitespace()
            .nth(1)
            .and_then(|kib| kib.parse::<u32>().ok())
            .unwrap_or_else(|| panic!("{info}"))
            / 1024;
        // The kernel's own code and tables are not counted.
        assert!(total < mib && total > mib - 100, "{total} of {mib} MiB");
    }
}

pub(crate) async fn the_guest_sees_the_cpus_it_was_given(engine: &dyn Engine) {
    let host = thread::available_parallelism().map_or(1, usize::from).min(4);
    for count in 1..=u16::try_from(host).expect("a small number") {
        let (mut config, dir) = config();
        config.cpus = CpuCount::new(count).expect("no more than the host has");
        let mut guest = Guest::boot_with(engine, config, dir).await;
        assert_eq!(guest.session.number("cpus").await, u64::from(count));
    }
}

pub(crate) async fn a_disk_is_found_by_its_serial_and_read(engine: &dyn Engine) {
    let (mut config, dir) = config();
    let (first, first_sum) = patterned(3 * MIB);
    let (second, second_sum) = patterned(MIB + 512);
    config.disks = vec![
        Disk::read_only(first, "first").expect("a good serial"),
        Disk::read_only(second, "second").expect("a good serial"),
    ];
    let mut guest = Guest::boot_with(engine, config, dir).await;
    assert_eq!(guest.session.ask("sum second").await, second_sum);
    assert_eq!(guest.session.ask("sum first").await, first_sum);
}

pub(crate) async fn all_disks_can_be_read_from_many_threads(engine: &dyn Engine) {
    const SIZE: u64 = 32 << 20;
    let (mut config, dir) = config();
    config.disks = (0..MAX_DISKS)
        .map(|n| {
            let file = tempfile::tempfile().expect("a temporary file");
            file.set_len(SIZE).expect("a file with a hole");
            Disk::read_only(file, &format!("disk{n}")).expect("a good serial")
        })
        .collect();
    let mut guest = Guest::boot_with(engine, config, dir).await;
    for n in 0..MAX_DISKS {
        assert_eq!(guest.session.number(&format!("storm disk{n}")).await, SIZE);
    }
}

pub(crate) async fn a_read_only_disk_can_not_be_written(engine: &dyn Engine) {
    let (mut config, dir) = config();
    let (mut file, before) = patterned(MIB);
    // The caller's descriptor may be open for writing: the guest's disk is not.
    let disk = file.try_clone().expect("a descriptor");
    config.disks = vec![Disk::read_only(disk, "disk").expect("a good serial")];
    let mut guest = Guest::boot_with(engine, config, dir).await;
    assert_ne!(guest.session.ask("scribble disk").await, "ok");
    assert_eq!(sum_of(&mut file), before);
}

pub(crate) async fn a_writable_disk_keeps_what_is_written(engine: &dyn Engine) {
    let (mut config, dir) = config();
    let (mut file, before) = patterned(MIB);
    let disk = file.try_clone().expect("a descriptor");
    config.disks = vec![Disk::writable(disk, "disk").expect("a good serial")];
    let mut guest = Guest::boot_with(engine, config, dir).await;
    assert_eq!(guest.session.ask("scribble disk").await, "ok");
    let after = guest.session.ask("sum disk").await;
    assert_ne!(after, before);
    assert_eq!(sum_of(&mut file), after);
}

pub(crate) async fn the_guest_has_no_device_that_it_was_not_given(engine: &dyn Engine) {
    let mut guest = Guest::boot(engine).await;
    // The balloon, the port's device, the card, and the loopback that every kernel has.
    let devices = guest.session.ask("devices").await;
    assert_eq!(devices, "eth0 lo virtio0 virtio1 virtio2");
}

pub(crate) async fn a_paused_guest_stands_still_and_goes_on(engine: &dyn Engine) {
    let mut guest = Guest::boot(engine).await;
    let machine = &guest.machine;
    for _ in 0..2 {
        machine.pause().await.expect("a pause");
        assert_eq!(machine.state(), MachineState::Paused);
    }
    guest.session.tell("ticks").await;
    let answer = timeout(Duration::from_millis(700), guest.session.line()).await;
    assert!(answer.is_err(), "a paused guest answers: {answer:?}");
    let resumed = Instant::now();
    for _ in 0..2 {
        machine.resume().await.expect("a guest that goes on");
        assert_eq!(machine.state(), MachineState::Running);
    }
    let first: u64 = guest.session.line().await.parse().expect("a number");
    sleep(Duration::from_millis(300)).await;
    let second = guest.session.number("ticks").await;
    assert!(second > first, "the guest does not go on");
    // A tick takes at least 5 ms: a guest that had gone on in the pause would have made more of them.
    let most = resumed.elapsed().as_millis() / 5 + 1;
    assert!(u128::from(second - first) <= most, "{first} to {second} ticks in at most {most}");
}

pub(crate) async fn the_guests_clock_is_true_while_the_host_is_busy(engine: &dyn Engine) {
    let busy = Arc::new(AtomicBool::new(true));
    let spinners: Vec<_> = (0..thread::available_parallelism().map_or(1, usize::from) * 2)
        .map(|_| {
            let busy = Arc::clone(&busy);
            thread::spawn(move || {
                while busy.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        })
        .collect();
    // The boot too, since that is when a kernel measures.
    let mut guest = Guest::boot(engine).await;
    // Uptime at both ends, each taken within a bracket of the host's clock.
    let mut moments = Vec::new();
    for _ in 0..2 {
        let mut best: Option<(Duration, Instant, f64)> = None;
        for _ in 0..20 {
            let before = Instant::now();
            let said = guest.session.ask("read /proc/uptime").await;
            let width = before.elapsed();
            let uptime: f64 = said.split(' ').next().and_then(|s| s.parse().ok()).expect("an uptime");
            if best.as_ref().is_none_or(|best| width < best.0) {
                best = Some((width, before + width / 2, uptime));
            }
        }
        moments.push(best.expect("twenty tries"));
        sleep(Duration::from_secs(5)).await;
    }
    busy.store(false, Ordering::Relaxed);
    for spinner in spinners {
        spinner.join().expect("a thread that stops");
    }
    let host = moments[1].1.duration_since(moments[0].1).as_secs_f64();
    let guests = moments[1].2 - moments[0].2;
    // The uptime is given in hundredths of a second.
    let slack = 0.02 + moments.iter().map(|m| m.0.as_secs_f64() / 2.0).sum::<f64>();
    assert!((host - guests).abs() < host * 0.01 + slack, "{guests} s in the guest, {host} s outside");
}

pub(crate) async fn the_least_memory_boots(engine: &dyn Engine) {
    let (mut config, dir) = config();
    config.memory = MemorySize::MIN;
    let mut guest = Guest::boot_with(engine, config, dir).await;
    assert_eq!(guest.session.ask("cpus").await, "1");
}
