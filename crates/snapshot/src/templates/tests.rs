use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use cellule_engine::{MemorySize, PageRange, Pages, SavedMachine};
use tempfile::TempDir;

use super::*;
use crate::key::tests::key;
use crate::snapshots::tests::origin;

const PAGES: u32 = 40;

fn templates(limit: u64) -> (TempDir, Templates) {
    let top = tempfile::tempdir().unwrap();
    let templates = Templates::new(top.path().join("templates"), limit);
    (top, templates)
}

fn draft(templates: &Templates, key: &TemplateKey) -> Draft {
    match templates.make(key).unwrap() {
        Making::Yours(draft) => draft,
        other => panic!("{other:?}"),
    }
}

/// A machine with some memory in `file`.
fn saved(file: File) -> SavedMachine {
    file.set_len(MemorySize::MIN.bytes()).unwrap();
    for page in 0..PAGES {
        file.write_all_at(&[7; 4096], u64::from(page) * 4096).unwrap();
    }
    let ranges = vec![PageRange { first: 0, count: PAGES }];
    SavedMachine {
        base: tempfile::tempfile().unwrap(),
        changes: Pages::new(file, ranges, MemorySize::MIN).unwrap(),
        devices: b"the state of devices".to_vec(),
        origin: origin(),
    }
}

fn publish(templates: &Templates, key: &TemplateKey) -> SavedFiles {
    let draft = draft(templates, key);
    let saved = saved(draft.memory().unwrap());
    draft.publish("an image", &saved).unwrap()
}

fn names(templates: &Templates) -> Vec<String> {
    let mut names: Vec<String> = entries(&templates.dir)
        .unwrap()
        .iter()
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .filter(|name| !name.ends_with(LOCK))
        .collect();
    names.sort();
    names
}

fn with_cpus(cpus: u32) -> TemplateKey {
    TemplateKey { cpus, ..key() }
}

#[test]
fn what_is_published_is_found_and_loaded() {
    let (_top, templates) = templates(1 << 30);
    assert!(templates.find(&key()).unwrap().is_none());
    publish(&templates, &key());
    let files = templates.find(&key()).unwrap().unwrap();
    let loaded = files.load().unwrap();
    assert_eq!(loaded.devices, b"the state of devices");
    assert_eq!(loaded.base.metadata().unwrap().len(), MemorySize::MIN.bytes());
    assert!(loaded.changes.ranges().is_empty());
    assert!(templates.find(&with_cpus(2)).unwrap().is_none());
    let list = templates.list().unwrap();
    assert_eq!((list.len(), &list[0].state), (1, &TemplateState::Ready));
    assert_eq!(list[0].manifest.as_ref().unwrap().template().unwrap().label, "an image");
    assert!(list[0].disk_bytes >= u64::from(PAGES) * 4096 && list[0].disk_bytes < MemorySize::MIN.bytes());
}

#[test]
fn one_makes_it_and_others_are_told() {
    let (_top, templates) = templates(1 << 30);
    let first = draft(&templates, &key());
    assert!(matches!(templates.make(&key()).unwrap(), Making::Busy));
    // Another one is another matter.
    drop(draft(&templates, &with_cpus(2)));
    let saved = saved(first.memory().unwrap());
    first.publish("an image", &saved).unwrap();
    assert!(matches!(templates.make(&key()).unwrap(), Making::Made(_)));
}

#[test]
fn a_draft_that_is_dropped_or_whose_maker_died_leaves_nothing() {
    let (_top, templates) = templates(1 << 30);
    let dropped = draft(&templates, &key());
    dropped.memory().unwrap();
    drop(dropped);
    assert_eq!(names(&templates), [""; 0]);
    // What a process leaves that is killed: a directory that nobody has locked.
    fs::create_dir(templates.dir.join(".tmp-dead")).unwrap();
    fs::write(templates.dir.join(".tmp-dead/memory"), b"half").unwrap();
    let alive = draft(&templates, &with_cpus(2));
    drop(draft(&templates, &key()));
    assert!(alive.path().exists(), "a live maker's draft was removed");
    assert_eq!(names(&templates).len(), 1);
}

