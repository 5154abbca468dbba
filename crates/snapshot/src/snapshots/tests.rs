use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use cellule_engine::{MemorySize, Origin, PageRange, Pages, SavedMachine};
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::{Durability, Extent, SandboxSubject, Saving, Subject};

pub(crate) fn snapshots() -> (TempDir, Snapshots) {
    let top = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::new(top.path().join("snapshots"));
    (top, snapshots)
}

pub(crate) fn name(text: &str) -> SnapshotName {
    text.parse().unwrap()
}

pub(crate) fn subject() -> Subject {
    Subject::Sandbox(SandboxSubject {
        name: "web".to_owned(),
        labels: [("a".to_owned(), "b".to_owned())].into(),
        sandbox: json!({ "any": ["thing"] }),
    })
}

/// A memory that others share, with a mark on its first pages.
pub(crate) fn base(top: &TempDir) -> File {
    let path = top.path().join("a template's memory");
    let file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
    file.set_len(MemorySize::MIN.bytes()).unwrap();
    file.write_all_at(&[1; 2 * 4096], 0).unwrap();
    file
}

/// Some engine's, for machines that no engine made.
pub(crate) fn origin() -> Origin {
    Origin {
        engine: "qemu".to_owned(),
        version: "7.2.22".to_owned(),
        machine: "microvm".to_owned(),
        tsc_khz: 1,
    }
}

/// As an engine saves a machine whose second page is written, and whose first is cleared.
fn saved(memory: File, base: &File) -> SavedMachine {
    memory.set_len(MemorySize::MIN.bytes()).unwrap();
    memory.write_all_at(&[0; 4096], 0).unwrap();
    memory.write_all_at(&[2; 4096], 4096).unwrap();
    let ranges = vec![PageRange { first: 0, count: 2 }];
    SavedMachine {
        base: base.try_clone().unwrap(),
        changes: Pages::new(memory, ranges, MemorySize::MIN).unwrap(),
        devices: b"the state of devices".to_vec(),
        origin: origin(),
    }
}

pub(crate) const DISK_BYTES: u64 = 1 << 20;

/// A disk with a mark on its third page.
fn disk() -> File {
    let disk = tempfile::tempfile().unwrap();
    disk.set_len(DISK_BYTES).unwrap();
    disk.write_all_at(&[5; 4096], 8192).unwrap();
    disk
}

/// What is at the beginning of a disk, and where its mark is.
pub(crate) fn marks(disk: &File) -> [u8; 2] {
    [0, 8192].map(|at| {
        let mut byte = [9];
        disk.read_exact_at(&mut byte, at).unwrap();
        byte[0]
    })
}

pub(crate) fn save(snapshots: &Snapshots, base: &File, extent: Extent) -> SnapshotDraft {
    let draft = snapshots.draft().unwrap();
    let mut saving = Saving::begin(draft.path(), Some(base), extent).unwrap();
    saving.copy_disk(&disk()).unwrap();
    let saved = saved(saving.memory().unwrap(), base);
    saving.finish(subject(), &saved, Durability::Durable).unwrap();
    draft
}

#[test]
fn what_changed_is_kept_over_a_link_to_what_it_changed() {
    let (top, snapshots) = snapshots();
    let base = base(&top);
    save(&snapshots, &base, Extent::Changes).publish(&name("one")).unwrap();
    drop(base);
    fs::remove_file(top.path().join("a template's memory")).unwrap();

    let files = snapshots.find(&name("one")).unwrap();
    assert_eq!(files.manifest().subject, subject());
    let machine = files.load().unwrap();
    assert_eq!(machine.changes.ranges(), [PageRange { first: 0, count: 2 }]);
    let mut page = [9; 4096];
    machine.base.read_exact_at(&mut page, 0).unwrap();
    assert_eq!(page, [1; 4096]);
    machine.changes.file().read_exact_at(&mut page, 4096).unwrap();
    assert_eq!(page, [2; 4096]);
}

#[test]
fn a_whole_memory_needs_no_other() {
    let (top, snapshots) = snapshots();
    let files = save(&snapshots, &base(&top), Extent::Whole).publish(&name("one")).unwrap();
    assert_eq!(files.manifest().base, None);
    let machine = files.load().unwrap();
    assert!(machine.changes.ranges().is_empty());
    assert!(files.disk_bytes() > 4096);
}

