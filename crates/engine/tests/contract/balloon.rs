//! Memory that the guest gives back.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Duration;

use cellule_engine::{Engine, Machine, MemorySize, PAGE, SavedMachine};
use tokio::time::{Instant, sleep};

use crate::guest::{Guest, LIMIT, sum_of};
use crate::saved::{copy_of, restore, save};

const MIB: u64 = 1 << 20;

/// What the machine's processes have for themselves.
fn own_memory(machine: &dyn Machine) -> u64 {
    let of = |pid: u32| {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("a process");
        let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).expect("its memory");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    };
    machine.processes().iter().map(|process| of(process.pid)).sum()
}

async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < LIMIT, "it does not come to hold");
        sleep(Duration::from_millis(100)).await;
    }
}

/// A machine's memory in one file, and how to go on from it.
async fn whole(engine: &dyn Engine) -> SavedMachine {
    let mut guest = Guest::boot(engine).await;
    assert_eq!(guest.session.ask("keep 3 60").await, "ok");
    let saved = save(guest.machine.as_ref()).await;
    let memory = saved.changes.file().try_clone().expect("a descriptor");
    SavedMachine::whole(memory, saved.devices, saved.origin).expect("a descriptor")
}

pub(crate) async fn freed_memory_goes_back_to_the_host_and_the_base_is_as_it_was(engine: &dyn Engine) {
    let saved = whole(engine).await;
    let mut base: File = saved.base.try_clone().expect("a descriptor");
    let (contents, blocks) = (sum_of(&mut base), base.metadata().expect("a file").blocks());
    let mut sibling = restore(engine, copy_of(&saved)).await;
    let kept = sibling.session.ask("kept").await;

    let mut guest = restore(engine, saved).await;
    assert_eq!(guest.session.ask("kept").await, kept);
    let idle = own_memory(guest.machine.as_ref());
    assert_eq!(guest.session.ask("keep 4 40").await, "ok");
    let full = own_memory(guest.machine.as_ref());
    assert!(full > idle + 30 * MIB, "{idle} and {full} bytes");
    // Of its own, and of what it shares with its sibling.
    assert_eq!(guest.session.ask("drop").await, "ok");
    until(async || own_memory(guest.machine.as_ref()) < full - 25 * MIB).await;

    assert_eq!(guest.session.ask("keep 5 40").await, "ok", "it has no use of what it gave back");
    assert_eq!(sibling.session.ask("kept").await, kept);
    assert_eq!((sum_of(&mut base), base.metadata().expect("a file").blocks()), (contents, blocks));
}

pub(crate) async fn a_guest_gives_memory_up_and_has_it_again(engine: &dyn Engine) {
    let mut guest = Guest::boot(engine).await;
    let machine = guest.machine.as_ref();
    let all = machine.memory().await.expect("a guest with a balloon");
    assert_eq!(all, 256 * MIB);
    let target = MemorySize::from_mib(160).expect("a host with so much");
    machine.set_memory(target).await.expect("a balloon");
    until(async || machine.memory().await.expect("a number") == target.bytes()).await;
    let free = |info: &str| {
        let kib = info.split('|').find_map(|line| line.strip_prefix("MemTotal:")).expect("a total").trim();
        kib.trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    };
    let total = free(&guest.session.ask("read /proc/meminfo").await);
    assert!(total <= target.bytes(), "{total} bytes");

    // So do its copies.
    let mut copy = restore(engine, save(machine).await).await;
    assert_eq!(copy.machine.memory().await.expect("a number"), target.bytes());
    assert_eq!(free(&copy.session.ask("read /proc/meminfo").await), total);

    // More than there is, is what there is.
    machine.set_memory(MemorySize::from_mib(512).expect("a host with so much")).await.expect("a balloon");
    until(async || machine.memory().await.expect("a number") == all).await;
    assert!(free(&guest.session.ask("read /proc/meminfo").await) > total + 90 * MIB);
}

/// What its memory takes on this host, mapped or not.
fn memory_file(machine: &dyn Machine) -> u64 {
    let of = |pid: u32| {
        let all = fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors").flatten();
        let memory = |path: &std::path::PathBuf| {
            fs::read_link(path).is_ok_and(|to| to.to_string_lossy().contains("cellule-memory"))
        };
        let path = all.map(|entry| entry.path()).find(memory).expect("its memory");
        fs::metadata(path).expect("a file").blocks() * 512
    };
    machine.processes().iter().map(|process| of(process.pid)).sum()
}

pub(crate) async fn a_guest_that_booted_gives_all_of_it_back(engine: &dyn Engine) {
    let mut guest = Guest::boot(engine).await;
    let all = |guest: &Guest| own_memory(guest.machine.as_ref()) + memory_file(guest.machine.as_ref());
    let before = all(&guest);
    assert_eq!(guest.session.ask("keep 4 60").await, "ok");
    let full = all(&guest);
    assert!(full > before + 40 * MIB, "{before} and {full} bytes");
    assert_eq!(guest.session.ask("drop").await, "ok");
    // The kernel of the host makes a page of the file for each that is written.
    until(async || all(&guest) < full - 80 * MIB).await;
    assert_eq!(guest.session.ask("keep 5 60").await, "ok");
}

/// Pages that were copied ahead of a save, and then given back, are no changes any more.
pub(crate) async fn what_was_given_back_is_the_bases_in_a_save(engine: &dyn Engine) {
    let saved = whole(engine).await;
    let base = saved.base.try_clone().expect("a descriptor");
    let mut guest = restore(engine, saved).await;
    let kept = guest.session.ask("kept").await;
    // The test's file is a copy of the base, as for machines that share all of what is saved.
    let mut bytes = vec![0; usize::try_from(256 * MIB).expect("a small memory")];
    base.read_exact_at(&mut bytes, 0).expect("the base");
    let memory = tempfile::tempfile().expect("a temporary file");
    memory.write_all_at(&bytes, 0).expect("room for a copy");

    assert_eq!(guest.session.ask("keep 4 60").await, "ok");
    let machine = guest.machine.as_ref();
    machine.save_ahead(memory.try_clone().expect("a descriptor")).await.expect("a copy ahead");
    let full = own_memory(machine);
    assert_eq!(guest.session.ask("drop").await, "ok");
    until(async || own_memory(guest.machine.as_ref()) < full - 40 * MIB).await;
    let machine = guest.machine.as_ref();
    machine.pause().await.expect("a pause");
    let saved = machine.save(memory.try_clone().expect("a descriptor")).await.expect("a saved machine");
    machine.resume().await.expect("a guest that goes on");

    let mut is = vec![0; bytes.len()];
    memory.read_exact_at(&mut is, 0).expect("the memory");
    let page = usize::try_from(PAGE).expect("a small page");
    let changed = |at: u64| {
        let at = u32::try_from(at).expect("a small memory");
        saved.changes.ranges().iter().any(|range| (range.first..range.first + range.count).contains(&at))
    };
    let differ = bytes.chunks(page).zip(is.chunks(page)).zip(0..).filter(|((was, is), _)| was != is);
    let stale: Vec<u64> = differ.map(|(_, at)| at).filter(|at| !changed(*at)).collect();
    assert!(
        stale.is_empty(),
        "{} pages are neither the base's nor the guest's: {:?}",
        stale.len(),
        &stale[..stale.len().min(4)]
    );
    assert_ne!(kept, guest.session.ask("kept").await, "it dropped what it kept");
}
