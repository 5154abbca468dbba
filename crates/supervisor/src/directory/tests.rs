use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;
use crate::sandboxes::FindError;
use crate::spec::FORMAT;
use crate::state::State;

pub(crate) fn spec() -> SandboxSpec {
    SandboxSpec {
        format: FORMAT,
        id: SandboxId::random().unwrap(),
        image: "base".into(),
        image_digest: String::new(),
        created_ns: 1,
        engine: "qemu".into(),
        engine_program: None,
        cpus: 1,
        memory_mib: 512,
        disk: None,
        kernel: "/k".into(),
        initramfs: "/i".into(),
        rootfs: "/r".into(),
        rootfs_digest: "sha256:0".into(),
        hostname: "h".into(),
        read_only: false,
        tmpfs: Vec::new(),
        env: Vec::new(),
        working_dir: "/".into(),
        user: String::new(),
        main: None,
        stop_signal: None,
        auto_remove: false,
        expires_ns: None,
        idle: None,
        network: crate::NetworkSpec::default(),
        authorities: String::new(),
        labels: BTreeMap::new(),
        templates: None,
        saved: None,
    }
}

pub(crate) fn home() -> (tempfile::TempDir, Sandboxes) {
    let dir = tempfile::tempdir().unwrap();
    let sandboxes = Sandboxes::open(dir.path()).unwrap();
    (dir, sandboxes)
}

pub(crate) fn entries(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}

fn name(text: &str) -> SandboxName {
    text.parse().unwrap()
}

fn with_id(id: &str) -> SandboxSpec {
    SandboxSpec { id: id.parse().unwrap(), ..spec() }
}

#[test]
fn a_removed_sandbox_leaves_nothing() {
    let (home, sandboxes) = home();
    sandboxes.create(&spec(), Some(&name("web"))).unwrap().remove().unwrap();
    assert_eq!((entries(&home.path().join("sandboxes")), entries(&home.path().join("names"))), (0, 0));
}

#[test]
fn what_was_written_is_what_an_adopter_reads() {
    let (_home, sandboxes) = home();
    let spec = spec();
    let dir = sandboxes.create(&spec, None).unwrap();
    let (adopted, read) = SandboxDir::adopt(dir.path(), dir.share_lock().unwrap()).unwrap();
    assert_eq!(read, spec);
    assert_eq!(adopted.sandboxes(), dir.sandboxes());
    assert_eq!(adopted.record().unwrap().state, State::Created);
}

#[test]
fn a_lock_that_is_not_the_held_one_of_the_directory_is_refused() {
    let (_home, sandboxes) = home();
    let dir = sandboxes.create(&spec(), None).unwrap();
    let other = sandboxes.create(&spec(), None).unwrap();
    let adopt = |lock| SandboxDir::adopt(dir.path(), lock).map(drop);
    let refused = |result| matches!(result, Err(DirectoryError::NotLocked { .. }));
    assert!(refused(adopt(other.share_lock().unwrap())), "another directory's");
    assert!(refused(adopt(File::open(dir.path().join(LOCK)).unwrap())), "the right file, opened by hand");
    adopt(dir.share_lock().unwrap()).unwrap();
    let path = dir.path().to_path_buf();
    drop(dir);
    assert!(
        refused(SandboxDir::adopt(&path, File::open(path.join(LOCK)).unwrap()).map(drop)),
        "held by nobody"
    );
}

#[test]
fn a_name_that_is_taken_is_refused_and_nothing_is_left() {
    let (home, sandboxes) = home();
    let first = sandboxes.create(&spec(), Some(&name("web"))).unwrap();
    let error = sandboxes.create(&spec(), Some(&name("web"))).unwrap_err();
    assert!(
        matches!(&error, DirectoryError::NameTaken { owner, .. } if owner == first.id().as_str()),
        "{error}"
    );
    assert_eq!(entries(&home.path().join("sandboxes")), 1, "the refused one left its directory");
    first.remove().unwrap();
    sandboxes.create(&spec(), Some(&name("web"))).unwrap();
}