#[test]
fn damage_of_each_kind_is_told_and_what_is_set_aside_is_made_anew() {
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 9] = [
        ("manifest.json", |dir| fs::remove_file(dir.join("manifest.json")).unwrap()),
        ("manifest", |dir| fs::write(dir.join("manifest.json"), b"{}").unwrap()),
        ("format 99", |dir| {
            let text = fs::read_to_string(dir.join("manifest.json")).unwrap();
            let ours = format!("\"format\": {}", crate::FORMAT);
            fs::write(dir.join("manifest.json"), text.replacen(&ours, "\"format\": 99", 1)).unwrap();
        }),
        ("something else", |dir| {
            let text = fs::read_to_string(dir.join("manifest.json")).unwrap();
            fs::write(dir.join("manifest.json"), text.replacen("\"cpus\": 1", "\"cpus\": 3", 1)).unwrap();
        }),
        ("memory cannot be read", |dir| fs::remove_file(dir.join("memory")).unwrap()),
        ("instead of", |dir| {
            let memory = File::options().write(true).open(dir.join("memory")).unwrap();
            memory.set_len(4096).unwrap();
        }),
        ("was changed", |dir| {
            let memory = File::options().write(true).open(dir.join("memory")).unwrap();
            std::thread::sleep(Duration::from_millis(20));
            memory.write_all_at(b"x", 5000).unwrap();
        }),
        ("file devices is not", |dir| fs::write(dir.join("devices"), b"The state of devices").unwrap()),
        ("file devices is not", |dir| fs::write(dir.join("devices"), vec![0; 2 << 20]).unwrap()),
    ];
    let (_top, templates) = templates(1 << 30);
    for (words, harm) in harms {
        publish(&templates, &key());
        harm(&templates.ready(&key().id()));
        let error = match templates.find(&key()) {
            Ok(files) => files.unwrap().load().map(|_| ()).unwrap_err(),
            Err(error) => error,
        };
        let told = reason(&error);
        assert!(matches!(error, Error::Damaged { .. }) && told.contains(words), "{words}: {told}");
        templates.set_aside(&key().id(), &told).unwrap();
        assert!(templates.find(&key()).unwrap().is_none());
        let list = templates.list().unwrap();
        assert_eq!(list[0].state, TemplateState::Failed(told));
        publish(&templates, &key());
        assert_eq!(templates.list().unwrap().len(), 1);
        templates.remove(&key().id()).unwrap();
    }
    assert_eq!(names(&templates), [""; 0]);
}

#[test]
fn a_manifest_that_is_cut_anywhere_is_damage() {
    let (_top, templates) = templates(1 << 30);
    publish(&templates, &key());
    let text = fs::read(templates.ready(&key().id()).join(MANIFEST)).unwrap();
    assert!(Manifest::parse(&text).is_ok());
    for end in 0..text.len() {
        assert!(Manifest::parse(&text[..end]).is_err(), "cut at {end}");
    }
}

#[test]
fn the_one_not_used_for_longest_makes_room() {
    let one = {
        let (_top, templates) = templates(1 << 30);
        publish(&templates, &key());
        templates.list().unwrap()[0].disk_bytes
    };
    let (_top, templates) = templates(2 * one + one / 2);
    for cpus in [1, 2] {
        publish(&templates, &with_cpus(cpus));
        std::thread::sleep(Duration::from_millis(20));
    }
    // Of the two, the first is used again.
    templates.find(&with_cpus(1)).unwrap().unwrap();
    std::thread::sleep(Duration::from_millis(20));
    publish(&templates, &with_cpus(3));
    let left: Vec<u32> = templates
        .list()
        .unwrap()
        .iter()
        .map(|template| template.manifest.as_ref().unwrap().template().unwrap().key.cpus)
        .collect();
    assert_eq!(left, [3, 1]);
    // One that is larger than all may be stays, alone.
    let small = Templates::new(&templates.dir, 1);
    publish(&small, &with_cpus(4));
    assert_eq!(small.list().unwrap().len(), 1);
}

#[test]
fn a_template_is_named_by_what_its_id_begins_with() {
    let (_top, templates) = templates(1 << 30);
    publish(&templates, &key());
    let id = key().id();
    assert_eq!(templates.resolve(&id.as_str()[..6]).unwrap().id, id);
    assert!(matches!(templates.resolve("zz"), Err(Error::NoSuchTemplate(_))));
    assert!(matches!(templates.resolve(""), Err(Error::NoSuchTemplate(_))));
}

#[test]
fn prune_removes_what_failed_or_all_and_says_how_much() {
    let (_top, templates) = templates(1 << 30);
    publish(&templates, &with_cpus(1));
    publish(&templates, &with_cpus(2));
    templates.set_aside(&with_cpus(2).id(), "it did not work").unwrap();
    let removed = templates.prune(false).unwrap();
    assert_eq!(removed.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>(), [with_cpus(2).id()]);
    let removed = templates.prune(true).unwrap();
    assert!(removed.len() == 1 && removed[0].1 >= u64::from(PAGES) * 4096);
    assert_eq!(entries(&templates.dir).unwrap(), Vec::<PathBuf>::new());
}

#[test]
fn what_was_opened_outlives_its_removal() {
    let (_top, templates) = templates(1 << 30);
    publish(&templates, &key());
    let loaded = templates.find(&key()).unwrap().unwrap().load().unwrap();
    templates.remove(&key().id()).unwrap();
    let mut page = [0; 4096];
    loaded.base.read_exact_at(&mut page, 4096).unwrap();
    assert_eq!(page, [7; 4096]);
}
