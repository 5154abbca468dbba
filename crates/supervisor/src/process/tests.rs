//! A supervisor without a guest: its machine never comes to be.

use std::path::Path;

use cellule_protocol::client::{Limits, SupervisorClient};
use cellule_protocol::supervisor::v1;
use rustix::fs::{CWD, FileType, Mode};
use tokio::net::UnixStream;

use super::*;
use crate::client::{Sandbox, SandboxError, StopOptions};
use crate::directory::tests::{entries, home, spec};
use crate::listener;
use crate::sandboxes::Sandboxes;
use crate::spec::MainSpec;
use crate::status::Status;

const HANG: Duration = Duration::from_secs(20);

/// A sandbox that is kept, its lock held.
fn kept(sandboxes: &Sandboxes, spec: &SandboxSpec) -> SandboxDir {
    drop(sandboxes.create(spec, None).unwrap());
    let dir = sandboxes.lock(&spec.id).unwrap();
    dir.write_record(&dir.record().unwrap().starting()).unwrap();
    dir
}

/// One whose start waits for ever: its root filesystem is a FIFO that nobody writes to.
struct Waiting {
    home: tempfile::TempDir,
    sandboxes: Sandboxes,
    spec: SandboxSpec,
}

impl Waiting {
    fn new() -> Self {
        let (home, sandboxes) = home();
        let rootfs = home.path().join("rootfs");
        rustix::fs::mknodat(CWD, &rootfs, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let main = MainSpec {
            argv: vec!["true".into()],
            env: Vec::new(),
            working_dir: String::new(),
            user: String::new(),
            groups: Vec::new(),
            tty: false,
            rows: 0,
            columns: 0,
            stdin: crate::MainStdin::None,
            timeout_ms: None,
            rlimits: Vec::new(),
        };
        Self { home, sandboxes, spec: SandboxSpec { rootfs, main: Some(main), ..spec() } }
    }

    fn supervise(&self, dir: SandboxDir) -> (UnixStream, JoinHandle<Result<(), DirectoryError>>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (ours, tokio::spawn(supervise(dir, self.spec.clone(), theirs)))
    }

    async fn connect(&self) -> Sandbox {
        let entry = self.sandboxes.find(self.spec.id.as_str()).unwrap();
        tokio::time::timeout(HANG, Sandbox::connect(&entry)).await.unwrap().unwrap()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // The thread that opens it is waited for at the end of the runtime.
        _ = std::fs::File::options().read(true).write(true).open(self.home.path().join("rootfs"));
    }
}

async fn client(ours: UnixStream) -> (Session, SupervisorClient) {
    let limits = Limits { repeat_preface: false, ..Limits::default() };
    let session = Session::connect(ours, limits).await.unwrap();
    let supervisor = session.supervisor();
    (session, supervisor)
}

async fn last_status(supervisor: &mut SupervisorClient) -> Status {
    let mut statuses = supervisor.watch(v1::WatchRequest {}).await.unwrap().into_inner();
    let mut last = None;
    while let Ok(Ok(Some(status))) = tokio::time::timeout(HANG, statuses.message()).await {
        last = Some(Status::try_from(status).unwrap());
    }
    last.unwrap()
}

fn refused(result: &Result<(), SandboxError>, words: &str) {
    match result {
        Err(SandboxError::Refused { message }) => assert!(message.contains(words), "{message}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_sandbox_that_cannot_start_says_why_and_its_directory_too() {
    let (_home, sandboxes) = home();
    let spec = spec();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let supervisor = tokio::spawn(supervise(kept(&sandboxes, &spec), spec.clone(), theirs));
    let (session, mut calls) = client(ours).await;
    let status = last_status(&mut calls).await;
    assert_eq!(status.state, State::Failed);
    let failure = status.failure.unwrap();
    assert!(failure.message.contains("is not here any more"), "{failure:?}");
    assert!(failure.causes[0].starts_with("cannot open /r"), "{failure:?}");
    // Told last: all is in order by then.
    let record = sandboxes.find(spec.id.as_str()).unwrap().record;
    assert_eq!(record.state, State::Failed);
    assert_eq!(record.cause, Some(failure.line()));
    assert!(!sandboxes.path_of(&spec.id).join("socket").exists());
    sandboxes.lock(&spec.id).unwrap().remove().unwrap();
    drop((session, calls));
    tokio::time::timeout(HANG, supervisor).await.unwrap().unwrap().unwrap();
    let actions: Vec<_> =
        sandboxes.events().read_since(0).unwrap().iter().map(|event| event.action).collect();
    assert_eq!(actions, [Action::Create, Action::Die, Action::Destroy]);
}

#[tokio::test]
async fn what_nobody_keeps_is_gone_before_its_failure_is_told() {
    let (home, sandboxes) = home();
    let spec = spec();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let dir = sandboxes.create(&spec, None).unwrap();
    tokio::spawn(supervise(dir, spec, theirs));
    let (_session, mut calls) = client(ours).await;
    assert_eq!(last_status(&mut calls).await.state, State::Failed);
    assert_eq!(entries(&home.path().join("sandboxes")), 0);
}

#[tokio::test]
async fn a_start_that_waits_can_be_asked_refused_and_stopped_by_anyone() {
    let waiting = Waiting::new();
    let (ours, supervisor) = waiting.supervise(kept(&waiting.sandboxes, &waiting.spec));
    let (owner, calls) = client(ours).await;
    let mut guest = waiting.connect().await;
    refused(&guest.pause().await, "still starting");
    refused(&guest.resume().await, "not paused");
    refused(&guest.kill(15).await, "still starting");
    refused(&guest.kill(99).await, "no such signal");
    assert_eq!(guest.status().await.unwrap().state, State::Starting);
    let options = StopOptions { grace: Duration::from_secs(5), ..StopOptions::default() };
    tokio::time::timeout(HANG, guest.stop(options)).await.unwrap().unwrap();
    let record = waiting.sandboxes.find(waiting.spec.id.as_str()).unwrap().record;
    assert_eq!((record.state, record.cause, record.supervisor_pid), (State::Stopped, None, None));
    waiting.sandboxes.lock(&waiting.spec.id).unwrap();
    drop((owner, calls, guest));
    tokio::time::timeout(HANG, supervisor).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_stop_that_removes_leaves_nothing() {
    let waiting = Waiting::new();
    let (_ours, _supervisor) = waiting.supervise(kept(&waiting.sandboxes, &waiting.spec));
    let mut guest = waiting.connect().await;
    guest.stop(StopOptions { remove: true, ..StopOptions::default() }).await.unwrap();
    assert_eq!(entries(&waiting.home.path().join("sandboxes")), 0);
}

#[tokio::test]
async fn an_owner_that_goes_ends_a_start_and_a_guest_that_goes_does_not() {
    let waiting = Waiting::new();
    let (ours, supervisor) = waiting.supervise(waiting.sandboxes.create(&waiting.spec, None).unwrap());
    let (owner, calls) = client(ours).await;
    let mut guest = waiting.connect().await;
    // Not a guest's to say, and without effect.
    guest.release().await.unwrap();
    drop(waiting.connect().await);
    assert_eq!(guest.status().await.unwrap().state, State::Starting);
    drop((owner, calls));
    let ended = tokio::time::timeout(HANG, guest.running()).await.unwrap();
    assert!(matches!(ended, Err(SandboxError::Failed(_))), "{ended:?}");
    assert_eq!(entries(&waiting.home.path().join("sandboxes")), 0, "nobody was told of it");
    drop(guest);
    tokio::time::timeout(HANG, supervisor).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_released_sandbox_outlives_its_owner() {
    let waiting = Waiting::new();
    let (ours, _supervisor) = waiting.supervise(waiting.sandboxes.create(&waiting.spec, None).unwrap());
    let (owner, mut calls) = client(ours).await;
    calls.release(v1::ReleaseRequest {}).await.unwrap();
    assert!(
        waiting.sandboxes.find(waiting.spec.id.as_str()).unwrap().record.kept,
        "the answer follows the disk"
    );
    drop((owner, calls));
    let mut guest = waiting.connect().await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(guest.status().await.unwrap().state, State::Starting);
    guest.stop(StopOptions::default()).await.unwrap();
}

#[tokio::test]
async fn time_that_is_over_ends_and_removes_even_a_start() {
    let mut waiting = Waiting::new();
    let dir = waiting.sandboxes.create(&waiting.spec, None).unwrap();
    waiting.spec.expires_ns = Some(now_ns() + 300_000_000);
    let (ours, _supervisor) = waiting.supervise(dir);
    let (_owner, mut calls) = client(ours).await;
    assert_eq!(last_status(&mut calls).await.state, State::Stopped);
    assert_eq!(entries(&waiting.home.path().join("sandboxes")), 0);
}

#[tokio::test]
async fn streams_of_a_main_program_that_never_started_are_cut() {
    let waiting = Waiting::new();
    let (_ours, _supervisor) = waiting.supervise(kept(&waiting.sandboxes, &waiting.spec));
    let mut guest = waiting.connect().await;
    let mut stdio = guest.main_stdio(false, true).await.unwrap();
    guest.stop(StopOptions::default()).await.unwrap();
    let mut byte = [0];
    let read = tokio::io::AsyncReadExt::read(&mut stdio.stdout, &mut byte);
    let read = tokio::time::timeout(HANG, read).await.unwrap();
    assert!(read.is_err(), "never a clean end: {read:?}");
}

#[tokio::test]
async fn a_connection_that_says_nothing_sensible_disturbs_nobody() {
    use tokio::io::AsyncWriteExt as _;
    let waiting = Waiting::new();
    let (_ours, _supervisor) = waiting.supervise(kept(&waiting.sandboxes, &waiting.spec));
    let mut guest = waiting.connect().await;
    let path = waiting.sandboxes.path_of(&waiting.spec.id);
    let mut noise = listener::connect(&path).await.unwrap();
    // More than it listens to; it hangs up somewhere in the middle.
    _ = noise.write_all(&vec![b'x'; 1 << 20]).await;
    assert_eq!(guest.status().await.unwrap().state, State::Starting);
    guest.stop(StopOptions::default()).await.unwrap();
}

#[tokio::test]
async fn a_supervisor_that_cannot_be_started_leaves_all_as_it_was() {
    let (home, sandboxes) = home();
    let spec = spec();
    let missing = Path::new("/nonexistent/cellule");
    let fresh = Sandbox::start(sandboxes.create(&spec, None).unwrap(), missing).await;
    assert!(matches!(fresh, Err(SandboxError::Spawn { .. })), "{fresh:?}");
    assert_eq!(entries(&home.path().join("sandboxes")), 0);
    drop(sandboxes.create(&spec, None).unwrap());
    let before = sandboxes.find(spec.id.as_str()).unwrap();
    let again = Sandbox::start(sandboxes.lock(&spec.id).unwrap(), missing).await;
    assert!(matches!(again, Err(SandboxError::Spawn { .. })), "{again:?}");
    assert_eq!(sandboxes.find(spec.id.as_str()).unwrap(), before);
}

#[tokio::test]
async fn a_supervisor_that_dies_at_once_is_told_with_its_words() {
    use std::os::unix::fs::PermissionsExt as _;
    let (home, sandboxes) = home();
    let program = home.path().join("program");
    std::fs::write(&program, "#!/bin/sh\necho last words >&2\nexit 1\n").unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
    let started = Sandbox::start(sandboxes.create(&spec(), None).unwrap(), &program).await;
    match started {
        Err(SandboxError::SupervisorGone { log }) => assert_eq!(log, "last words\n"),
        other => panic!("{other:?}"),
    }
    assert_eq!(entries(&home.path().join("sandboxes")), 0);
}
