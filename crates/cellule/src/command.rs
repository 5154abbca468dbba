//! Programs that are run in a sandbox, in the shape of `std::process::Command`.

use std::io;
use std::time::Duration;

use cellule_protocol::client::{
    Exec, ExecId, ExecSpec, ExitStatus, Lost, Output as Pipe, Process, Rlimit, Session, StagedFile,
    Stdin as StdinPipe, TerminalSize,
};
use tokio::io::AsyncReadExt as _;

use crate::{Error, Sandbox, Signal, Variables};

/// What [`Command::output`] keeps of each stream at most, if nobody says otherwise.
pub const DEFAULT_OUTPUT_LIMIT: usize = 64 << 20;
/// What is staged with the command's own message; more than that is written as a file before.
const STAGED_LIMIT: usize = 2 << 20;

/// A program to run in a sandbox.
///
/// Begins with the sandbox's own environment, user and directory, those of its image and its builder.
///
#[cfg_attr(not(cellule_guest), doc = "```no_run")]
#[cfg_attr(cellule_guest, doc = "```")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let sandbox = cellule::Sandbox::builder("base")?.start().await?;
/// use cellule::Exit;
/// use tokio::io::AsyncWriteExt;
///
/// let mut sort = sandbox.command("sort").stdin(true).spawn().await?;
/// sort.stdin.as_mut().expect("it was asked for").write_all(b"b\na\n").await?;
/// // As with `std::process`, waiting ends the input first.
/// let sorted = sort.collect(1 << 20).await?;
/// assert_eq!(sorted.stdout, b"a\nb\n");
///
/// let failed = sandbox.command("sh").args(["-c", "echo oops >&2; exit 3"]).output().await?;
/// assert_eq!(failed.status.exit, Exit::Code(3));
/// assert_eq!(failed.stderr, b"oops\n");
///
/// let mut sleep = sandbox.command("sleep");
/// sleep.arg("1000").timeout(std::time::Duration::from_millis(200));
/// assert!(sleep.status().await?.timed_out);
/// # sandbox.end().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Command {
    session: Session,
    spec: ExecSpec,
    env: Vec<String>,
    variables: Variables,
    error: Option<crate::InvalidVariable>,
    output_limit: usize,
}

impl Command {
    pub(crate) fn new(sandbox: &Sandbox, program: Vec<u8>) -> Self {
        let of = sandbox.spec();
        let spec = ExecSpec {
            argv: vec![program],
            cwd: of.working_dir.clone().into_bytes(),
            create_cwd: true,
            user: of.user.clone(),
            ..ExecSpec::default()
        };
        Self {
            session: sandbox.session().clone(),
            spec,
            env: of.env.clone(),
            variables: Variables::default(),
            error: None,
            output_limit: DEFAULT_OUTPUT_LIMIT,
        }
    }

    /// Adds an argument to the last program: the only one, or what [`and_then`](Self::and_then) added.
    pub fn arg(&mut self, argument: impl Into<Vec<u8>>) -> &mut Self {
        self.spec.then.last_mut().unwrap_or(&mut self.spec.argv).push(argument.into());
        self
    }

    /// Adds arguments.
    pub fn args<A: Into<Vec<u8>>>(&mut self, arguments: impl IntoIterator<Item = A>) -> &mut Self {
        for argument in arguments {
            self.arg(argument);
        }
        self
    }

    /// Runs one more program once the one before ended with code 0, as `&&` does in a shell.
    pub fn and_then(&mut self, program: impl Into<Vec<u8>>) -> &mut Self {
        self.spec.then.push(vec![program.into()]);
        self
    }

    /// Sets a variable.
    pub fn env(&mut self, name: &str, value: &str) -> &mut Self {
        if let Err(error) = self.variables.set(format!("{name}={value}")) {
            self.error = Some(error);
        }
        self
    }

    /// Takes a variable of the sandbox's away.
    pub fn env_remove(&mut self, name: &str) -> &mut Self {
        self.variables.unset(name);
        self
    }

    /// Sets and takes away all of these variables.
    pub fn variables(&mut self, variables: Variables) -> &mut Self {
        self.variables = variables;
        self
    }

    /// Takes all variables of the sandbox's away.
    pub fn env_clear(&mut self) -> &mut Self {
        self.env.clear();
        self
    }

    /// Runs it in this directory, an absolute path.
    pub fn current_dir(&mut self, dir: impl Into<Vec<u8>>) -> &mut Self {
        self.spec.cwd = dir.into();
        self.spec.create_cwd = false;
        self
    }

