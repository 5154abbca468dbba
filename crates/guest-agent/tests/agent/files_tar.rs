//! Trees as archives: out of the guest, and into it, whatever they say.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use cellule_protocol::client::files::{FileError, Files, TarInOptions, TarSummary, WriteOptions};
use rustix::fs::{CWD, FileType, mknodat};
use tar::{EntryType, Header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::files::{Place, assert_kind};
use crate::files_transfer::wait_until;
use crate::support::within;

async fn tar_out(files: &Files, path: &[u8], name: &[u8], follow: bool) -> Vec<u8> {
    let mut reader = files.tar_out(path, name, follow).await.unwrap();
    let mut bytes = Vec::new();
    within(reader.read_to_end(&mut bytes)).await.unwrap();
    bytes
}

async fn tar_in(
    files: &Files,
    path: &[u8],
    tar: &[u8],
    options: TarInOptions,
) -> Result<TarSummary, FileError> {
    let mut writer = files.tar_in(path, options).await?;
    // A refusal may come while it is written; the end tells which.
    let _refused = within(writer.write_all(tar)).await;
    within(writer.finish()).await
}

/// Everything goes to whoever runs the test, who may not be root.
fn ours() -> TarInOptions {
    let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    TarInOptions { owner: Some(owner), keep_kinds: false }
}

fn entry(kind: EntryType, name: &[u8], target: &[u8], contents: &[u8]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.as_old_mut().linkname[..target.len()].copy_from_slice(target);
    header.set_entry_type(kind);
    header.set_size(contents.len() as u64);
    header.set_mode(0o640);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_000_000_000);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(contents);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn file(name: &str, contents: &str) -> Vec<u8> {
    entry(EntryType::Regular, name.as_bytes(), b"", contents.as_bytes())
}

fn link(name: &str, target: &str) -> Vec<u8> {
    entry(EntryType::Symlink, name.as_bytes(), target.as_bytes(), b"")
}

fn directory(name: &str) -> Vec<u8> {
    entry(EntryType::Directory, name.as_bytes(), b"", b"")
}

fn closed(entries: &[Vec<u8>]) -> Vec<u8> {
    [entries.concat(), vec![0; 1024]].concat()
}

/// A tree with one of everything.
fn populate(tree: &Path) {
    fs::create_dir_all(tree.join("sub/empty")).unwrap();
    fs::write(tree.join("sub/file"), vec![7; 300_001]).unwrap();
    fs::hard_link(tree.join("sub/file"), tree.join("sub/other-name")).unwrap();
    fs::write(tree.join("n".repeat(250)), "long name").unwrap();
    symlink("t".repeat(200), tree.join("long-link")).unwrap();
    fs::write(tree.join(OsStr::from_bytes(b"\xFF")), "").unwrap();
    mknodat(CWD, tree.join("fifo"), FileType::Fifo, 0o600.into(), 0).unwrap();
    let _kept = std::os::unix::net::UnixListener::bind(tree.join("socket")).unwrap();
    fs::set_permissions(tree.join("sub/file"), fs::Permissions::from_mode(0o4750)).unwrap();
    fs::set_permissions(tree.join("sub/empty"), fs::Permissions::from_mode(0o1711)).unwrap();
    let past = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    fs::File::open(tree.join("sub")).unwrap().set_modified(past).unwrap();
    fs::File::open(tree.join("sub/file")).unwrap().set_modified(past).unwrap();
}

fn assert_populated(tree: &Path) {
    let meta = |name: &str| fs::symlink_metadata(tree.join(name)).unwrap();
    let past = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    assert_eq!(fs::read(tree.join("sub/file")).unwrap(), vec![7; 300_001]);
    assert_eq!(meta("sub/file").ino(), meta("sub/other-name").ino());
    assert_eq!((meta("sub/file").mode() & 0o7777, meta("sub/empty").mode() & 0o7777), (0o4750, 0o1711));
    assert_eq!((meta("sub").modified().unwrap(), meta("sub/file").modified().unwrap()), (past, past));
    assert_eq!(fs::read(tree.join("n".repeat(250))).unwrap(), b"long name");
    assert_eq!(fs::read_link(tree.join("long-link")).unwrap(), Path::new(&"t".repeat(200)));
    assert!(tree.join(OsStr::from_bytes(b"\xFF")).exists() && meta("fifo").file_type().is_fifo());
    assert!(!tree.join("socket").exists());
}

#[tokio::test]
async fn a_tree_comes_out_as_others_read_it() {
    let place = Place::new();
    let files = place.files().await;
    populate(&place.dir().join("tree"));
    fs::create_dir(place.dir().join("out")).unwrap();
    let tar = tar_out(&files, &place.path("tree"), b"called", false).await;
    assert!(tar.ends_with(&[0; 1024]), "an archive is closed");
    fs::write(place.dir().join("tar"), &tar).unwrap();
    let unpacked =
        Command::new("tar").args(["-xpf", "../tar"]).current_dir(place.dir().join("out")).output().unwrap();
    assert!(unpacked.status.success() && unpacked.stderr.is_empty(), "{unpacked:?}");
    assert_populated(&place.dir().join("out/called"));
}

#[tokio::test]
async fn a_tree_goes_out_and_in_again_unchanged() {
    let place = Place::new();
    let files = place.files().await;
    populate(&place.dir().join("tree"));
    fs::create_dir(place.dir().join("in")).unwrap();
    let tar = tar_out(&files, &place.path("tree"), b"", false).await;
    for _again in 0..2 {
        let summary = tar_in(&files, &place.path("in"), &tar, TarInOptions::default()).await.unwrap();
        assert_eq!(summary, TarSummary { entries: 8, bytes: 300_001 + 9 });
        assert_populated(&place.dir().join("in"));
    }
}

#[tokio::test]
async fn what_others_pack_is_unpacked() {
    let place = Place::new();
    let files = place.files().await;
    let tree = place.dir().join("tree");
    populate(&tree);
    fs::remove_file(tree.join("socket")).unwrap();
    fs::File::create(tree.join("holes")).unwrap().set_len(1 << 30).unwrap();
    rustix::io::pwrite(
        fs::File::options().write(true).open(tree.join("holes")).unwrap(),
        b"end",
        900_000_000,
    )
    .unwrap();
    let past = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    fs::File::open(&tree).unwrap().set_modified(past).unwrap();
    for arguments in [
        &["--format=gnu", "-S"][..],
        &["--format=pax"],
        &["--format=ustar", "--exclude=n*", "--exclude=long-link"],
    ] {
        let sparse = arguments.contains(&"-S");
        let mut command = Command::new("tar");
        command.args(arguments).arg("-cf").arg("../tar");
        if !sparse {
            command.arg("--exclude=holes");
        }
        assert!(command.arg(".").current_dir(&tree).status().unwrap().success());
        let target = place.dir().join("in");
        fs::create_dir(&target).unwrap();
        let tar = fs::read(place.dir().join("tar")).unwrap();
        tar_in(&files, &place.path("in"), &tar, TarInOptions::default()).await.unwrap();
        assert_eq!(fs::read(target.join("sub/other-name")).unwrap(), vec![7; 300_001]);
        if !arguments.contains(&"--format=ustar") {
            assert_populated(&target);
        }
        if sparse {
            let meta = fs::metadata(target.join("holes")).unwrap();
            assert!(meta.len() == 1 << 30 && meta.blocks() < 10_000, "{meta:?}");
            let mut end = [0; 3];
            std::os::unix::fs::FileExt::read_exact_at(
                &fs::File::open(target.join("holes")).unwrap(),
                &mut end,
                900_000_000,
            )
            .unwrap();
            assert_eq!(&end, b"end");
        }
        fs::remove_dir_all(target).unwrap();
    }
}

#[tokio::test]
async fn single_files_and_links_are_packed_under_the_name_they_are_given() {
    let place = Place::new();
    let files = place.files().await;
    place.write("file", "contents");
    symlink("file", place.dir().join("link")).unwrap();
    let first = |tar: &[u8]| {
        let header = Header::from_byte_slice(&tar[..512]);
        (header.path_bytes().to_vec(), header.entry_type(), header.size().unwrap())
    };
    let tar = tar_out(&files, &place.path("link"), b"new", true).await;
    assert_eq!(first(&tar), (b"new".to_vec(), EntryType::Regular, 8));
    let tar = tar_out(&files, &place.path("link"), b"new", false).await;
    assert_eq!(first(&tar), (b"new".to_vec(), EntryType::Symlink, 0));
    assert_kind(files.tar_out(place.path("file"), b"", false).await, io::ErrorKind::NotADirectory);
    assert_kind(files.tar_out(place.path("none"), b"x", false).await, io::ErrorKind::NotFound);
    let _socket = std::os::unix::net::UnixListener::bind(place.dir().join("socket")).unwrap();
    assert_kind(files.tar_out(place.path("socket"), b"x", false).await, io::ErrorKind::InvalidInput);
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_packed_has_the_size_its_header_says() {
    const SIZE: usize = 24 << 20;
    let place = Place::new();
    let files = place.files().await;
    for grows in [false, true] {
        fs::create_dir(place.dir().join("tree")).unwrap();
        place.write("tree/file", vec![1; SIZE]);
        // The stream's window is full long before the file's end.
        let mut reader = files.tar_out(place.path("tree"), b"t", false).await.unwrap();
        let mut tar = vec![0; 2048];
        within(reader.read_exact(&mut tar)).await.unwrap();
        let file = fs::File::options().append(true).open(place.dir().join("tree/file")).unwrap();
        file.set_len(if grows { 2 * SIZE as u64 } else { 100 }).unwrap();
        within(reader.read_to_end(&mut tar)).await.unwrap();
        assert_eq!(tar.len(), 512 + 512 + SIZE + 1024, "grows: {grows}");
        assert!(grows || tar[SIZE..].iter().all(|byte| *byte == 0));
        fs::remove_dir_all(place.dir().join("tree")).unwrap();
    }
}

#[tokio::test]
async fn directories_merge_and_files_replace() {
    let place = Place::new();
    let files = place.files().await;
    fs::create_dir_all(place.dir().join("in/dir")).unwrap();
    place.write("in/dir/kept", "kept");
    place.write("in/dir/file", "old");
    place.write("elsewhere", "untouched");
    symlink("../../elsewhere", place.dir().join("in/dir/link")).unwrap();
    let tar = closed(&[
        directory("dir/"),
        file("dir/file", "new"),
        file("dir/link", "file now"),
        file("made/by/need", "x"),
    ]);
    tar_in(&files, &place.path("in"), &tar, ours()).await.unwrap();
    let read = |name: &str| fs::read_to_string(place.dir().join(name)).unwrap();
    assert_eq!((read("in/dir/kept").as_str(), read("in/dir/file").as_str()), ("kept", "new"));
    assert_eq!((read("in/dir/link").as_str(), read("elsewhere").as_str()), ("file now", "untouched"));
    assert_eq!(read("in/made/by/need"), "x");
    assert_kind(tar_in(&files, &place.path("none"), &tar, ours()).await, io::ErrorKind::NotFound);
    assert_kind(tar_in(&files, &place.path("elsewhere"), &tar, ours()).await, io::ErrorKind::NotADirectory);
}

#[tokio::test]
async fn kinds_change_only_if_they_may() {
    let place = Place::new();
    let files = place.files().await;
    fs::create_dir_all(place.dir().join("in/was-dir/full")).unwrap();
    place.write("in/was-file", "");
    let keep = TarInOptions { keep_kinds: true, ..ours() };
    let to_file = closed(&[file("was-dir", "now a file")]);
    let to_directory = closed(&[directory("was-file/")]);
    assert_kind(tar_in(&files, &place.path("in"), &to_file, keep).await, io::ErrorKind::IsADirectory);
    assert_kind(tar_in(&files, &place.path("in"), &to_directory, keep).await, io::ErrorKind::AlreadyExists);
    assert!(place.dir().join("in/was-dir/full").is_dir() && place.dir().join("in/was-file").is_file());
    tar_in(&files, &place.path("in"), &to_file, ours()).await.unwrap();
    tar_in(&files, &place.path("in"), &to_directory, ours()).await.unwrap();
    assert!(place.dir().join("in/was-dir").is_file() && place.dir().join("in/was-file").is_dir());
}

#[tokio::test]
async fn nothing_lands_outside_whatever_the_archive_says() {
    let place = Place::new();
    let files = place.files().await;
    let outside = place.dir().join("outside").into_os_string().into_string().unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(format!("{outside}/victim"), "whole").unwrap();
    let hard = |name: &str, target: &str| entry(EntryType::Link, name.as_bytes(), target.as_bytes(), b"");
    let archives = [
        vec![file("../outside/new", "x")],
        vec![file("a/../../outside/new", "x")],
        vec![link("l", "../outside"), file("l/new", "x")],
        vec![link("l", &outside), file("l/new", "x")],
        vec![link("l", &outside), directory("l/"), file("l/new", "x")],
        vec![link("l", "../outside"), directory("l/sub/"), file("l/sub/new", "x")],
        vec![link("l", &format!("{outside}/victim")), hard("h", "l/../victim")],
        vec![hard("h", "../outside/victim"), file("h", "x")],
        vec![link("d", &outside), hard("h", "d/victim"), file("h", "x")],
        vec![link("d", "."), link("d/l", &outside), file("d/d/d/l/victim", "x")],
        vec![file("..", "x")],
        vec![file("", "x")],
    ];
    for entries in archives {
        let target = place.dir().join("in");
        fs::create_dir(&target).unwrap();
        let result = tar_in(&files, &place.path("in"), &closed(&entries), ours()).await;
        let entries: Vec<_> =
            fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(entries, ["victim"], "{result:?}");
        assert_eq!(fs::read_to_string(format!("{outside}/victim")).unwrap(), "whole", "{result:?}");
        assert_eq!(fs::metadata(format!("{outside}/victim")).unwrap().nlink(), 1, "{result:?}");
        fs::remove_dir_all(target).unwrap();
    }
    // An absolute name is one beneath the directory.
    fs::create_dir(place.dir().join("in")).unwrap();
    let absolute =
        closed(&[file(&format!("{outside}/new"), "x"), file("//rooted", "x"), link("l", &outside)]);
    tar_in(&files, &place.path("in"), &absolute, ours()).await.unwrap();
    assert!(
        place.dir().join("in").join(&outside[1..]).join("new").exists()
            && place.dir().join("in/rooted").exists()
    );
    // A link to the outside is a link, and what goes through it is refused by name.
    let through = closed(&[file("l/new", "x")]);
    let error = tar_in(&files, &place.path("in"), &through, ours()).await.unwrap_err();
    assert!(error.to_string().contains("l/new: a link on its way leads outside"), "{error}");
}

#[tokio::test]
async fn a_directory_that_becomes_a_link_while_it_is_filled_leads_nowhere() {
    let place = Place::new();
    let files = place.files().await;
    let outside = tempfile::tempdir().unwrap();
    let mut entries = Vec::new();
    for at in 0..400 {
        entries.extend([directory("dir/"), file(&format!("dir/{at}"), "x")]);
    }
    let tar = closed(&entries);
    for _round in 0..10 {
        let target = place.dir().join("in");
        fs::create_dir(&target).unwrap();
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let swapper = {
            let (target, outside, stop) = (target.clone(), outside.path().to_path_buf(), stop.clone());
            std::thread::spawn(move || {
                let mut at = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    at += 1;
                    if fs::rename(target.join("dir"), target.join(format!("moved-{at}"))).is_ok() {
                        let _raced = symlink(&outside, target.join("dir"));
                        std::thread::yield_now();
                        let _raced = fs::remove_file(target.join("dir"));
                    }
                }
            })
        };
        let _raced = tar_in(&files, &place.path("in"), &tar, ours()).await;
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        swapper.join().unwrap();
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        fs::remove_dir_all(target).unwrap();
    }
}

#[tokio::test]
async fn broken_archives_are_refused_with_their_fault() {
    let place = Place::new();
    let files = place.files().await;
    fs::create_dir(place.dir().join("in")).unwrap();
    let mut huge = Header::new_ustar();
    huge.set_entry_type(EntryType::XHeader);
    huge.set_size(1 << 33);
    huge.set_cksum();
    let endless = [huge.as_bytes().to_vec(), vec![b'x'; 4 << 20]].concat();
    let truncated = file("file", "its contents")[..520].to_vec();
    let mut larger = file("file", "x");
    larger[124..136].copy_from_slice(b"00000100000\0");
    let mut header = Header::new_gnu();
    header.as_mut_bytes().copy_from_slice(&larger[..512]);
    header.set_cksum();
    larger[..512].copy_from_slice(header.as_bytes());
    for (tar, why) in [
        (endless, "the extended headers of an entry are too large"),
        (truncated, "it ends in the midst of an entry"),
        (larger, "it ends in the midst of an entry"),
        (vec![b'x'; 2048], "it is no tar, or damaged"),
        (b"short".to_vec(), "it ends in the midst of an entry"),
    ] {
        let error = tar_in(&files, &place.path("in"), &tar, ours()).await.unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        assert_kind::<()>(Err(error), io::ErrorKind::InvalidInput);
    }
    assert_eq!(fs::read_dir(place.dir().join("in")).unwrap().count(), 0, "half a file is none");
}

#[tokio::test]
async fn an_archive_that_is_cut_leaves_no_half_file() {
    let place = Place::new();
    let files = place.files().await;
    fs::create_dir(place.dir().join("in")).unwrap();
    let large = "x".repeat(4 << 20);
    let tar = [file("whole", "w"), file("half", &large)].concat();
    let mut writer = files.tar_in(place.path("in"), ours()).await.unwrap();
    writer.write_all(&tar[..3 << 20]).await.unwrap();
    wait_until(|| place.dir().join("in/half").exists()).await;
    drop(writer);
    wait_until(|| !place.dir().join("in/half").exists()).await;
    assert_eq!(fs::read(place.dir().join("in/whole")).unwrap(), b"w");
}

#[tokio::test]
async fn owners_are_the_archives_unless_one_is_asked_for() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let place = Place::new();
    let files = place.files().await;
    place.write("file", "");
    std::os::unix::fs::chown(place.dir().join("file"), Some(3_000_000), Some(34)).unwrap();
    fs::create_dir(place.dir().join("in")).unwrap();
    let tar = tar_out(&files, &place.path("file"), b"file", false).await;
    for (owner, expected) in [(None, (3_000_000, 34)), (Some((5, 6)), (5, 6))] {
        let options = TarInOptions { owner, keep_kinds: false };
        tar_in(&files, &place.path("in"), &tar, options).await.unwrap();
        let there = fs::metadata(place.dir().join("in/file")).unwrap();
        assert_eq!((there.uid(), there.gid()), expected);
    }
    // Devices too, which only root may make.
    let tar = tar_out(&files, b"/dev/null", b"null", false).await;
    if tar_in(&files, &place.path("in"), &tar, TarInOptions::default()).await.is_ok() {
        let (ours, theirs) =
            (fs::metadata(place.dir().join("in/null")).unwrap(), fs::metadata("/dev/null").unwrap());
        assert!(ours.file_type().is_char_device());
        assert_eq!((ours.rdev(), ours.mode()), (theirs.rdev(), theirs.mode()));
    }
}

#[tokio::test]
async fn the_kernels_own_file_systems_are_not_packed() {
    let place = Place::new();
    let files = place.files().await;
    // Whatever the size of /proc, it would never end well.
    let mut reader = files.tar_out(b"/", b"root", false).await.unwrap();
    let mut some = vec![0; 1 << 20];
    within(reader.read_exact(&mut some)).await.unwrap();
    drop(reader);
    // And the agent is free again.
    files.write(place.path("file"), WriteOptions::default()).await.unwrap().finish().await.unwrap();
}
