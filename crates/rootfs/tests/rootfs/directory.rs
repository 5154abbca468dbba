//! A directory of the host as a layer.

use std::fs::{self, File, Permissions};
use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, SystemTime};

use cellule_rootfs::{Error, Fault, Limits, build_from_directory, tar_from_directory};

use crate::support::{Image, Kind, image};

fn from_directory(path: &Path) -> Result<(cellule_rootfs::Built, File), Error> {
    let mut out = tempfile::tempfile().unwrap();
    let built = build_from_directory(path, &mut out, &Limits::default(), &mut |_| ControlFlow::Continue(()))?;
    Ok((built, out))
}

fn tree() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    fs::create_dir_all(at("d/e")).unwrap();
    fs::write(at("d/file"), "x".repeat(300_000)).unwrap();
    fs::write(at("d/e/small"), "small").unwrap();
    fs::write(at("empty"), "").unwrap();
    fs::hard_link(at("d/file"), at("d/e/linked")).unwrap();
    symlink("/etc/passwd", at("absolute")).unwrap();
    symlink("../../..", at("d/up")).unwrap();
    fs::set_permissions(at("d/e/small"), Permissions::from_mode(0o4751)).unwrap();
    fs::set_permissions(at("d"), Permissions::from_mode(0o1700)).unwrap();
    fs::write(at(&"long".repeat(60)), "long").unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    File::open(at("d/e/small")).unwrap().set_modified(time).unwrap();
    let before = SystemTime::UNIX_EPOCH - Duration::from_millis(1_250);
    File::open(at("empty")).unwrap().set_modified(before).unwrap();
    root
}

#[test]
fn all_that_is_in_a_directory_comes_back() {
    let root = tree();
    let (built, out) = from_directory(root.path()).unwrap();
    let image = Image::read(&out, &built);
    let long = "long".repeat(60);
    let expected = ["absolute", "d", "d/e", "d/e/linked", "d/e/small", "d/file", "d/up", "empty", &long];
    assert_eq!(image.paths(), expected);
    for path in ["", "d", "d/e", "d/e/small", "d/file", "empty", &long] {
        let (node, on_disk) = (image.node(path), fs::symlink_metadata(root.path().join(path)).unwrap());
        assert_eq!((node.uid, node.gid), (on_disk.uid(), on_disk.gid()), "{path}");
        assert_eq!(u32::from(node.mode), on_disk.mode() & 0o7777, "{path}");
        assert_eq!(
            (node.mtime.0, i64::from(node.mtime.1)),
            (on_disk.mtime(), on_disk.mtime_nsec()),
            "{path}"
        );
    }
    assert_eq!(image.text("d/file"), "x".repeat(300_000));
    assert_eq!(image.node("d/file").nid, image.node("d/e/linked").nid);
    assert_eq!(image.node("d/up").kind, Kind::Symlink("../../..".into()));
    assert_eq!(image.node("absolute").kind, Kind::Symlink("/etc/passwd".into()));
    assert_eq!(image.node("empty").mtime, (-2, 750_000_000));
}

#[test]
fn the_tar_of_a_directory_is_a_layer_of_the_same_image() {
    let root = tree();
    let mut tar = Vec::new();
    tar_from_directory(root.path(), &mut tar).unwrap();
    let (built, _) = from_directory(root.path()).unwrap();
    assert_eq!(built.diff_ids, [cellule_rootfs::Digest::of(&tar)]);
    assert_eq!(image(&[tar]).paths().len() + 1, usize::try_from(built.entries).unwrap());
}

#[test]
fn sockets_are_left_out_and_fifos_kept() {
    let root = tempfile::tempdir().unwrap();
    let _listener = UnixListener::bind(root.path().join("socket")).unwrap();
    let fifo = root.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    let (built, out) = from_directory(root.path()).unwrap();
    let image = Image::read(&out, &built);
    assert_eq!(image.paths(), ["fifo"]);
    assert_eq!(image.node("fifo").kind, Kind::Fifo);
}

#[test]
fn attributes_of_users_come_along() {
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = root.path().join("file");
    fs::write(&file, "").unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    if let Err(error) = rustix::fs::setxattr(&file, "user.name", b"a\nvalue", flags) {
        assert_eq!(error, rustix::io::Errno::NOTSUP);
        println!("skipped: the file system of the target directory has no user attributes");
        return;
    }
    rustix::fs::setxattr(root.path(), "user.root", b"", flags).unwrap();
    let (built, out) = from_directory(root.path()).unwrap();
    let image = Image::read(&out, &built);
    assert_eq!(image.node("file").xattrs["user.name"], b"a\nvalue");
    assert_eq!(image.node("").xattrs["user.root"], b"");
}

#[test]
fn a_name_that_means_a_whiteout_is_refused() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join(".wh.x"), "").unwrap();
    assert!(
        matches!(tar_from_directory(root.path(), Vec::new()), Err(Error::ReservedName { path }) if path.ends_with(".wh.x"))
    );
    // Through the pipe the reason is a source of the fault.
    match from_directory(root.path()) {
        Err(Error::Layer { source: Fault::Read(source), .. }) => {
            assert!(source.to_string().contains(".wh.x"), "{source}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_no_directory_is_refused() {
    let root = tree();
    for path in ["missing", "empty"] {
        let path = root.path().join(path);
        assert!(
            matches!(tar_from_directory(&path, Vec::new()), Err(Error::Directory { path: p, .. }) if p == path)
        );
    }
}

#[test]
fn a_build_that_stops_early_leaves_no_thread_behind() {
    let root = tempfile::tempdir().unwrap();
    File::create(root.path().join("large")).unwrap().set_len(64 << 20).unwrap();
    let mut out = tempfile::tempfile().unwrap();
    let result =
        build_from_directory(root.path(), &mut out, &Limits::default(), &mut |_| ControlFlow::Break(()));
    assert!(matches!(result, Err(Error::Cancelled)));
    let is_ours = |task: fs::DirEntry| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name == "rootfs-tar\n")
    };
    let end = std::time::Instant::now() + Duration::from_secs(60);
    while fs::read_dir("/proc/self/task").unwrap().any(|task| is_ours(task.unwrap())) {
        assert!(std::time::Instant::now() < end, "a thread still waits");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_failing_writer_is_reported_as_the_output() {
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    assert!(matches!(tar_from_directory(tree().path(), Full), Err(Error::Output { .. })));
}
