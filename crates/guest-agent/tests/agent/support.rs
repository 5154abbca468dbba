//! An agent process, and sessions with it.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cellule_guest_agent::port::Port;
use cellule_guest_agent::session::Agent;
use cellule_protocol::client::{
    AttachEvent, AttachSpec, Attachment, Exec, ExecId, ExecSpec, ExitStatus, Limits, Output, Session,
};
use tokio::io::AsyncReadExt;
use tokio::net::{UnixListener, UnixStream};

const SOCKET: &str = "CELLULE_TEST_AGENT_SOCKET";

/// Against hangs only.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// An agent that ends with its test.
pub(crate) struct AgentProcess {
    child: Child,
    dir: tempfile::TempDir,
}

impl AgentProcess {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Whoever runs tests in the background ignores signals that programs of a guest find as they should be.
        let child = Command::new("env")
            .arg("--default-signal=HUP,INT,QUIT")
            .arg(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "support::the_agent_process"])
            .env(SOCKET, dir.path().join("port"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, dir }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("port")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Opens the port, as the engine does.
    pub(crate) async fn port(&self) -> UnixStream {
        tokio::time::timeout(LIMIT, async {
            loop {
                match UnixStream::connect(self.socket()).await {
                    Ok(stream) => return stream,
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        })
        .await
        .unwrap()
    }

    pub(crate) async fn session(&self) -> Session {
        Session::connect(self.port().await, Limits::default()).await.unwrap()
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for AgentProcess {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

struct Listener(UnixListener);

impl Port for Listener {
    type Io = UnixStream;

    async fn next(&mut self) -> std::io::Result<Option<UnixStream>> {
        Ok(Some(self.0.accept().await?.0))
    }
}

#[test]
#[ignore = "the process that the other tests talk to"]
fn the_agent_process() {
    let path = std::env::var_os(SOCKET).expect("started by a test");
    // Orphans come to it, as to the first process of a guest.
    rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut port = Listener(UnixListener::bind(path).unwrap());
        Agent::new(None).serve(&mut port).await;
    });
}

/// `sh -c script`, in this process's own PATH.
pub(crate) fn shell(script: &str) -> ExecSpec {
    ExecSpec {
        argv: ["sh", "-c", script].map(|word| word.as_bytes().to_vec()).to_vec(),
        env: vec![b"PATH=/usr/local/bin:/usr/bin:/bin".to_vec()],
        ..ExecSpec::default()
    }
}

/// Runs it to its end, and returns that with all that it wrote.
pub(crate) async fn run(session: &Session, spec: ExecSpec) -> (ExitStatus, Vec<u8>, Vec<u8>) {
    let exec = session.exec(spec).await.unwrap();
    finish(exec).await
}

pub(crate) async fn finish(mut exec: Exec) -> (ExitStatus, Vec<u8>, Vec<u8>) {
    drop(exec.stdin.take());
    let (stdout, stderr, status) = within(async {
        tokio::join!(all_of(Some(&mut exec.stdout)), all_of(exec.stderr.as_mut()), exec.process.wait())
    })
    .await;
    (status.unwrap(), stdout, stderr)
}

/// What a stream has until its end.
pub(crate) async fn all_of(output: Option<&mut Output>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(output) = output {
        output.read_to_end(&mut bytes).await.unwrap();
    }
    bytes
}

/// Joins an exec with both of its outputs, from their beginning.
pub(crate) async fn attach(session: &Session, id: ExecId) -> Attachment {
    let all = AttachSpec { stdin: false, stdout: Some(0), stderr: Some(0) };
    within(session.attach(id, all)).await.unwrap()
}

/// How a joined exec ends, and what it was told to have missed before.
pub(crate) async fn exit_of(attachment: &mut Attachment) -> (ExitStatus, Vec<AttachEvent>) {
    let mut missed = Vec::new();
    loop {
        match within(attachment.next()).await.unwrap() {
            AttachEvent::Exited(status) => return (status, missed),
            dropped @ AttachEvent::Dropped { .. } => missed.push(dropped),
        }
    }
}

pub(crate) async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, what).await.unwrap()
}

/// Waits until the process is gone, or a zombie.
pub(crate) async fn assert_gone(pid: &str) {
    let path = std::path::Path::new("/proc").join(pid).join("exe");
    let begun = std::time::Instant::now();
    while path.read_link().is_ok() {
        assert!(begun.elapsed() < LIMIT, "{pid} lives on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
