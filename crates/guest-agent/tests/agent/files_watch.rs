//! What a watch tells, and in which order.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

use cellule_protocol::client::files::{Watch, WatchEvent};

use crate::files::{Place, assert_kind};
use crate::support::within;

async fn next(watch: &mut Watch) -> WatchEvent {
    within(watch.next()).await.unwrap().unwrap()
}

/// The events until the file `end` appears at the top.
async fn until_end(place: &Place, watch: &mut Watch) -> Vec<WatchEvent> {
    let end = place.write("end", "");
    let mut events = Vec::new();
    loop {
        match next(watch).await {
            WatchEvent::Created { path, .. } if path == end => return events,
            event => events.push(event),
        }
    }
}

fn created(path: Vec<u8>, directory: bool) -> WatchEvent {
    WatchEvent::Created { path, directory }
}

fn deleted(path: Vec<u8>, directory: bool) -> WatchEvent {
    WatchEvent::Deleted { path, directory }
}

#[tokio::test]
async fn each_kind_of_change_is_told() {
    let place = Place::new();
    let files = place.files().await;
    let mut watch = files.watch(place.path(""), false).await.unwrap();
    let file = place.write("file", "");
    assert_eq!(next(&mut watch).await, created(file.clone(), false));
    // Written to without being truncated first, which would be another change.
    fs::File::options().append(true).open(place.dir().join("file")).unwrap().write_all(b"x").unwrap();
    assert_eq!(next(&mut watch).await, WatchEvent::Modified { path: file.clone(), directory: false });
    fs::set_permissions(place.dir().join("file"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(next(&mut watch).await, WatchEvent::Attributes { path: file.clone(), directory: false });
    fs::rename(place.dir().join("file"), place.dir().join("new")).unwrap();
    let new = place.path("new");
    let renamed = WatchEvent::Renamed { from: file, to: new.clone(), directory: false };
    assert_eq!(next(&mut watch).await, renamed);
    fs::remove_file(place.dir().join("new")).unwrap();
    assert_eq!(next(&mut watch).await, deleted(new, false));
    fs::create_dir(place.dir().join("sub")).unwrap();
    assert_eq!(next(&mut watch).await, created(place.path("sub"), true));
    // It does not go down.
    place.write("sub/file", "");
    assert_eq!(until_end(&place, &mut watch).await, []);
}

#[tokio::test]
async fn what_comes_in_is_created_and_what_goes_out_deleted() {
    let place = Place::new();
    let files = place.files().await;
    let elsewhere = tempfile::tempdir_in(place.dir().parent().unwrap()).unwrap();
    fs::create_dir_all(elsewhere.path().join("tree/sub")).unwrap();
    fs::write(elsewhere.path().join("tree/sub/file"), "").unwrap();
    let mut watch = files.watch(place.path(""), true).await.unwrap();
    fs::rename(elsewhere.path().join("tree"), place.dir().join("tree")).unwrap();
    assert_eq!(next(&mut watch).await, created(place.path("tree"), true));
    assert_eq!(next(&mut watch).await, created(place.path("tree/sub"), true));
    assert_eq!(next(&mut watch).await, created(place.path("tree/sub/file"), false));
    fs::rename(place.dir().join("tree"), elsewhere.path().join("back")).unwrap();
    assert_eq!(next(&mut watch).await, deleted(place.path("tree"), true));
    // What happens to it there is nobody's business.
    fs::write(elsewhere.path().join("back/sub/new"), "").unwrap();
    assert_eq!(until_end(&place, &mut watch).await, []);
}

#[tokio::test]
async fn a_name_that_is_taken_again_at_once_is_deleted_first() {
    let place = Place::new();
    let files = place.files().await;
    let elsewhere = tempfile::tempdir_in(place.dir().parent().unwrap()).unwrap();
    let file = place.write("file", "");
    let mut watch = files.watch(place.path(""), true).await.unwrap();
    fs::rename(place.dir().join("file"), elsewhere.path().join("file")).unwrap();
    fs::create_dir(place.dir().join("file")).unwrap();
    place.write("file/inside", "");
    let expected =
        [deleted(file.clone(), false), created(file, true), created(place.path("file/inside"), false)];
    for event in expected {
        assert_eq!(next(&mut watch).await, event);
    }
}

#[tokio::test]
async fn a_renamed_directory_keeps_telling_by_its_new_name() {
    let place = Place::new();
    let files = place.files().await;
    fs::create_dir_all(place.dir().join("a/b/c")).unwrap();
    fs::create_dir_all(place.dir().join("other")).unwrap();
    let mut watch = files.watch(place.path(""), true).await.unwrap();
    fs::rename(place.dir().join("a/b"), place.dir().join("other/moved")).unwrap();
    let (from, to) = (place.path("a/b"), place.path("other/moved"));
    assert_eq!(next(&mut watch).await, WatchEvent::Renamed { from, to, directory: true });
    let file = place.write("other/moved/c/file", "");
    assert_eq!(next(&mut watch).await, created(file, false));
    fs::rename(place.dir().join("other"), place.dir().join("last")).unwrap();
    assert!(matches!(next(&mut watch).await, WatchEvent::Renamed { .. }));
    fs::remove_file(place.dir().join("last/moved/c/file")).unwrap();
    assert_eq!(next(&mut watch).await, deleted(place.path("last/moved/c/file"), false));
}

#[tokio::test]
async fn directories_that_change_places_keep_telling_by_their_right_names() {
    let place = Place::new();
    let files = place.files().await;
    fs::create_dir_all(place.dir().join("a/of-a")).unwrap();
    fs::create_dir_all(place.dir().join("b/of-b")).unwrap();
    let mut watch = files.watch(place.path(""), true).await.unwrap();
    let (a, b) = (place.dir().join("a"), place.dir().join("b"));
    rustix::fs::renameat_with(rustix::fs::CWD, a, rustix::fs::CWD, b, rustix::fs::RenameFlags::EXCHANGE)
        .unwrap();
    while next(&mut watch).await != WatchEvent::Overflow {}
    until_end(&place, &mut watch).await;
    let file = place.write("b/of-a/file", "");
    assert_eq!(next(&mut watch).await, created(file, false));
    let file = place.write("a/of-b/file", "");
    assert_eq!(next(&mut watch).await, created(file, false));
}

#[tokio::test]
async fn directories_made_faster_than_they_can_be_watched_hide_nothing() {
    let place = Place::new();
    let files = place.files().await;
    let mut watch = files.watch(place.path(""), true).await.unwrap();
    let mut expected = Vec::new();
    for top in 0..30 {
        let mut name = format!("top-{top}");
        for _depth in 0..10 {
            name.push_str("/d");
            expected.push(place.path(format!("{name}/file")));
        }
        fs::create_dir_all(place.dir().join(&name)).unwrap();
        let mut name = format!("top-{top}");
        for _depth in 0..10 {
            name.push_str("/d");
            place.write(&format!("{name}/file"), "");
        }
    }
    let events = until_end(&place, &mut watch).await;
    let mut told: Vec<_> = events
        .into_iter()
        .filter_map(|event| match event {
            WatchEvent::Created { path, directory: false } => Some(path),
            _ => None,
        })
        .collect();
    told.sort();
    expected.sort();
    assert_eq!(told, expected, "each once");
}

#[tokio::test]
async fn links_are_not_followed_beneath_what_is_watched() {
    let place = Place::new();
    let files = place.files().await;
    let elsewhere = tempfile::tempdir().unwrap();
    symlink(elsewhere.path(), place.dir().join("before")).unwrap();
    symlink(place.dir(), elsewhere.path().join("to-it")).unwrap();
    // What is asked for may be reached by one; what is told is beneath what was asked for.
    let root = elsewhere.path().join("to-it").into_os_string().into_encoded_bytes();
    let mut watch = files.watch(&root, true).await.unwrap();
    symlink(elsewhere.path(), place.dir().join("after")).unwrap();
    assert_eq!(next(&mut watch).await, created([&root[..], b"/after"].concat(), false));
    fs::write(elsewhere.path().join("file"), "").unwrap();
    place.write("end", "");
    assert_eq!(next(&mut watch).await, created([&root[..], b"/end"].concat(), false));
}

#[tokio::test]
async fn a_single_file_can_be_watched() {
    let place = Place::new();
    let files = place.files().await;
    let file = place.write("file", "");
    let mut watch = files.watch(&file, true).await.unwrap();
    fs::File::options().append(true).open(place.dir().join("file")).unwrap().write_all(b"x").unwrap();
    assert_eq!(next(&mut watch).await, WatchEvent::Modified { path: file.clone(), directory: false });
    fs::remove_file(place.dir().join("file")).unwrap();
    assert_eq!(next(&mut watch).await, WatchEvent::Attributes { path: file, directory: false });
    assert_eq!(next(&mut watch).await, WatchEvent::Gone);
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn the_end_of_what_is_watched_ends_the_watch() {
    let place = Place::new();
    let files = place.files().await;
    for moved in [false, true] {
        let root = place.dir().join("root");
        fs::create_dir_all(root.join("sub")).unwrap();
        let mut watch = files.watch(place.path("root"), true).await.unwrap();
        if moved {
            fs::rename(&root, place.dir().join("elsewhere")).unwrap();
        } else {
            fs::remove_dir_all(&root).unwrap();
            assert_eq!(next(&mut watch).await, deleted(place.path("root/sub"), true));
        }
        assert_eq!(next(&mut watch).await, WatchEvent::Gone);
        assert!(watch.next().await.is_none());
    }
    assert_kind(files.watch(place.path("none"), true).await, io::ErrorKind::NotFound);
}

#[tokio::test]
async fn a_reader_that_stalls_hears_of_an_overflow_and_then_goes_on() {
    let place = Place::new();
    let files = place.files().await;
    fs::create_dir(place.dir().join("before")).unwrap();
    let mut watch = files.watch(place.path(""), true).await.unwrap();
    let limit: usize =
        fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    // Names long enough that what is on its way to the host is the smaller part.
    let long = "n".repeat(200);
    for at in 0..limit + 10_000 {
        fs::create_dir(place.dir().join(format!("{long}{at}"))).unwrap();
        fs::remove_dir(place.dir().join(format!("{long}{at}"))).unwrap();
    }
    fs::create_dir(place.dir().join("unheard")).unwrap();
    let mut events = 0;
    while next(&mut watch).await != WatchEvent::Overflow {
        events += 1;
        assert!(events <= 3 * limit);
    }
    // Whatever was queued behind the overflow, directories that were made in the dark are watched.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let inside = place.write("unheard/file", "");
    let before = place.write("before/file", "");
    for expected in [created(inside, false), created(before, false)] {
        while next(&mut watch).await != expected {}
    }
}

#[tokio::test]
async fn a_watch_that_is_dropped_frees_what_it_had() {
    let place = Place::new();
    let session = place.agent.session().await;
    let files = session.files();
    let descriptors = || fs::read_dir(format!("/proc/{}/fd", place.agent.pid())).unwrap().count();
    drop(files.watch(place.path(""), true).await.unwrap());
    tokio::time::sleep(Duration::from_millis(100)).await;
    let before = descriptors();
    for _ in 0..300 {
        // More than the kernel lets be at once.
        drop(files.watch(place.path(""), true).await.unwrap());
    }
    crate::files_transfer::wait_until(|| descriptors() <= before).await;
}
