//! What can be asked of the guest's files by name.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use cellule_protocol::client::Exit;
use cellule_protocol::client::files::{FileError, FileKind, Files};
use rustix::fs::{CWD, FileType, Mode, OFlags, mkdirat, mknodat, openat};

use crate::support::{AgentProcess, run, shell, within};

/// An agent, and a directory for it to work in.
pub(crate) struct Place {
    pub(crate) agent: AgentProcess,
    dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { agent: AgentProcess::start(), dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) async fn files(&self) -> Files {
        self.agent.session().await.files()
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn path(&self, name: impl AsRef<OsStr>) -> Vec<u8> {
        self.dir.path().join(name.as_ref()).into_os_string().as_bytes().to_vec()
    }

    pub(crate) fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> Vec<u8> {
        fs::write(self.dir.path().join(name), contents).unwrap();
        self.path(name)
    }
}

/// That it failed as the guest's kernel has it.
#[track_caller]
pub(crate) fn assert_kind<T: std::fmt::Debug>(result: Result<T, FileError>, expected: io::ErrorKind) {
    match result {
        Err(FileError::Failed { kind, .. }) if kind == expected => {}
        other => panic!("{expected} expected: {other:?}"),
    }
}

#[tokio::test]
async fn each_kind_of_file_is_told_apart() {
    let place = Place::new();
    let files = place.files().await;
    let file = place.write("file", "12345");
    fs::set_permissions(place.dir().join("file"), fs::Permissions::from_mode(0o4750)).unwrap();
    symlink("file", place.dir().join("link")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(place.dir().join("socket")).unwrap();
    mknodat(CWD, place.dir().join("fifo"), FileType::Fifo, 0o600.into(), 0).unwrap();

    let info = files.stat(&file, false).await.unwrap();
    let there = fs::metadata(place.dir().join("file")).unwrap();
    assert_eq!((info.kind, info.size, info.mode), (FileKind::Regular, 5, 0o4750));
    assert_eq!((info.uid, info.gid, info.inode, info.links), (there.uid(), there.gid(), there.ino(), 1));
    assert_eq!(info.modified, there.modified().unwrap());
    let link = files.stat(place.path("link"), false).await.unwrap();
    assert_eq!((link.kind, link.target.as_deref()), (FileKind::Symlink, Some(&b"file"[..])));
    assert_eq!(files.stat(place.path("link"), true).await.unwrap().inode, there.ino());
    for (path, kind) in [
        (place.path(""), FileKind::Directory),
        (place.path("socket"), FileKind::Socket),
        (place.path("fifo"), FileKind::Fifo),
        (b"/dev/null".to_vec(), FileKind::CharacterDevice),
    ] {
        assert_eq!(files.stat(path, false).await.unwrap().kind, kind);
    }
    assert_kind(files.stat(place.path("none"), true).await, io::ErrorKind::NotFound);
    assert_kind(files.stat(place.path("file/x"), true).await, io::ErrorKind::NotADirectory);
}

#[tokio::test]
async fn a_refusal_has_the_kernels_number_and_names_the_path() {
    let place = Place::new();
    let error = place.files().await.stat(place.path("none"), true).await.unwrap_err();
    let FileError::Failed { errno, message, .. } = &error else { panic!("{error:?}") };
    assert_eq!(*errno, Some(2));
    assert!(message.ends_with("/none: No such file or directory"), "{message}");
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::NotFound);
}

#[tokio::test]
async fn what_is_no_path_is_refused() {
    let place = Place::new();
    let files = place.files().await;
    for bad in [&b""[..], b"relative", b"./x", b"/a\0b"] {
        assert_kind(files.stat(bad, true).await, io::ErrorKind::InvalidInput);
    }
    assert_kind(files.stat(&[b'/'; 5000], true).await, io::ErrorKind::InvalidFilename);
    assert_kind(files.set_mode(place.path(""), 0o10000).await, io::ErrorKind::InvalidInput);
    assert!(place.dir().exists());
}

#[tokio::test]
async fn existence_is_that_of_what_a_link_leads_to() {
    let place = Place::new();
    let files = place.files().await;
    symlink("nowhere", place.dir().join("dangling")).unwrap();
    let file = place.write("file", "");
    assert!(files.exists(&file).await.unwrap());
    assert!(files.exists(place.path("")).await.unwrap());
    assert!(!files.exists(place.path("dangling")).await.unwrap());
    assert!(!files.exists(place.path("file/beneath")).await.unwrap());
}

#[tokio::test]
async fn a_listing_has_every_entry_whatever_its_name() {
    let place = Place::new();
    let files = place.files().await;
    let mut expected: Vec<Vec<u8>> = (0..3000).map(|at| format!("entry-{at}").into_bytes()).collect();
    expected.extend([b"\xFF\xFE".to_vec(), b"new\nline".to_vec(), b"...".to_vec(), vec![b'x'; 255]]);
    for name in &expected {
        fs::write(place.dir().join(OsStr::from_bytes(name)), "").unwrap();
    }
    symlink("/where/it/leads", place.dir().join("link")).unwrap();
    expected.push(b"link".to_vec());
    let listed = files.list(place.path("")).await.unwrap();
    let link = listed.iter().find(|entry| entry.name == b"link").unwrap();
    assert_eq!(link.info.target.as_deref(), Some(&b"/where/it/leads"[..]));
    let mut names: Vec<_> = listed.into_iter().map(|entry| entry.name).collect();
    names.sort();
    expected.sort();
    assert_eq!(names, expected);
    assert_kind(files.list(place.path("none")).await, io::ErrorKind::NotFound);
    assert_kind(files.list(place.path("link")).await, io::ErrorKind::NotFound);
    assert_kind(files.list(place.path("entry-1")).await, io::ErrorKind::NotADirectory);
}

#[tokio::test]
async fn a_listing_that_is_given_up_leaves_the_session_as_it_was() {
    let place = Place::new();
    let files = place.files().await;
    for at in 0..2000 {
        place.write(&format!("{at}"), "");
    }
    let mut listing = files.list_stream(place.path("")).await.unwrap();
    assert!(listing.next().await.unwrap().is_ok());
    drop(listing);
    assert_eq!(files.list(place.path("")).await.unwrap().len(), 2000);
}

#[tokio::test]
async fn directories_are_made_with_their_parents_and_mode() {
    let place = Place::new();
    let files = place.files().await;
    assert_kind(files.make_dir(place.path("a/b"), false, None).await, io::ErrorKind::NotFound);
    files.make_dir(place.path("a/b/c"), true, Some(0o1777)).await.unwrap();
    files.make_dir(place.path("a/b/c"), true, None).await.unwrap();
    let mode = |name: &str| fs::metadata(place.dir().join(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode("a/b/c"), mode("a/b") & 0o700), (0o1777, 0o700));
    assert_kind(files.make_dir(place.path("a"), false, None).await, io::ErrorKind::AlreadyExists);
    place.write("file", "");
    assert_kind(files.make_dir(place.path("file"), true, None).await, io::ErrorKind::AlreadyExists);
    assert_kind(files.make_dir(place.path("file/x"), true, None).await, io::ErrorKind::NotADirectory);
}

#[tokio::test]
async fn removal_takes_links_and_not_what_they_lead_to() {
    let place = Place::new();
    let files = place.files().await;
    fs::create_dir_all(place.dir().join("kept/inside")).unwrap();
    fs::create_dir_all(place.dir().join("tree/deep")).unwrap();
    symlink("../kept", place.dir().join("tree/link")).unwrap();
    symlink(place.dir().join("kept"), place.dir().join("tree/deep/absolute")).unwrap();
    symlink("kept", place.dir().join("top")).unwrap();
    files.remove(place.path("top"), true).await.unwrap();
    files.remove(place.path("tree"), true).await.unwrap();
    assert!(!place.dir().join("tree").exists() && place.dir().join("kept/inside").exists());
    assert_kind(files.remove(place.path("tree"), true).await, io::ErrorKind::NotFound);
    assert_kind(files.remove(place.path("kept"), false).await, io::ErrorKind::DirectoryNotEmpty);
    files.remove(place.path("kept/inside/"), false).await.unwrap();
    for root in [&b"/"[..], b"//", b"/.", b"/..", b"/tmp/.."] {
        assert_kind(files.remove(root, true).await, io::ErrorKind::InvalidInput);
    }
}

#[tokio::test]
async fn a_tree_deeper_than_any_path_is_removed() {
    let place = Place::new();
    // Longer than what a path can name, and deeper than what may be open.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut directory = rustix::fs::open(place.dir(), flags, Mode::empty()).unwrap();
    for _depth in 0..3000 {
        mkdirat(&directory, "d", 0o700.into()).unwrap();
        directory = openat(&directory, "d", flags, Mode::empty()).unwrap();
        openat(&directory, "file", OFlags::WRONLY | OFlags::CREATE, 0o600.into()).unwrap();
    }
    let session = place.agent.session().await;
    within(session.files().remove(place.path("d"), true)).await.unwrap();
    assert!(!place.dir().join("d").exists());
}

#[tokio::test]
async fn a_large_removal_delays_no_program() {
    let place = Place::new();
    let session = place.agent.session().await;
    let script = format!(
        "cd {} && for d in $(seq 200); do mkdir d$d && (cd d$d && touch $(seq 100)) || exit 1; done",
        place.dir().display()
    );
    assert_eq!(run(&session, shell(&script)).await.0.exit, Exit::Code(0));
    let files = session.files();
    let path = place.path("");
    let removal = tokio::spawn(async move { files.remove(path, true).await });
    let mut longest = Duration::ZERO;
    let mut during = 0;
    while !removal.is_finished() {
        let begun = Instant::now();
        assert_eq!(run(&session, shell("exit 0")).await.0.exit, Exit::Code(0));
        longest = longest.max(begun.elapsed());
        during += 1;
    }
    removal.await.unwrap().unwrap();
    assert!(during > 3, "20 000 files were gone at once: {during}");
    assert!(longest < Duration::from_secs(2), "a program took {longest:?}");
    assert!(!place.dir().exists());
}

#[tokio::test]
async fn a_directory_that_becomes_a_link_while_it_is_removed_leads_nowhere() {
    let place = Place::new();
    let files = place.files().await;
    let outside = tempfile::tempdir().unwrap();
    for at in 0..500 {
        fs::write(outside.path().join(format!("{at}")), "").unwrap();
    }
    for round in 0..20 {
        let tree = place.dir().join("tree");
        for at in 0..20 {
            fs::create_dir_all(tree.join(format!("{at}/sub"))).unwrap();
        }
        let swapper = {
            let (tree, outside) = (tree.clone(), outside.path().to_path_buf());
            tokio::task::spawn_blocking(move || {
                for at in 0..20 {
                    let name = tree.join(format!("{at}"));
                    let moved = tree.join(format!("{at}-moved"));
                    // It may be gone already.
                    if fs::rename(&name, &moved).is_ok() {
                        let _raced = symlink(&outside, &name);
                    }
                }
            })
        };
        let _raced = within(files.remove(place.path("tree"), true)).await;
        swapper.await.unwrap();
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 500, "in round {round}");
        let _rest = within(files.remove(place.path("tree"), true)).await;
    }
}

