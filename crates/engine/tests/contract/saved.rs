//! Saving and restoring.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::{Duration, Instant};

use cellule_engine::{
    CpuCount, Disk, Engine, LaunchError, Machine, MachineState, MemorySize, Mismatch, PAGE, Pages, SaveError,
    SavedMachine, Start,
};
use tokio::time::sleep;

use crate::guest::{Guest, Session, config, limited, patterned};

/// Saves a guest and lets it go on.
pub(crate) async fn save(machine: &dyn Machine) -> SavedMachine {
    machine.pause().await.expect("a pause");
    let saved = limited(machine.save(tempfile::tempfile().expect("a temporary file"))).await;
    machine.resume().await.expect("a guest that goes on");
    saved.expect("a saved machine")
}

pub(crate) fn copy_of(saved: &SavedMachine) -> SavedMachine {
    let memory = MemorySize::from_mib(256).expect("a host with 256 MiB");
    let file = |file: &File| file.try_clone().expect("a descriptor");
    let ranges = saved.changes.ranges().to_vec();
    SavedMachine {
        base: file(&saved.base),
        changes: Pages::new(file(saved.changes.file()), ranges, memory).expect("pages that were saved"),
        devices: saved.devices.clone(),
        origin: saved.origin.clone(),
    }
}

pub(crate) async fn restore(engine: &dyn Engine, saved: SavedMachine) -> Guest {
    let (mut config, dir) = config();
    config.start = Start::Restore(Box::new(saved));
    Guest::boot_with(engine, config, dir).await
}

async fn refused(engine: &dyn Engine, saved: SavedMachine) -> LaunchError {
    let (mut config, dir) = config();
    config.start = Start::Restore(Box::new(saved));
    let error = limited(engine.launch(config)).await.map(drop).expect_err("nothing to go on from");
    assert_eq!(std::fs::read_dir(dir.path()).expect("the machine's directory").count(), 0);
    error
}

pub(crate) async fn a_saved_guest_goes_on_and_so_does_its_copy(engine: &dyn Engine) {
    let mut guest = Guest::boot(engine).await;
    assert_eq!(guest.session.ask("keep 7 8").await, "ok");
    let kept = guest.session.ask("kept").await;
    let saved = save(guest.machine.as_ref()).await;

    // The stream outlives it.
    assert_eq!(guest.session.ask("kept").await, kept);
    let mut copy = restore(engine, saved).await;
    assert_eq!(copy.machine.state(), MachineState::Running);
    assert_eq!(copy.session.number, guest.session.number + 1, "it is not the same guest");
    assert_eq!(copy.session.ask("kept").await, kept);

    // From here on they are apart.
    assert_eq!(copy.session.ask("keep 9 1").await, "ok");
    let more = copy.session.ask("kept").await;
    assert_ne!(more, kept);
    assert_eq!(guest.session.ask("kept").await, kept);
    assert_eq!(guest.session.ask("keep 5 1").await, "ok");
    assert_ne!(guest.session.ask("kept").await, more);
    assert_eq!(copy.session.ask("kept").await, more);
    drop(guest);
    assert_eq!(copy.session.ask("kept").await, more, "a copy needs its original");
}

pub(crate) async fn many_copies_share_what_they_do_not_change(engine: &dyn Engine) {
    let guest = Guest::boot(engine).await;
    let saved = save(guest.machine.as_ref()).await;
    drop(guest);
    // What a template is: all of a memory in one file.
    let memory = saved.changes.file().try_clone().expect("a descriptor");
    let whole = SavedMachine::whole(memory, saved.devices, saved.origin).expect("a descriptor");
    let mut copies = Vec::new();
    for _ in 0..3 {
        copies.push(restore(engine, copy_of(&whole)).await);
    }
    for copy in &mut copies {
        assert_eq!(copy.session.ask("cpus").await, "1");
        let own = save(copy.machine.as_ref()).await;
        let all = saved.changes.bytes();
        assert!(own.changes.bytes() * 4 < all, "{} of {all} bytes are not shared", own.changes.bytes());
        assert!(own.changes.bytes() > 0);
    }
}

pub(crate) async fn a_copy_of_a_copy_has_all_of_both(engine: &dyn Engine) {
    let mut guest = Guest::boot(engine).await;
    for generation in 0..4 {
        assert_eq!(guest.session.ask(&format!("keep {generation} 2")).await, "ok");
        let kept = guest.session.ask("kept").await;
        let saved = save(guest.machine.as_ref()).await;
        guest = restore(engine, saved).await;
        assert_eq!(guest.session.ask("kept").await, kept, "generation {generation}");
        assert_eq!(guest.session.number, generation + 2);
    }
}