#[test]
fn a_sandbox_that_was_made_and_let_go_is_kept_with_its_name() {
    let (_home, sandboxes) = home();
    let made = spec();
    drop(sandboxes.create(&made, Some(&name("web"))).unwrap());
    assert_eq!(sandboxes.sweep().unwrap(), 0);
    let entry = sandboxes.find("web").unwrap();
    assert_eq!((entry.record.state, entry.spec, entry.name), (State::Created, made, Some(name("web"))));
    assert!(matches!(sandboxes.create(&spec(), Some(&name("web"))), Err(DirectoryError::NameTaken { .. })));
}

#[test]
fn removing_a_sandbox_leaves_a_name_that_another_has_taken_over() {
    let (home, sandboxes) = home();
    let first = sandboxes.create(&spec(), Some(&name("web"))).unwrap();
    let second = sandboxes.create(&spec(), None).unwrap();
    crate::names::bind(&sandboxes.names(), &name("web"), second.id()).unwrap();
    first.remove().unwrap();
    assert!(home.path().join("names/web").is_symlink());
    assert_eq!(second.name(), Some(name("web")));
}

#[test]
fn a_rename_frees_the_former_name_and_respects_the_others() {
    let (_home, sandboxes) = home();
    let first = sandboxes.create(&spec(), Some(&name("one"))).unwrap();
    let second = sandboxes.create(&spec(), Some(&name("two"))).unwrap();
    let taken = sandboxes.rename(first.id(), &name("two"));
    assert!(matches!(taken, Err(DirectoryError::NameTaken { .. })), "{taken:?}");
    sandboxes.rename(first.id(), &name("three")).unwrap();
    sandboxes.rename(second.id(), &name("one")).unwrap();
    sandboxes.rename(second.id(), &name("one")).unwrap();
    assert_eq!((first.name(), second.name()), (Some(name("three")), Some(name("one"))));
    assert!(matches!(sandboxes.find("two"), Err(FindError::NotFound { .. })));
    let nobody = "000000000000".parse().unwrap();
    assert!(matches!(sandboxes.rename(&nobody, &name("four")), Err(DirectoryError::NotFound { .. })));
}

#[test]
fn sandboxes_are_found_by_name_and_by_what_only_their_id_begins_with() {
    let (_home, sandboxes) = home();
    let ids = ["ab0000000000", "ab1000000000", "cd0000000000"];
    for id in ids {
        drop(sandboxes.create(&with_id(id), None).unwrap());
    }
    drop(sandboxes.create(&with_id("ef0000000000"), Some(&name("cd"))).unwrap());
    let found = |text: &str| sandboxes.find(text).map(|entry| entry.spec.id.to_string());
    assert_eq!(found("ab1").unwrap(), "ab1000000000");
    assert_eq!(found("cd0000000000").unwrap(), "cd0000000000");
    assert_eq!(found("cd").unwrap(), "ef0000000000", "a name wins");
    match sandboxes.find("ab") {
        Err(FindError::Ambiguous { text, ids }) => assert_eq!((text.as_str(), ids.len()), ("ab", 2)),
        other => panic!("{other:?}"),
    }
    for text in ["", "ff", "../ab0000000000", "/", "."] {
        assert!(matches!(sandboxes.find(text), Err(FindError::NotFound { .. })), "{text}");
    }
}

#[test]
fn a_list_has_the_newest_first_and_leaves_out_what_is_damaged() {
    let (home, sandboxes) = home();
    for (id, created_ns) in [("aa0000000000", 1), ("bb0000000000", 3), ("cc0000000000", 2)] {
        drop(sandboxes.create(&SandboxSpec { created_ns, ..with_id(id) }, None).unwrap());
    }
    fs::create_dir(home.path().join("sandboxes/dd0000000000")).unwrap();
    fs::write(home.path().join("sandboxes/aa0000000000/spec.json"), "{").unwrap();
    fs::write(home.path().join("sandboxes/stray"), "").unwrap();
    let survey = sandboxes.survey().unwrap();
    let ids: Vec<_> = survey.entries.iter().map(|entry| entry.spec.id.as_str()).collect();
    assert_eq!(ids, ["bb0000000000", "cc0000000000"]);
    assert_eq!(survey.damaged.len(), 2, "{:?}", survey.damaged);
}

