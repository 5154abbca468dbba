//! Archives of honest guests and of hostile ones.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use tar::{EntryType, Header};

use super::*;

/// A directory of the host with a neighbour that no archive may touch.
struct Scene {
    dir: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("into")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/precious"), "precious").unwrap();
        Self { dir }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join("into").join(path)
    }

    fn outside(&self) -> PathBuf {
        self.dir.path().join("outside")
    }

    fn unpack(&self, name: Option<&str>, keep: Keep, archive: &[u8]) -> Result<Unpacked, UnpackError> {
        let place = Place { directory: self.path("").into(), name: name.map(Into::into) };
        let unpacked = unpack(archive, &place, keep);
        assert_eq!(fs::read_to_string(self.outside().join("precious")).unwrap(), "precious");
        assert_eq!(fs::read_dir(self.outside()).unwrap().count(), 1);
        assert_eq!(fs::read_dir(self.dir.path()).unwrap().count(), 2);
        unpacked
    }

    /// What an archive is refused for, at which path.
    fn refusal(&self, name: Option<&str>, archive: Tar) -> (String, EntryError) {
        match self.unpack(name, Keep::Own, &archive.end()) {
            Err(UnpackError::Entry(path, error)) => {
                (path.strip_prefix(self.path("")).unwrap().display().to_string(), error)
            }
            other => panic!("{other:?}"),
        }
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    fn mode(&self, path: &str) -> u32 {
        fs::symlink_metadata(self.path(path)).unwrap().mode() & 0o7777
    }
}

/// Writes archives, with names that no honest writer would write.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn entry(mut self, kind: EntryType, path: &str, link: &str, mode: u32, contents: &[u8]) -> Self {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(1_000_000_000);
        header.set_uid(12345);
        header.set_gid(54321);
        header.set_size(contents.len() as u64);
        let fields = header.as_old_mut();
        fields.name[..path.len()].copy_from_slice(path.as_bytes());
        fields.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(contents);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn dir(self, path: &str) -> Self {
        self.entry(EntryType::Directory, path, "", 0o755, b"")
    }

    fn file(self, path: &str, contents: &str) -> Self {
        self.entry(EntryType::Regular, path, "", 0o644, contents.as_bytes())
    }

    fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, path, target, 0o777, b"")
    }

    fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Link, path, target, 0o644, b"")
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

