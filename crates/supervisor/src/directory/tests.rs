use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn spec(name: Option<&str>) -> SandboxSpec {
    SandboxSpec {
        format: FORMAT,
        id: SandboxId::random().unwrap(),
        name: name.map(|name| name.parse().unwrap()),
        image: "base".into(),
        engine: "qemu".into(),
        engine_program: None,
        cpus: 1,
        memory_mib: 512,
        kernel: "/k".into(),
        initramfs: "/i".into(),
        rootfs: "/r".into(),
        hostname: "h".into(),
        read_only: false,
        tmpfs: Vec::new(),
    }
}

fn home() -> (tempfile::TempDir, Sandboxes) {
    let dir = tempfile::tempdir().unwrap();
    let sandboxes = Sandboxes::open(dir.path()).unwrap();
    (dir, sandboxes)
}

fn entries(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}

#[test]
fn a_removed_sandbox_leaves_nothing() {
    let (home, sandboxes) = home();
    sandboxes.create(&spec(Some("web"))).unwrap().remove().unwrap();
    assert_eq!((entries(&home.path().join("sandboxes")), entries(&home.path().join("names"))), (0, 0));
}

#[test]
fn what_was_written_is_what_an_adopter_reads() {
    let (_home, sandboxes) = home();
    let spec = spec(Some("web"));
    let dir = sandboxes.create(&spec).unwrap();
    let lock = dir.share_lock().unwrap();
    let (adopted, read) = SandboxDir::adopt(dir.path().to_path_buf(), lock).unwrap();
    assert_eq!(read, spec);
    adopted.remove().unwrap();
}

#[test]
fn a_living_sandbox_keeps_its_name() {
    let (home, sandboxes) = home();
    let first = sandboxes.create(&spec(Some("web"))).unwrap();
    let error = sandboxes.create(&spec(Some("web"))).unwrap_err();
    assert!(matches!(error, DirectoryError::NameTaken { .. }), "{error}");
    assert_eq!(entries(&home.path().join("sandboxes")), 1, "the refused one left its directory");
    first.remove().unwrap();
    sandboxes.create(&spec(Some("web"))).unwrap();
}

#[test]
fn a_dead_sandboxs_name_is_free_before_anyone_sweeps() {
    let (_home, sandboxes) = home();
    drop(sandboxes.create(&spec(Some("web"))).unwrap());
    sandboxes.create(&spec(Some("web"))).unwrap();
}

#[test]
fn removing_a_sandbox_leaves_a_name_that_another_took_over() {
    let (home, sandboxes) = home();
    let dead = spec(Some("web"));
    let SandboxDir { path, names, name, lock } = sandboxes.create(&dead).unwrap();
    drop(lock);
    let successor = sandboxes.create(&spec(Some("web"))).unwrap();
    let lock = File::open(path.join(LOCK)).unwrap();
    SandboxDir { path, names, name, lock }.remove().unwrap();
    assert!(home.path().join("names/web").is_symlink());
    successor.remove().unwrap();
}

#[test]
fn a_sweep_takes_the_dead_and_leaves_the_living() {
    let (home, sandboxes) = home();
    let living = sandboxes.create(&spec(Some("living"))).unwrap();
    drop(sandboxes.create(&spec(Some("dead"))).unwrap());
    assert_eq!(sandboxes.sweep().unwrap(), 1);
    assert!(living.path().exists());
    assert!(!home.path().join("names/dead").is_symlink());
    assert_eq!(sandboxes.sweep().unwrap(), 0);
}

#[test]
fn a_sandbox_lives_while_one_holder_of_its_lock_lives() {
    let (_home, sandboxes) = home();
    let dir = sandboxes.create(&spec(None)).unwrap();
    let shared = dir.share_lock().unwrap();
    drop(dir);
    assert_eq!(sandboxes.sweep().unwrap(), 0);
    drop(shared);
    assert_eq!(sandboxes.sweep().unwrap(), 1);
}

#[test]
fn a_directory_that_is_just_being_made_is_not_swept() {
    let (home, sandboxes) = home();
    let path = home.path().join("sandboxes/0123456789ab");
    fs::create_dir(&path).unwrap();
    assert_eq!(sandboxes.sweep().unwrap(), 0);
    let old = std::time::SystemTime::now() - Duration::from_secs(60);
    File::open(&path).unwrap().set_modified(old).unwrap();
    assert_eq!(sandboxes.sweep().unwrap(), 1);
}

#[test]
fn a_claim_that_leads_elsewhere_is_nobodys() {
    let (home, sandboxes) = home();
    symlink("../../../etc", home.path().join("names/web")).unwrap();
    sandboxes.create(&spec(Some("web"))).unwrap();
}

#[test]
fn directories_are_private() {
    let (home, sandboxes) = home();
    let dir = sandboxes.create(&spec(None)).unwrap();
    for path in [dir.path().to_path_buf(), home.path().join("sandboxes"), home.path().join("names")] {
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{}", path.display());
    }
}

#[test]
fn a_spec_that_is_not_ours_is_refused() {
    let (_home, sandboxes) = home();
    let dir = sandboxes.create(&spec(None)).unwrap();
    let file = dir.path().join(SPEC);
    let good = fs::read_to_string(&file).unwrap();
    let adopt =
        || SandboxDir::adopt(dir.path().to_path_buf(), dir.share_lock().unwrap()).map(|(_, spec)| spec);
    fs::write(&file, good.replace("\"format\": 1", "\"format\": 2")).unwrap();
    assert!(matches!(adopt().unwrap_err(), DirectoryError::Format { found: 2, .. }));
    fs::write(&file, &good[..good.len() / 2]).unwrap();
    assert!(matches!(adopt().unwrap_err(), DirectoryError::Damaged { .. }));
    fs::write(&file, good.replace("\"image\"", "\"unknown\"")).unwrap();
    assert!(matches!(adopt().unwrap_err(), DirectoryError::Damaged { .. }));
    fs::remove_file(&file).unwrap();
    assert!(matches!(adopt().unwrap_err(), DirectoryError::Read { .. }));
}