pub(crate) async fn a_copy_of_its_base_takes_what_changed_and_is_whole(engine: &dyn Engine) {
    let guest = Guest::boot(engine).await;
    let first = save(guest.machine.as_ref()).await;
    drop(guest);
    let memory = first.changes.file().try_clone().expect("a descriptor");
    let base = SavedMachine::whole(memory, first.devices, first.origin).expect("a descriptor");
    let mut parent = restore(engine, copy_of(&base)).await;
    assert_eq!(parent.session.ask("keep 3 4").await, "ok");

    let mut copy = tempfile::tempfile().expect("a temporary file");
    std::io::copy(&mut &base.base, &mut copy).expect("a copy of the base");
    let ahead = copy.try_clone().expect("a descriptor");
    limited(parent.machine.save_ahead(ahead)).await.expect("pages copied ahead");
    assert_eq!(parent.session.ask("keep 5 6").await, "ok");
    let kept = parent.session.ask("kept").await;
    parent.machine.pause().await.expect("a pause");
    let saved = limited(parent.machine.save(copy)).await.expect("a saved machine");
    drop(parent);
    let memory = saved.changes.file().try_clone().expect("a descriptor");
    let whole = SavedMachine::whole(memory, saved.devices, saved.origin).expect("a descriptor");
    for _ in 0..2 {
        let mut child = restore(engine, copy_of(&whole)).await;
        assert_eq!(child.session.ask("kept").await, kept);
        let own = save(child.machine.as_ref()).await;
        assert!(
            own.changes.bytes() * 4 < first.changes.bytes(),
            "{} bytes are not shared",
            own.changes.bytes()
        );
    }
}

pub(crate) async fn a_guest_with_several_cpus_and_a_disk_goes_on(engine: &dyn Engine) {
    let (file, sum) = patterned(1 << 20);
    let cpus = CpuCount::new(2).unwrap_or(CpuCount::ONE);
    let disk = || Disk::read_only(file.try_clone().expect("a descriptor"), "data").expect("a good serial");
    let (mut first, dir) = config();
    (first.cpus, first.disks) = (cpus, vec![disk()]);
    let mut guest = Guest::boot_with(engine, first, dir).await;
    assert_eq!(guest.session.ask("sum data").await, sum);
    let saved = save(guest.machine.as_ref()).await;

    let (mut second, dir) = config();
    (second.cpus, second.disks) = (cpus, vec![disk()]);
    second.start = Start::Restore(Box::new(saved));
    let mut copy = Guest::boot_with(engine, second, dir).await;
    assert_eq!(copy.session.ask("cpus").await, cpus.get().to_string());
    assert_eq!(copy.session.number("storm data").await, 1 << 20);
    assert_eq!(guest.session.ask("sum data").await, sum);
}

pub(crate) async fn a_guest_that_is_saved_again_and_again_goes_on(engine: &dyn Engine) {
    let mut guest = Guest::boot(engine).await;
    let mut ticks = 0;
    let mut last = None;
    for _ in 0..20 {
        last = Some(save(guest.machine.as_ref()).await);
        sleep(Duration::from_millis(30)).await;
        let now = guest.session.number("ticks").await;
        assert!(now > ticks, "the guest stands still");
        ticks = now;
    }
    let mut copy = restore(engine, last.expect("a saved machine")).await;
    assert!(copy.session.number("ticks").await > 0);
}

pub(crate) async fn a_copys_clock_goes_on_from_the_moment_of_the_save(engine: &dyn Engine) {
    let mut guest = Guest::boot(engine).await;
    let uptime = async |session: &mut Session| -> f64 {
        let said = session.ask("read /proc/uptime").await;
        said.split(' ').next().and_then(|first| first.parse().ok()).expect("an uptime")
    };
    let before = uptime(&mut guest.session).await;
    let saved = save(guest.machine.as_ref()).await;
    let after = uptime(&mut guest.session).await;
    sleep(Duration::from_secs(3)).await;
    let restored = Instant::now();
    let mut copy = restore(engine, saved).await;
    let first = uptime(&mut copy.session).await;
    let passed = restored.elapsed().as_secs_f64();
    assert!(first >= before, "time runs backwards: {before} to {first}");
    assert!(first <= after + passed + 0.1, "{first} is more than {after} and {passed}");
    // And at its own pace.
    let slept = copy.session.number("sleep 1000").await;
    assert!((1_000_000..1_500_000).contains(&slept), "a second took {slept} us");
}