#[test]
fn a_tree_comes_with_permissions_times_and_links() {
    let scene = Scene::new();
    let archive = Tar::default()
        .entry(EntryType::Directory, "d/", "", 0o555, b"")
        .entry(EntryType::Regular, "d/program", "", 0o751, b"#!")
        .symlink("d/link", "/etc/passwd")
        .hard_link("d/same", "d/program")
        .entry(EntryType::Fifo, "d/pipe", "", 0o622, b"")
        .dir("d/below")
        .file("d/below/f", "f")
        .file("d/last", "")
        .end();
    let unpacked = scene.unpack(Some("d"), Keep::Own, &archive).unwrap();
    assert_eq!(unpacked, Unpacked { entries: 8, bytes: 3 });
    assert_eq!(["d", "d/program", "d/pipe", "d/below"].map(|p| scene.mode(p)), [0o555, 0o751, 0o622, 0o755]);
    for path in ["d", "d/program", "d/pipe", "d/link", "d/below", "d/below/f"] {
        assert_eq!(fs::symlink_metadata(scene.path(path)).unwrap().mtime(), 1_000_000_000, "{path}");
    }
    assert_eq!(fs::read_link(scene.path("d/link")).unwrap(), Path::new("/etc/passwd"));
    assert_eq!(fs::metadata(scene.path("d/same")).unwrap().nlink(), 2);
    assert!(fs::metadata(scene.path("d/pipe")).unwrap().file_type().is_fifo());
    fs::set_permissions(scene.path("d"), Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn contents_go_into_a_directory_that_stays_as_it_was() {
    let scene = Scene::new();
    fs::set_permissions(scene.path(""), Permissions::from_mode(0o700)).unwrap();
    fs::create_dir(scene.path("there")).unwrap();
    fs::set_permissions(scene.path("there"), Permissions::from_mode(0o711)).unwrap();
    let archive = || Tar::default().dir("./").file("./a", "1").dir("./there").file("./there/b", "2").end();
    scene.unpack(None, Keep::Own, &archive()).unwrap();
    assert_eq!((scene.text("a"), scene.text("there/b")), ("1".into(), "2".into()));
    assert_eq!((scene.mode(""), scene.mode("there")), (0o700, 0o711));
    scene.unpack(None, Keep::All, &archive()).unwrap();
    assert_eq!((scene.mode(""), scene.mode("there")), (0o755, 0o755));
}

#[test]
fn missing_parents_are_made() {
    let scene = Scene::new();
    scene.unpack(Some("a"), Keep::Own, &Tar::default().file("a/b/c", "1").file("a/b/d", "2").end()).unwrap();
    assert_eq!((scene.text("a/b/c"), scene.text("a/b/d")), ("1".into(), "2".into()));
}

#[test]
fn paths_that_lead_out_are_refused_or_taken_from_the_directory() {
    for path in ["../outside/x", "a/../../outside/x", "..", "/../outside/x"] {
        let scene = Scene::new();
        let refused = scene.unpack(None, Keep::Own, &Tar::default().file(path, "x").end());
        assert!(matches!(refused, Err(UnpackError::Archive(_))), "{path}");
    }
    let scene = Scene::new();
    let absolute = scene.outside().join("x");
    let archive = Tar::default().file(absolute.to_str().unwrap(), "x").end();
    scene.unpack(None, Keep::Own, &archive).unwrap();
    assert_eq!(scene.text(&absolute.to_str().unwrap()[1..]), "x");
}

#[test]
fn another_name_than_the_one_asked_for_is_refused() {
    for path in ["other", ".bashrc", "name.x", "./", "nam"] {
        let scene = Scene::new();
        let (at, error) = scene.refusal(Some("name"), Tar::default().file("name", "1").dir(path));
        assert!(matches!(error, EntryError::Elsewhere(_)), "{error}");
        assert_eq!(at, path.trim_start_matches("./"));
        assert_eq!(fs::read_dir(scene.path("")).unwrap().count(), 1);
    }
}

#[test]
fn a_file_through_a_link_is_refused_and_lands_nowhere() {
    let scene = Scene::new();
    let outside = scene.outside();
    let outside = outside.to_str().unwrap();
    let through = Tar::default().symlink("out", outside).file("out/x", "x");
    assert!(matches!(scene.refusal(None, through), (_, EntryError::ThroughLink)));
    let through = Tar::default().symlink("out", "../outside").dir("out/x");
    assert!(matches!(scene.refusal(None, through), (_, EntryError::ThroughLink)));
    let through = Tar::default().dir("d").symlink("d/out", "..").file("d/out/d/x", "x");
    assert!(matches!(scene.refusal(None, through), (_, EntryError::ThroughLink)));
    // A directory does not merge with what a link leads to.
    let onto = Tar::default().symlink("out", "../outside").dir("out").file("out/x", "x");
    assert!(matches!(scene.refusal(None, onto), (_, EntryError::OntoFile)));
    // Nor is a link of this host's own followed.
    symlink(scene.outside(), scene.path("mine")).unwrap();
    assert!(matches!(scene.refusal(None, Tar::default().file("mine/x", "x")), (_, EntryError::ThroughLink)));
}

#[test]
fn a_link_in_a_files_place_is_replaced_and_not_written_through() {
    let scene = Scene::new();
    let archive = Tar::default().symlink("f", "../outside/precious").file("f", "hostile").end();
    scene.unpack(None, Keep::Own, &archive).unwrap();
    assert_eq!(scene.text("f"), "hostile");
    symlink(scene.outside().join("precious"), scene.path("g")).unwrap();
    fs::hard_link(scene.outside().join("precious"), scene.path("h")).unwrap();
    scene.unpack(None, Keep::Own, &Tar::default().file("g", "1").file("h", "2").end()).unwrap();
    assert_eq!((scene.text("g"), scene.text("h")), ("1".into(), "2".into()));
}

#[test]
fn hard_links_name_files_of_the_archive_alone() {
    let scene = Scene::new();
    fs::write(scene.path("mine"), "mine").unwrap();
    symlink("../outside", scene.path("out")).unwrap();
    for target in ["mine", "missing", "self", "d", "d/missing"] {
        let archive = Tar::default().dir("d").hard_link("self", target);
        assert!(matches!(scene.refusal(None, archive), (_, EntryError::HardLink(_))), "{target}");
    }
    let refused = scene.refusal(None, Tar::default().hard_link("l", "out/precious"));
    assert!(matches!(refused, (_, EntryError::ThroughLink)));
    let refused = scene.refusal(Some("n"), Tar::default().dir("n").hard_link("n/l", "mine"));
    assert!(matches!(refused, (_, EntryError::HardLink(_))));
    let archive = Tar::default().file("a", "").hard_link("l", "../outside/precious").end();
    assert!(matches!(scene.unpack(None, Keep::Own, &archive), Err(UnpackError::Archive(_))));
    assert_eq!(fs::metadata(scene.path("mine")).unwrap().nlink(), 1);
}

#[test]
fn directories_and_files_never_take_each_others_place() {
    let scene = Scene::new();
    fs::create_dir(scene.path("d")).unwrap();
    fs::write(scene.path("f"), "mine").unwrap();
    for archive in [
        Tar::default().file("d", "x"),
        Tar::default().symlink("d", "x"),
        Tar::default().file("a", "").hard_link("d", "a"),
        Tar::default().entry(EntryType::Fifo, "d", "", 0o644, b""),
    ] {
        assert!(matches!(scene.refusal(None, archive), (path, EntryError::OntoDirectory) if path == "d"));
    }
    assert!(matches!(scene.refusal(None, Tar::default().dir("f")), (_, EntryError::OntoFile)));
    assert!(matches!(scene.refusal(None, Tar::default().file("f/x", "")), (_, EntryError::ThroughFile)));
    assert_eq!(scene.text("f"), "mine");
}

#[test]
fn devices_are_refused() {
    let scene = Scene::new();
    for kind in [EntryType::Char, EntryType::Block] {
        let archive = Tar::default().entry(kind, "null", "", 0o666, b"");
        assert!(matches!(scene.refusal(None, archive), (_, EntryError::Device)));
    }
    assert_eq!(fs::read_dir(scene.path("")).unwrap().count(), 0);
}

#[test]
fn setuid_and_owners_need_root_and_minus_a() {
    let root = rustix::process::geteuid().is_root();
    for keep in [Keep::Own, Keep::All] {
        let scene = Scene::new();
        let archive = Tar::default()
            .entry(EntryType::Directory, "d", "", 0o3777, b"")
            .entry(EntryType::Regular, "d/su", "", 0o6755, b"x")
            .end();
        scene.unpack(Some("d"), keep, &archive).unwrap();
        let kept = root && keep == Keep::All;
        assert_eq!(scene.mode("d/su"), if kept { 0o6755 } else { 0o755 });
        assert_eq!(scene.mode("d"), if kept { 0o3777 } else { 0o1777 });
        let owner = fs::metadata(scene.path("d/su")).unwrap();
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        assert_eq!((owner.uid(), owner.gid()), if kept { (12345, 54321) } else { own });
    }
}

#[test]
fn a_cut_archive_is_an_error_and_leaves_no_half_of_a_file() {
    let scene = Scene::new();
    let archive = Tar::default().file("whole", "whole").file("half", &"x".repeat(2000)).end();
    for length in [0, 100, 512, 1023, 1024, 2000, 3000, 3584, 4095] {
        let cut = scene.unpack(None, Keep::Own, &archive[..length]);
        assert!(matches!(cut, Err(UnpackError::Archive(_))), "{length}: {cut:?}");
        assert!(!scene.path("half").exists() || length >= 3584, "{length}");
    }
    assert_eq!(scene.text("whole"), "whole");
    scene.unpack(None, Keep::Own, &archive).unwrap();
    assert_eq!(scene.text("half").len(), 2000);
}

#[test]
fn a_huge_extension_header_is_refused_before_it_is_read() {
    let scene = Scene::new();
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::XHeader);
    header.set_size(1 << 40);
    header.set_cksum();
    let endless = header.as_bytes().chain(io::repeat(b'1'));
    let place = Place { directory: scene.path("").into(), name: None };
    assert!(matches!(unpack(endless, &place, Keep::Own), Err(UnpackError::Archive(_))));
}

#[test]
fn what_follows_the_archive_is_read_no_further_than_padding_goes() {
    let scene = Scene::new();
    let archive = Tar::default().file("a", "1").end();
    let endless = archive.chain(io::repeat(0));
    let place = Place { directory: scene.path("").into(), name: None };
    assert_eq!(unpack(endless, &place, Keep::Own).unwrap().entries, 1);
}

#[test]
fn nothing_at_all_is_not_what_was_asked_for() {
    let scene = Scene::new();
    assert!(matches!(scene.unpack(Some("a"), Keep::Own, &Tar::default().end()), Err(UnpackError::Empty)));
    assert_eq!(scene.unpack(None, Keep::Own, &Tar::default().end()).unwrap(), Unpacked::default());
}

#[test]
fn messages_name_the_path_and_say_each_cause_once() {
    let scene = Scene::new();
    let refused =
        scene.unpack(None, Keep::Own, &Tar::default().entry(EntryType::Char, "a\nb", "", 0, b"").end());
    let failure = crate::failure::Failure::because("cannot copy", &refused.unwrap_err()).render();
    assert_eq!(
        failure,
        format!(
            "cellule: cannot copy\n  because: cannot unpack {:?}\n  because: it is a device, and devices are not copied\n",
            scene.path("a\nb")
        )
    );
}

#[test]
fn what_is_packed_here_is_unpacked_the_same() {
    let scene = Scene::new();
    fs::create_dir(scene.path("from")).unwrap();
    fs::write(scene.path("from/f"), "f").unwrap();
    fs::write(scene.path("from/.wh.odd"), "a name like others").unwrap();
    symlink("f", scene.path("from/l")).unwrap();
    fs::hard_link(scene.path("from/f"), scene.path("from/h")).unwrap();
    let options = cellule_rootfs::PackOptions { name: b"to".to_vec(), owner: Some((0, 0)), follow: false };
    let mut archive = Vec::new();
    cellule_rootfs::pack(&scene.path("from"), &options, &mut archive).unwrap();
    assert_eq!(scene.unpack(Some("to"), Keep::Own, &archive).unwrap().entries, 5);
    assert_eq!((scene.text("to/l"), scene.text("to/.wh.odd")), ("f".into(), "a name like others".into()));
    assert_eq!(fs::metadata(scene.path("to/h")).unwrap().nlink(), 2);
}

proptest! {
    /// Few names, so that entries meet: what matters is what `Scene::unpack` looks at afterwards.
    #[test]
    fn no_order_of_entries_reaches_what_is_outside(
        entries in vec((0_usize..6, 0_usize..8, 0_usize..8), 1..12),
        name in proptest::option::of(Just("a")),
    ) {
        const PATHS: [&str; 8] =
            ["a", "a/b", "a/b/c", "b", "a/precious", "b/precious", "../outside/precious", "a/../../outside/x"];
        const TARGETS: [&str; 8] =
            ["a", "a/b", "..", "../outside", "../../outside", "../outside/precious", "/", "a/b/../../../outside"];
        let scene = Scene::new();
        let mut archive = Tar::default();
        for (kind, path, target) in entries {
            let (path, target) = (PATHS[path], TARGETS[target]);
            archive = match kind {
                0 => archive.dir(path),
                1 | 2 => archive.symlink(path, target),
                3 => archive.hard_link(path, target),
                4 => archive.hard_link(path, PATHS[target.len() % PATHS.len()]),
                _ => archive.file(path, "hostile"),
            };
        }
        _ = scene.unpack(name, Keep::All, &archive.end());
    }
}