    /// Runs it as this user: `name|uid[:group|gid]`.
    pub fn user(&mut self, user: impl Into<String>) -> &mut Self {
        self.spec.user = user.into();
        self
    }

    /// Gives it another group, by name or number.
    pub fn group(&mut self, group: impl Into<String>) -> &mut Self {
        self.spec.groups.push(group.into());
        self
    }

    /// Gives it a standard input to be written to; without, it reads `/dev/null`.
    pub fn stdin(&mut self, piped: bool) -> &mut Self {
        self.spec.stdin = piped;
        self
    }

    /// Gives it a terminal of this size, which is its input, output and error.
    pub fn terminal(&mut self, size: TerminalSize) -> &mut Self {
        self.spec.terminal = Some(size);
        self
    }

    /// Kills it, with all that it started, after this time.
    pub fn timeout(&mut self, limit: Duration) -> &mut Self {
        self.spec.timeout = Some(limit);
        self
    }

    /// Limits a resource.
    pub fn rlimit(&mut self, limit: Rlimit) -> &mut Self {
        self.spec.rlimits.push(limit);
        self
    }

    /// Writes a file before the program starts, in one step. It is the program's user's.
    pub fn stage(
        &mut self,
        path: impl Into<Vec<u8>>,
        content: impl Into<Vec<u8>>,
        mode: Option<u32>,
    ) -> &mut Self {
        self.spec.files.push(StagedFile { path: path.into(), content: content.into(), mode });
        self
    }

    /// Keeps at most this much of each stream in [`output`](Self::output); the rest is counted.
    pub fn output_limit(&mut self, bytes: usize) -> &mut Self {
        self.output_limit = bytes;
        self
    }

    fn spec(&self) -> Result<ExecSpec, Error> {
        if let Some(error) = self.error {
            return Err(error.into());
        }
        let staged: usize = self.spec.files.iter().map(|file| file.content.len()).sum();
        if staged > STAGED_LIMIT {
            let why = "more than 2 MiB; write larger files before, with Sandbox::files";
            return Err(Error::Option { option: "staged files", value: format!("{staged} bytes"), why });
        }
        let mut spec = self.spec.clone();
        let env = self.variables.merge(self.env.iter().cloned());
        spec.env = env.into_iter().map(String::into_bytes).collect();
        if spec.terminal.is_some() && !spec.env.iter().any(|variable| variable.starts_with(b"TERM=")) {
            spec.env.push(b"TERM=xterm".to_vec());
        }
        Ok(spec)
    }

    fn program(&self) -> String {
        String::from_utf8_lossy(self.spec.argv.first().map_or(&[][..], Vec::as_slice)).into_owned()
    }

    /// Starts it, and returns when it runs.
    ///
    /// # Errors
    /// It cannot be started, for the guest's reason; the sandbox is lost.
    pub async fn spawn(&self) -> Result<Child, Error> {
        let exec =
            self.session.exec(self.spec()?).await.map_err(|error| Error::exec(&self.program(), error))?;
        let Exec { stdin, stdout, stderr, process } = exec;
        Ok(Child { stdin, stdout: Some(stdout), stderr, process, session: self.session.clone() })
    }

    /// Starts it so that it outlives this process, and keeps the last of its output. [`Sandbox::attach`] joins it.
    ///
    /// # Errors
    /// As of [`spawn`](Self::spawn).
    pub async fn spawn_detached(&self) -> Result<ExecId, Error> {
        let id = ExecId::random();
        let started = self.session.exec_detached(id, self.spec()?).await;
        started.map(|_pid| id).map_err(|error| Error::exec(&self.program(), error))
    }

    /// Runs it to its end, all of its standard streams `/dev/null`; one with a terminal writes to nobody.
    ///
    /// # Errors
    /// As of [`spawn`](Self::spawn) and [`Child::wait`].
    pub async fn status(&self) -> Result<ExitStatus, Error> {
        let spec = self.spec()?;
        if spec.terminal.is_none() {
            let started = self.session.exec_without_output(spec).await;
            let mut process = started.map_err(|error| Error::exec(&self.program(), error))?;
            return process.wait().await.map_err(lost);
        }
        let mut child = self.spawn().await?;
        // A program whose readers are gone is told so by its own writes.
        let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
        let (status, _, _) = tokio::join!(child.wait(), drain(stdout.as_mut()), drain(stderr.as_mut()));
        status
    }