pub(crate) async fn a_running_guest_is_not_saved(engine: &dyn Engine) {
    let mut guest = Guest::boot(engine).await;
    let file = || tempfile::tempfile().expect("a temporary file");
    assert!(matches!(guest.machine.save(file()).await, Err(SaveError::NotPaused)));
    assert_eq!(guest.session.ask("cpus").await, "1");
    guest.machine.kill();
    limited(guest.machine.wait()).await;
    assert!(matches!(guest.machine.save(file()).await, Err(SaveError::Control(_))));
}

pub(crate) async fn a_copy_has_no_host_until_one_comes(engine: &dyn Engine) {
    let mut guest = Guest::boot(engine).await;
    // Half said when it is saved.
    guest.session.tell("sleep 50").await;
    let saved = save(guest.machine.as_ref()).await;
    let (mut config, _dir) = config();
    config.start = Start::Restore(Box::new(saved));
    let copy = limited(engine.launch(config)).await.expect("a machine that goes on");
    sleep(Duration::from_millis(500)).await;
    for _ in 0..3 {
        let mut session = Session::open(copy.as_ref()).await;
        assert_eq!(session.ask("cpus").await, "1");
    }
}

pub(crate) async fn what_was_saved_elsewhere_is_refused(engine: &dyn Engine) {
    let guest = Guest::boot(engine).await;
    let saved = save(guest.machine.as_ref()).await;
    drop(guest);
    let mut older = copy_of(&saved);
    older.origin.version.push_str(".1");
    assert!(matches!(refused(engine, older).await, LaunchError::Mismatch(Mismatch::Engine { .. })));
    let mut other = copy_of(&saved);
    other.origin.machine.push('x');
    assert!(matches!(refused(engine, other).await, LaunchError::Mismatch(Mismatch::Machine { .. })));
    let mut slower = copy_of(&saved);
    slower.origin.tsc_khz /= 2;
    assert!(matches!(refused(engine, slower).await, LaunchError::Mismatch(Mismatch::Frequency { .. })));
    let mut shorter = copy_of(&saved);
    shorter.base = tempfile::tempfile().expect("a temporary file");
    assert!(matches!(refused(engine, shorter).await, LaunchError::Damaged { .. }));
    let mut empty = copy_of(&saved);
    empty.devices.clear();
    assert!(matches!(refused(engine, empty).await, LaunchError::Damaged { .. }));
}

pub(crate) async fn a_damaged_state_is_refused_in_time(engine: &dyn Engine) {
    let guest = Guest::boot(engine).await;
    let saved = save(guest.machine.as_ref()).await;
    drop(guest);
    for length in [1, 100, saved.devices.len() / 2, saved.devices.len() - 1] {
        let mut cut = copy_of(&saved);
        cut.devices.truncate(length);
        assert!(matches!(refused(engine, cut).await, LaunchError::Exited { .. }), "cut at {length}");
    }
}

pub(crate) async fn a_file_that_takes_nothing_leaves_the_guest_as_it_was(engine: &dyn Engine) {
    let mut guest = Guest::boot(engine).await;
    guest.machine.pause().await.expect("a pause");
    // It takes nothing.
    let full = File::options().read(true).write(true).open("/dev/full").expect("a full device");
    assert!(matches!(guest.machine.save(full).await, Err(SaveError::Host { .. })));
    let good = guest.machine.save(tempfile::tempfile().expect("a temporary file")).await;
    let good = good.expect("a saved machine");
    guest.machine.resume().await.expect("a guest that goes on");
    assert_eq!(guest.session.ask("cpus").await, "1");

    // What is zero takes no room.
    let file = good.changes.file();
    let taken = file.metadata().expect("the file").blocks() * 512;
    assert!(taken <= good.changes.bytes() + (1 << 20), "{taken} bytes for {}", good.changes.bytes());
    let mut page = vec![0; usize::try_from(PAGE).expect("a small page")];
    let first = good.changes.ranges().first().expect("a page");
    file.read_exact_at(&mut page, u64::from(first.first) * PAGE).expect("the first page");
    let mut copy = restore(engine, good).await;
    assert_eq!(copy.session.ask("cpus").await, "1");
}