#[tokio::test]
async fn renaming_replaces_only_if_it_may() {
    let place = Place::new();
    let files = place.files().await;
    let (old, new) = (place.write("old", "old"), place.write("new", "new"));
    assert_kind(files.rename(&old, &new, true).await, io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read(place.dir().join("new")).unwrap(), b"new");
    files.rename(&old, &new, false).await.unwrap();
    assert_eq!(fs::read(place.dir().join("new")).unwrap(), b"old");
    assert_kind(files.rename(&old, &new, false).await, io::ErrorKind::NotFound);
}

#[tokio::test]
async fn a_copied_tree_is_the_same_in_all_that_an_inode_has() {
    let place = Place::new();
    let files = place.files().await;
    let from = place.dir().join("from");
    fs::create_dir_all(from.join("sub/empty")).unwrap();
    fs::write(from.join("sub/file"), vec![7; 300_000]).unwrap();
    fs::hard_link(from.join("sub/file"), from.join("other-name")).unwrap();
    symlink("sub/file", from.join("link")).unwrap();
    mknodat(CWD, from.join("fifo"), FileType::Fifo, 0o600.into(), 0).unwrap();
    fs::write(from.join(OsStr::from_bytes(b"\xFF")), "").unwrap();
    fs::set_permissions(from.join("sub/file"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::set_permissions(from.join("sub/empty"), fs::Permissions::from_mode(0o1711)).unwrap();
    let past = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    fs::File::open(from.join("sub")).unwrap().set_modified(past).unwrap();

    assert_kind(files.copy(place.path("from"), place.path("to"), false).await, io::ErrorKind::IsADirectory);
    files.copy(place.path("from"), place.path("to"), true).await.unwrap();
    let to = place.dir().join("to");
    assert_eq!(fs::read(to.join("other-name")).unwrap(), vec![7; 300_000]);
    let meta = |name: &str| fs::symlink_metadata(to.join(name)).unwrap();
    assert_eq!(meta("sub/file").ino(), meta("other-name").ino());
    assert_eq!((meta("sub/file").mode() & 0o7777, meta("sub/empty").mode() & 0o7777), (0o640, 0o1711));
    assert_eq!(meta("sub").modified().unwrap(), past);
    assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("sub/file"));
    assert!(meta("fifo").file_type().is_fifo() && to.join(OsStr::from_bytes(b"\xFF")).exists());

    // Once more on top of it, and into itself.
    files.copy(place.path("from"), place.path("to"), true).await.unwrap();
    assert_eq!(meta("sub/file").ino(), meta("other-name").ino());
    assert_kind(
        files.copy(place.path("from"), place.path("from/sub/in"), true).await,
        io::ErrorKind::InvalidInput,
    );
    assert_kind(files.copy(place.path("from"), place.path("from"), true).await, io::ErrorKind::InvalidInput);
}

#[tokio::test]
async fn modes_owners_and_links_are_set_as_asked() {
    let place = Place::new();
    let files = place.files().await;
    let file = place.write("file", "");
    files.set_mode(&file, 0o2640).await.unwrap();
    let meta = || fs::metadata(place.dir().join("file")).unwrap();
    assert_eq!(meta().mode() & 0o7777, 0o2640);
    let (uid, gid) = (meta().uid(), meta().gid());
    files.set_owner(&file, &format!("{uid}:{gid}"), false).await.unwrap();
    files.set_owner(&file, &format!(":{gid}"), true).await.unwrap();
    if rustix::process::geteuid().is_root() {
        files.set_owner(&file, "daemon", false).await.unwrap();
        assert_ne!((meta().uid(), meta().gid()), (uid, u32::MAX));
        assert_eq!(meta().gid(), gid, "a user alone leaves the group");
    }
    assert_kind(files.set_owner(&file, "no-such-user", false).await, io::ErrorKind::InvalidInput);
    assert_kind(files.set_owner(&file, ":", false).await, io::ErrorKind::InvalidInput);

    files.symlink(b"\xFF/../target", place.path("link")).await.unwrap();
    assert_eq!(files.read_link(place.path("link")).await.unwrap(), b"\xFF/../target");
    assert_kind(files.symlink("x", place.path("link")).await, io::ErrorKind::AlreadyExists);
    assert_kind(files.read_link(&file).await, io::ErrorKind::InvalidInput);
}
