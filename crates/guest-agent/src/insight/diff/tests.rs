use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{CWD, XattrFlags, makedev, mknodat, setxattr};

use super::*;

/// Any program may set this one, where its file system has such at all.
const MARK: &str = "user.test.opaque";

struct All(Vec<(Kind, String)>);

impl Sink for All {
    fn take(&mut self, difference: Difference) -> Result<(), Unwanted> {
        self.0.push((difference.kind(), String::from_utf8(difference.path).unwrap()));
        Ok(())
    }
}

struct Overlay {
    dir: tempfile::TempDir,
}

impl Overlay {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("upper")).unwrap();
        fs::create_dir(dir.path().join("lower")).unwrap();
        Self { dir }
    }

    fn put(&self, path: &str) -> &Self {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
        self
    }

    fn remove(&self, path: &str) -> &Self {
        let path = self.dir.path().join("upper").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), makedev(0, 0)).unwrap();
        self
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.dir.path().join(path)
    }

    fn walk(&self, skip: &[&str]) -> Vec<(Kind, String)> {
        let open = |side: &Path| OwnedFd::from(fs::File::open(side).unwrap());
        let sides = Sides { upper: open(&self.path("upper")), lower: open(&self.path("lower")) };
        let skip: Vec<_> = skip.iter().map(|path| path.as_bytes().to_vec()).collect();
        let mut all = All(Vec::new());
        walk(&sides, &skip, MARK, &mut all).unwrap();
        all.0
    }
}

fn told(differences: &[(Kind, &str)]) -> Vec<(Kind, String)> {
    differences.iter().map(|(kind, path)| (*kind, (*path).to_owned())).collect()
}

#[test]
fn what_was_added_changed_and_deleted_is_told_with_its_directories() {
    let overlay = Overlay::new();
    overlay.put("lower/etc/passwd").put("lower/etc/group").put("lower/bin/sh").put("lower/var/log/x");
    overlay.put("upper/etc/passwd").put("upper/new/deep/file").remove("etc/group").remove("var");
    symlink("/nowhere", overlay.path("upper/link")).unwrap();
    let expected = [
        (Kind::Changed, "/etc"),
        (Kind::Deleted, "/etc/group"),
        (Kind::Changed, "/etc/passwd"),
        (Kind::Added, "/link"),
        (Kind::Added, "/new"),
        (Kind::Added, "/new/deep"),
        (Kind::Added, "/new/deep/file"),
        (Kind::Deleted, "/var"),
    ];
    assert_eq!(overlay.walk(&[]), told(&expected));
}

#[test]
fn a_directory_that_was_only_copied_up_is_no_difference() {
    let overlay = Overlay::new();
    overlay.put("lower/a/b/c").put("lower/d/e");
    fs::create_dir_all(overlay.path("upper/a/b")).unwrap();
    fs::create_dir_all(overlay.path("upper/d")).unwrap();
    fs::set_permissions(overlay.path("upper/d"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(overlay.walk(&[]), told(&[(Kind::Changed, "/d")]));
}

#[test]
fn what_the_agent_itself_put_is_left_out_with_the_directory_for_it() {
    let overlay = Overlay::new();
    overlay.put("lower/etc/passwd").put("upper/etc/hosts").put("upper/proc/x").put("upper/tmp/made");
    fs::create_dir(overlay.path("upper/run")).unwrap();
    let expected = [(Kind::Added, "/tmp"), (Kind::Added, "/tmp/made")];
    assert_eq!(overlay.walk(&["/etc/hosts", "/proc"]), told(&expected));
}

#[test]
fn a_directory_that_hides_the_one_below_tells_what_is_gone() {
    let overlay = Overlay::new();
    overlay.put("lower/d/gone").put("lower/d/again").put("upper/d/again").put("upper/d/new");
    overlay.put("lower/d/sub/old").put("upper/d/sub/young");
    setxattr(overlay.path("upper/d"), MARK, b"y", XattrFlags::empty()).unwrap();
    let expected = [
        (Kind::Changed, "/d"),
        (Kind::Deleted, "/d/gone"),
        (Kind::Changed, "/d/again"),
        (Kind::Added, "/d/new"),
        (Kind::Changed, "/d/sub"),
        (Kind::Deleted, "/d/sub/old"),
        (Kind::Added, "/d/sub/young"),
    ];
    assert_eq!(overlay.walk(&[]), told(&expected));
}

#[test]
fn a_link_in_the_place_of_a_directory_is_not_followed() {
    let overlay = Overlay::new();
    overlay.put("lower/d/file").put("elsewhere/secret");
    symlink(overlay.path("elsewhere"), overlay.path("upper/d")).unwrap();
    assert_eq!(overlay.walk(&[]), told(&[(Kind::Changed, "/d")]));
}

#[test]
fn a_tree_deeper_than_any_path_ends_where_paths_do() {
    let overlay = Overlay::new();
    let name = "x".repeat(200);
    let mut at = OwnedFd::from(fs::File::open(overlay.path("upper")).unwrap());
    for _ in 0..40 {
        rustix::fs::mkdirat(&at, &name, Mode::from_raw_mode(0o755)).unwrap();
        at = openat(&at, &name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    let found = overlay.walk(&[]);
    assert_eq!(found.len(), 20);
    assert!(found.iter().all(|(_, path)| path.len() < MAX_PATH));
}
