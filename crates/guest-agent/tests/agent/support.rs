//! An agent process, and sessions with it.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cellule_guest_agent::port::Port;
use cellule_guest_agent::session::Agent;
use cellule_protocol::client::{Exec, ExecSpec, ExitStatus, Limits, Session};
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
        let child = Command::new(std::env::current_exe().unwrap())
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
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let (out, err, status) = tokio::time::timeout(LIMIT, async {
        tokio::join!(
            exec.stdout.read_to_end(&mut stdout),
            exec.stderr.read_to_end(&mut stderr),
            exec.process.wait()
        )
    })
    .await
    .unwrap();
    out.unwrap();
    err.unwrap();
    (status.unwrap(), stdout, stderr)
}