    /// Runs it to its end and collects what it writes, up to the [limit](Self::output_limit).
    ///
    /// # Errors
    /// As of [`spawn`](Self::spawn) and [`Child::wait`].
    pub async fn output(&self) -> Result<Output, Error> {
        self.spawn().await?.collect(self.output_limit).await
    }
}

async fn drain(pipe: Option<&mut Pipe>) -> io::Result<()> {
    if let Some(pipe) = pipe {
        tokio::io::copy(pipe, &mut tokio::io::sink()).await?;
    }
    Ok(())
}

/// A program that runs in a sandbox. Dropping it before its exit kills it with all that it started, unless it was
/// [detached](Self::detach).
#[derive(Debug)]
pub struct Child {
    /// Its standard input, if the command asked for one. Dropping it, or shutting it down, ends the input.
    pub stdin: Option<StdinPipe>,
    /// Its standard output. A program whose output is not read waits, as at any pipe.
    pub stdout: Option<Pipe>,
    /// Its standard error, unless it has a terminal.
    pub stderr: Option<Pipe>,
    process: Process,
    session: Session,
}

impl Child {
    /// Its process number in the guest.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// By which it can be found again.
    pub fn id(&self) -> ExecId {
        self.process.id()
    }

    /// Ends its standard input and waits for its exit. Cancelling the wait loses nothing.
    ///
    /// # Errors
    /// The sandbox is lost: the program's fate is unknown, and never an exit code.
    pub async fn wait(&mut self) -> Result<ExitStatus, Error> {
        drop(self.stdin.take());
        self.exit().await
    }

    /// Waits for its exit, its standard input left as it is.
    ///
    /// # Errors
    /// As of [`wait`](Self::wait).
    pub async fn exit(&mut self) -> Result<ExitStatus, Error> {
        self.process.wait().await.map_err(lost)
    }

    /// Waits for its exit and collects what it writes, up to so many bytes of each stream.
    ///
    /// # Errors
    /// As of [`wait`](Self::wait).
    pub async fn collect(mut self, limit: usize) -> Result<Output, Error> {
        let (stdout, stderr) = (self.stdout.take(), self.stderr.take());
        let (status, stdout, stderr) = tokio::join!(self.wait(), keep(stdout, limit), keep(stderr, limit));
        let status = status?;
        let read = |source| Error::Io { doing: "read the program's output".to_owned(), source };
        let ((stdout, stdout_dropped), (stderr, stderr_dropped)) =
            (stdout.map_err(read)?, stderr.map_err(read)?);
        Ok(Output { status, stdout, stderr, stdout_dropped, stderr_dropped })
    }

    /// Sends it a signal; `false` if it is gone.
    ///
    /// # Errors
    /// The sandbox is lost, or does not answer.
    pub async fn signal(&self, signal: Signal) -> Result<bool, Error> {
        Ok(self.session.signal(self.id(), signal.number(), false).await?)
    }

    /// Kills it with all that it started.
    ///
    /// # Errors
    /// The sandbox is lost, or does not answer.
    pub async fn kill(&self) -> Result<bool, Error> {
        Ok(self.session.signal(self.id(), Signal::KILL.number(), true).await?)
    }

    /// Tells its terminal its size; `false` if it is gone.
    ///
    /// # Errors
    /// It has no terminal, the sandbox is lost, or does not answer.
    pub async fn resize(&self, size: TerminalSize) -> Result<bool, Error> {
        Ok(self.session.resize(self.id(), size).await?)
    }

    /// Lets it live on without this process.
    ///
    /// # Errors
    /// The sandbox is lost, or does not answer.
    pub async fn detach(self) -> Result<ExecId, Error> {
        self.session.detach(self.id()).await?;
        Ok(self.id())
    }
}

/// Reads to the end, and keeps the beginning.
async fn keep(pipe: Option<Pipe>, limit: usize) -> io::Result<(Vec<u8>, u64)> {
    let Some(mut pipe) = pipe else { return Ok((Vec::new(), 0)) };
    let mut kept = Vec::new();
    (&mut pipe).take(limit as u64).read_to_end(&mut kept).await?;
    let dropped = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await?;
    Ok((kept, dropped))
}

fn lost(lost: Lost) -> Error {
    Error::Lost { lost, failure: None }
}

/// What came of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// The beginning of what it wrote to standard output.
    pub stdout: Vec<u8>,
    /// The beginning of what it wrote to standard error.
    pub stderr: Vec<u8>,
    /// How many bytes of standard output came beyond the limit.
    pub stdout_dropped: u64,
    /// How many bytes of standard error came beyond the limit.
    pub stderr_dropped: u64,
}