#[test]
fn a_lock_is_given_to_one_at_a_time() {
    let (_home, sandboxes) = home();
    let spec = spec();
    drop(sandboxes.create(&spec, None).unwrap());
    let held = sandboxes.lock(&spec.id).unwrap();
    assert!(matches!(sandboxes.lock(&spec.id), Err(DirectoryError::Busy { .. })));
    held.remove().unwrap();
    assert!(matches!(sandboxes.lock(&spec.id), Err(DirectoryError::NotFound { .. })));
}

#[test]
fn one_who_only_looks_at_a_lock_keeps_nobody_from_it() {
    let (_home, sandboxes) = home();
    let spec = spec();
    drop(sandboxes.create(&spec, None).unwrap());
    let looking = try_lock(&sandboxes.path_of(&spec.id)).unwrap().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            drop(looking);
        });
        sandboxes.lock(&spec.id).unwrap();
    });
}

#[test]
fn what_a_sandbox_is_made_of_can_be_changed_and_not_whose_it_is() {
    let (_home, sandboxes) = home();
    let dir = sandboxes.create(&spec(), None).unwrap();
    let changed = SandboxSpec { memory_mib: 7, ..dir.spec().unwrap() };
    dir.update_spec(&changed).unwrap();
    assert_eq!(dir.spec().unwrap(), changed);
    assert!(dir.update_spec(&spec()).is_err());
}

#[test]
fn a_claim_that_leads_elsewhere_is_nobodys() {
    let (home, sandboxes) = home();
    symlink("../../../etc", home.path().join("names/web")).unwrap();
    let dir = sandboxes.create(&spec(), Some(&name("web"))).unwrap();
    assert_eq!(dir.name(), Some(name("web")));
}

#[test]
fn directories_are_private() {
    let (home, sandboxes) = home();
    let dir = sandboxes.create(&spec(), None).unwrap();
    for path in [
        dir.path().to_path_buf(),
        dir.path().join(LOGS),
        home.path().join("sandboxes"),
        home.path().join("names"),
    ] {
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{}", path.display());
    }
}

#[test]
fn a_spec_that_is_not_ours_is_refused() {
    let (_home, sandboxes) = home();
    let dir = sandboxes.create(&spec(), None).unwrap();
    let file = dir.path().join(SPEC);
    let good = fs::read_to_string(&file).unwrap();
    let read = |text: &str| {
        fs::write(&file, text).unwrap();
        dir.spec().unwrap_err()
    };
    let format = read(&good.replace(&format!("\"format\": {FORMAT}"), "\"format\": 1"));
    assert!(
        matches!(format, DirectoryError::Damaged { source: DocumentError::Format { found: 1 }, .. }),
        "{format}"
    );
    let shape = |error| matches!(error, DirectoryError::Damaged { source: DocumentError::Shape(_), .. });
    assert!(shape(read(&good[..good.len() / 2])));
    assert!(shape(read(&good.replace("\"image\"", "\"unknown\""))));
    let other = read(&good.replace(dir.id().as_str(), "0123456789ab"));
    assert!(
        matches!(other, DirectoryError::Damaged { source: DocumentError::Bounds { field: "id" }, .. }),
        "{other}"
    );
    fs::write(&file, vec![b' '; 5 << 20]).unwrap();
    assert!(matches!(dir.spec().unwrap_err(), DirectoryError::Read { .. }), "larger than any");
    fs::remove_file(&file).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &file, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    assert!(
        matches!(dir.spec().unwrap_err(), DirectoryError::Read { .. }),
        "a FIFO, which must not hold its reader"
    );
    fs::remove_file(&file).unwrap();
    assert!(dir.spec().unwrap_err().is_gone());
}
