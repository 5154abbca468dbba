//! What only a process of its own can show: a death in the middle, and a disk that is full.
//!
//! The child is this very test binary, which runs one ignored test with its orders in the environment.

use std::{
    env, fs,
    os::unix::process::ExitStatusExt,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use cellule_image::{Error, Store};

use crate::support::{Fixture, Reply, Server, assert_nothing_left, files, new_store, pull};

const STORE: &str = "CELLULE_TEST_STORE";
const IMAGE: &str = "CELLULE_TEST_IMAGE";
const FILE_LIMIT: &str = "CELLULE_TEST_FILE_LIMIT";

/// What the child does.
#[test]
#[ignore = "run by other tests, in a process of its own"]
fn child() {
    if let Some(limit) = env::var(FILE_LIMIT).ok().and_then(|limit| limit.parse().ok()) {
        let limit = rustix::process::Rlimit { current: Some(limit), maximum: Some(limit) };
        rustix::process::setrlimit(rustix::process::Resource::Fsize, limit).unwrap();
    }
    let store = Store::open(env::var(STORE).unwrap()).unwrap();
    match pull(&store, &env::var(IMAGE).unwrap()) {
        Err(Error::DiskFull { path, .. }) => panic!("full: {}", path.display()),
        other => drop(other.unwrap()),
    }
}

fn spawn(store: &Store, image: &str, file_limit: Option<u64>) -> Child {
    // A write beyond the limit is to be an error and not the end; who ignores a signal passes that on.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(env::current_exe().unwrap());
    command.args(["processes::child", "--exact", "--ignored", "--nocapture"]);
    command.env(STORE, store.root()).env(IMAGE, image).stdout(Stdio::null()).stderr(Stdio::piped());
    command.envs(file_limit.map(|limit| (FILE_LIMIT, limit.to_string())));
    command.spawn().unwrap()
}

fn wait_for(mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20));
        thread::sleep(Duration::from_millis(5));
    }
}

fn partial_length(store: &Store) -> u64 {
    let partial = files(&store.root().join("tmp")).into_iter().find(|file| file.contains("tmp/blob-"));
    partial.and_then(|file| fs::metadata(file).ok()).map_or(0, |metadata| metadata.len())
}

/// An image whose one layer is large enough to be written before it is complete, and its registry, which stalls.
fn stalling() -> (Fixture, Server, String) {
    let mut noise = Vec::new();
    let mut state = 1_u64;
    while noise.len() < 3 << 20 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        noise.extend_from_slice(&state.to_be_bytes()[..4]);
    }
    let fixture = Fixture::of("amd64", &[crate::support::tar_of(&[("noise", &noise)])]);
    let server = Server::with(&fixture);
    let path = format!("/v2/t/blobs/{}", fixture.layer_digest(0));
    (fixture, server, path)
}

#[test]
fn a_killed_pull_leaves_nothing_that_the_next_command_does_not_remove() {
    let (fixture, server, path) = stalling();
    server.once(&path, Reply::ok(fixture.layers[0].clone()).stall(2 << 20));
    let (dir, store) = new_store();
    let mut child = spawn(&store, &server.image(), None);
    wait_for(|| partial_length(&store) > 0);
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    assert!(!files(&store.root().join("tmp")).is_empty());

    let store = Store::open(dir.path().join("store")).unwrap();
    assert_nothing_left(&store);
    pull(&store, &server.image()).unwrap();
}

#[test]
fn a_pull_that_waits_takes_over_from_one_that_is_killed() {
    let (fixture, server, path) = stalling();
    server.once(&path, Reply::ok(fixture.layers[0].clone()).stall(2 << 20));
    let (_dir, store) = new_store();
    let mut child = spawn(&store, &server.image(), None);
    wait_for(|| partial_length(&store) > 0);
    let written = partial_length(&store);
    let waiting = thread::spawn({
        let (store, image) = (store.clone(), server.image());
        move || pull(&store, &image)
    });
    // Its own request for the manifest shows that it has begun; then it meets the lock.
    wait_for(|| server.requests("/manifests/").len() == 2);
    thread::sleep(Duration::from_millis(100));
    child.kill().unwrap();
    child.wait().unwrap();
    waiting.join().unwrap().unwrap();
    let range = server.requests(&path).last().unwrap().headers["range"].clone();
    let from: u64 = range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
    assert!(from >= written, "{range}, {written}");
}

#[test]
fn a_full_disk_is_an_error_that_names_the_file_and_leaves_nothing() {
    let (_, server, _) = stalling();
    let (_dir, store) = new_store();
    let child = spawn(&store, &server.image(), Some(1 << 20));
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("full: ") && text.contains("blobs/sha256/"), "{text}");
    assert_nothing_left(&store);
}
