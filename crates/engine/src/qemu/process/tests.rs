use std::fs::File;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use super::*;

const LIMITS: Limits =
    Limits { data: 1 << 30, address_space: 1 << 30, stack: 1 << 20, file_size: 0, files: 64 };

fn shell(script: &str, descriptors: Vec<OwnedFd>) -> Spec {
    Spec {
        program: PathBuf::from("/bin/sh"),
        arguments: vec!["-c".to_owned(), script.to_owned()],
        descriptors,
        limits: LIMITS,
        shares_memory: true,
    }
}

async fn end_of(spec: Spec) -> End {
    let process = Process::start(spec).await.expect("a shell");
    tokio::time::timeout(Duration::from_secs(20), process.ended()).await.expect("an end").expect("a status")
}

#[tokio::test]
async fn the_end_has_status_and_words() {
    let end = end_of(shell("echo some words >&2; exit 3", Vec::new())).await;
    assert_eq!((end.status.code(), end.stderr.as_str()), (Some(3), "some words"));
}

#[tokio::test]
async fn a_killed_process_is_gone_when_its_owner_drops_it() {
    let process = Process::start(shell("exec sleep 100", Vec::new())).await.expect("a shell");
    let pid = process.pid();
    process.kill();
    let end = process.ended().await.expect("a status");
    assert_eq!(end.status.signal(), Some(Signal::KILL.as_raw()));
    drop(process);
    assert!(rustix::process::test_kill_process(pid).is_err());
}

#[tokio::test]
async fn only_the_descriptors_that_are_given_are_inherited() {
    let other = File::open("/dev/null").expect("/dev/null");
    let given = File::open("/dev/null").expect("/dev/null");
    let number = std::os::fd::AsRawFd::as_raw_fd(&given);
    // `ls` has the directory itself open as well.
    let end = end_of(shell("exec ls /proc/self/fd >&2", vec![given.into()])).await;
    let seen: Vec<i32> = end.stderr.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    assert!([0, 1, 2, number].iter().all(|n| seen.contains(n)), "{seen:?}");
    assert_eq!(seen.len(), 5, "{seen:?}");
    drop(other);
}

#[tokio::test]
async fn environment_and_limits_are_as_told() {
    let script = "env; for l in c f n v s; do ulimit -$l; done";
    let end = end_of(shell(&format!("{{ {script}; }} >&2"), Vec::new())).await;
    let said: Vec<&str> = end.stderr.lines().filter(|line| !line.starts_with("PWD=")).collect();
    assert_eq!(said, ["MALLOC_ARENA_MAX=4", "0", "0", "64", "1048576", "1024"]);
}

#[tokio::test]
async fn a_program_that_is_not_there_is_an_error() {
    let mut spec = shell("", Vec::new());
    spec.program = PathBuf::from("/nonexistent/qemu");
    let error = Process::start(spec).await.expect_err("no program");
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[test]
fn only_the_end_of_much_output_is_kept() {
    let mut much = vec![b'a'; 100_000];
    much.write_all(b"\x1b[31mthe end\n").expect("memory");
    let tail = tail_of(much.as_slice());
    assert!(tail.ends_with("a[31mthe end"), "{tail}");
    assert!(tail.len() <= STDERR_TAIL);
}

#[tokio::test]
async fn no_hole_is_cut_into_shared_memory_and_that_is_no_error() {
    for (shares_memory, first) in [(true, 7), (false, 0)] {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(&[7; 8192]).expect("a write");
        let path = file.path().display();
        let words = "exec fallocate --punch-hole --offset 0 --length 4096";
        let mut spec = Spec { shares_memory, ..shell(&format!("{words} {path}"), Vec::new()) };
        spec.limits.file_size = 1 << 20;
        let end = end_of(spec).await;
        assert_eq!((end.status.code(), end.stderr.as_str()), (Some(0), ""));
        let bytes = std::fs::read(file.path()).expect("a file");
        assert_eq!((bytes[0], bytes[4096]), (first, 7));
    }
}

/// QEMU writes zeros where it is told that the kernel cannot.
#[tokio::test]
async fn any_other_allocation_is_unsupported_where_memory_is_shared() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let path = file.path().display();
    let mut spec = shell(&format!("exec fallocate --length 4096 {path}"), Vec::new());
    spec.limits.file_size = 1 << 20;
    let end = end_of(spec).await;
    assert_eq!(end.status.code(), Some(1));
    assert!(end.stderr.contains("not supported"), "{}", end.stderr);
}