#[test]
fn a_base_that_has_no_name_any_more_is_copied() {
    let (top, snapshots) = snapshots();
    let base = base(&top);
    fs::remove_file(top.path().join("a template's memory")).unwrap();
    let files = save(&snapshots, &base, Extent::Changes).publish(&name("one")).unwrap();
    assert_eq!(files.manifest().base, None);
    files.load().unwrap();
}

#[test]
fn a_name_is_given_once_and_a_draft_leaves_nothing() {
    let (top, snapshots) = snapshots();
    let base = base(&top);
    save(&snapshots, &base, Extent::Changes).publish(&name("one")).unwrap();
    let again = save(&snapshots, &base, Extent::Changes).publish(&name("one"));
    assert!(matches!(again, Err(Error::NameTaken(_))));
    drop(save(&snapshots, &base, Extent::Changes));
    let unsaved = snapshots.draft().unwrap().publish(&name("two"));
    assert!(matches!(unsaved, Err(Error::Io { .. })));
    assert_eq!(fs::read_dir(snapshots.dir()).unwrap().count(), 1);
    for number in 1..=2 {
        let (given, _) = save(&snapshots, &base, Extent::Changes).publish_numbered("one").unwrap();
        assert_eq!(given, name(&format!("one-{number}")));
    }
    let bad = save(&snapshots, &base, Extent::Changes).publish_numbered("no/name");
    assert!(matches!(bad, Err(Error::NoName(_))));
    assert_eq!(fs::read_dir(snapshots.dir()).unwrap().count(), 3);
}

#[test]
fn what_a_killed_process_left_is_swept_away() {
    let (_top, snapshots) = snapshots();
    fs::create_dir_all(snapshots.dir().join(".tmp-abcdef")).unwrap();
    let alive = snapshots.draft().unwrap();
    assert!(snapshots.list().unwrap().is_empty());
    assert!(alive.path().exists());
    assert_eq!(fs::read_dir(snapshots.dir()).unwrap().count(), 1);
}

#[test]
fn they_are_listed_the_newest_first_and_damage_last_and_removed() {
    let (top, snapshots) = snapshots();
    let base = base(&top);
    for each in ["b", "a", "c"] {
        save(&snapshots, &base, Extent::Changes).publish(&name(each)).unwrap();
    }
    fs::write(snapshots.dir().join("b").join(MANIFEST), "{").unwrap();
    let names = |snapshots: &Snapshots| -> Vec<String> {
        snapshots.list().unwrap().iter().map(|snapshot| snapshot.name.to_string()).collect()
    };
    assert_eq!(names(&snapshots), ["c", "a", "b"]);
    for each in ["a", "b"] {
        assert!(snapshots.remove(&name(each)).unwrap() > 0);
    }
    assert_eq!(names(&snapshots), ["c"]);
    assert!(matches!(snapshots.remove(&name("a")), Err(Error::NoSuchSnapshot(_))));
}

#[test]
fn damage_of_each_file_is_named() {
    let (top, snapshots) = snapshots();
    let base = base(&top);
    for file in ["memory", "base", "pages", "devices", "manifest.json"] {
        let (_, mine) = (0, name(&format!("of-{file}")));
        save(&snapshots, &base, Extent::Changes).publish(&mine).unwrap();
        let path = snapshots.dir().join(mine.as_str()).join(file);
        // In its place, for its other names lead to the same file.
        let mut bytes = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let load = || snapshots.find(&mine).and_then(|files| files.load());
        let missing = load();
        assert!(matches!(&missing, Err(Error::Damaged { .. })), "{file}: {missing:?}");
        bytes.truncate(bytes.len() / 2);
        fs::write(&path, &bytes).unwrap();
        let cut = load();
        assert!(matches!(&cut, Err(Error::Damaged { .. })), "{file}: {cut:?}");
    }
}

#[test]
fn another_place_of_the_same_files_outlives_the_first() {
    let (top, snapshots) = snapshots();
    let files = save(&snapshots, &base(&top), Extent::Changes).publish(&name("one")).unwrap();
    let other = files.link_to(&top.path().join("other")).unwrap();
    snapshots.remove(&name("one")).unwrap();
    other.load().unwrap();
    SavedFiles::open(&top.path().join("other")).unwrap().load().unwrap();
    assert!(other.link_to(&top.path().join("other")).is_err(), "something is there");
}
