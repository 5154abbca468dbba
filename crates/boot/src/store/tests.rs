use super::*;

type Texts = Store<String>;

fn store() -> (TempDir, Texts) {
    let home = tempfile::tempdir().unwrap();
    let store = Store::new(home.path().join("things"), 7);
    (home, store)
}

fn publish(store: &Texts, text: &str) -> Stored<String> {
    let mut draft = store.draft().unwrap();
    draft.write("file", text.as_bytes()).unwrap();
    store.publish(draft, "about".into()).unwrap()
}

fn damage(store: &Texts) -> Damage {
    let Err(Error::Damaged { source, .. }) = store.current() else { panic!("not found damaged") };
    source
}

/// What lies in the store beside the pointer.
fn names(store: &Texts) -> Vec<String> {
    let entries = fs::read_dir(&store.dir).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name != CURRENT).collect()
}

#[test]
fn what_is_published_is_current_and_nothing_else_stays() {
    let (_home, store) = store();
    assert!(store.current().unwrap().is_none());
    let stored = publish(&store, "text");
    let current = store.current().unwrap().unwrap();
    assert_eq!((current.id.as_str(), &current.manifest), (stored.id.as_str(), &stored.manifest));
    assert_eq!(current.read("file").unwrap(), b"text");
    current.verify().unwrap();
    assert_eq!(names(&store), [stored.id]);
}

#[test]
fn the_same_contents_have_the_same_id() {
    let (_home, store) = store();
    assert_eq!(publish(&store, "text").id, publish(&store, "text").id);
    assert_ne!(publish(&store, "text").id, publish(&store, "other").id);
    assert_eq!(names(&store).len(), 2);
}

#[test]
fn a_truncated_file_is_found_at_once_and_named() {
    let (_home, store) = store();
    let stored = publish(&store, "text");
    fs::write(stored.path("file"), "te").unwrap();
    assert!(matches!(damage(&store), Damage::Size { file, expected: 4, found: 2 } if file == "file"));
}

#[test]
fn a_file_that_is_gone_is_named() {
    let (_home, store) = store();
    let stored = publish(&store, "text");
    fs::remove_file(stored.path("file")).unwrap();
    assert!(matches!(damage(&store), Damage::Unreadable { file, .. } if file == "file"));
}

#[test]
fn changed_contents_are_found_by_verification() {
    let (_home, store) = store();
    let stored = publish(&store, "text");
    fs::write(stored.path("file"), "tExt").unwrap();
    let current = store.current().unwrap().unwrap();
    let Err(Error::Damaged { source: Damage::Contents { file }, .. }) = current.verify() else { panic!() };
    assert_eq!(file, "file");
}

#[test]
fn a_changed_manifest_is_found() {
    let (_home, store) = store();
    let stored = publish(&store, "text");
    let manifest = fs::read_to_string(stored.path(MANIFEST)).unwrap();
    fs::write(stored.path(MANIFEST), manifest.replace("about", "abOut")).unwrap();
    assert!(matches!(damage(&store), Damage::ManifestHash));
    fs::remove_file(stored.path(MANIFEST)).unwrap();
    assert!(matches!(damage(&store), Damage::Unreadable { .. }));
}

#[test]
fn a_pointer_that_leads_elsewhere_is_damage() {
    let (_home, store) = store();
    publish(&store, "text");
    for pointer in [b"".as_slice(), b"../../etc", b"\xff\xfe"] {
        fs::write(store.dir.join(CURRENT), pointer).unwrap();
        assert!(matches!(damage(&store), Damage::Pointer));
    }
    fs::write(store.dir.join(CURRENT), "0".repeat(64)).unwrap();
    assert!(matches!(damage(&store), Damage::Unreadable { .. }));
}

#[test]
fn another_format_is_told_from_damage() {
    let (home, store) = store();
    publish(&store, "text");
    let newer: Store<u32> = Store::new(home.path().join("things"), 8);
    let Err(Error::Damaged { source, .. }) = newer.current() else { panic!() };
    assert!(matches!(source, Damage::Format { found: 7, expected: 8 }));
}

#[test]
fn publishing_again_repairs_what_was_damaged() {
    let (_home, store) = store();
    let stored = publish(&store, "text");
    fs::write(stored.path("file"), "tExt").unwrap();
    publish(&store, "text").verify().unwrap();
    store.current().unwrap().unwrap().verify().unwrap();
    assert_eq!(names(&store).len(), 1);
}

#[test]
fn what_a_killed_setup_left_is_swept() {
    let (_home, store) = store();
    let stored = publish(&store, "text");
    let mut draft = store.draft().unwrap();
    draft.write("file", b"half").unwrap();
    let _ = draft.dir.keep();
    fs::write(store.dir.join(".tmp-pointer"), "").unwrap();
    assert_eq!(names(&store).len(), 3);
    store.sweep().unwrap();
    assert_eq!(names(&store), [stored.id]);
}

#[test]
fn a_draft_that_is_given_up_leaves_nothing() {
    let (_home, store) = store();
    let mut draft = store.draft().unwrap();
    draft.write("file", b"half").unwrap();
    drop(draft);
    assert!(names(&store).is_empty());
}

#[test]
fn a_full_disk_is_told_from_other_failures() {
    let error = Error::write("/x")(io::ErrorKind::StorageFull.into());
    assert!(matches!(error, Error::DiskFull { .. }));
    let error = Error::write("/x")(io::ErrorKind::PermissionDenied.into());
    assert!(matches!(error, Error::Write { .. }));
}
