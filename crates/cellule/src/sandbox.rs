//! A sandbox that runs: the handle to it, whoever started it.

mod network;

use std::time::Duration;

use cellule_engine::MemorySize;
use cellule_image::Image;
use cellule_protocol::client::files::Files;
use cellule_protocol::client::{
    AttachSpec, Attachment, ExecId, ExecInfo, ExitStatus, Lost, PortStream, Session, Stdio, TerminalSize,
};
use cellule_protocol::v1;
use cellule_supervisor::{
    Entry, SandboxDir, SandboxError, SandboxName, SandboxSpec, SecretValues, StartMainError, Status,
    StopOptions,
};

use crate::builder::mib;
use crate::{Builder, Command, Error, Host, Signal, Stats, secrets, stats};

/// A running sandbox.
///
/// One that this process [started](Builder::start) belongs to it: dropping the handle, or the death of the process, ends
/// the sandbox, unless it was [detached](Self::detach). One that was [connected](Self::connect) to belongs to nobody
/// here: dropping the handle only hangs up.
#[derive(Debug)]
pub struct Sandbox {
    host: Host,
    name: Option<SandboxName>,
    spec: SandboxSpec,
    link: cellule_supervisor::Sandbox,
    /// Until the supervisor holds the image itself.
    image: Option<Image>,
}

impl Sandbox {
    /// Describes a sandbox of an image, with the state where the environment says.
    ///
    /// # Errors
    /// The environment names no place for the state.
    pub fn builder(image: impl Into<String>) -> Result<Builder, Error> {
        Ok(Host::locate()?.sandbox(image))
    }

    /// Connects to a running sandbox by its name, or what its id begins with.
    ///
    /// # Errors
    /// There is none, or it does not run.
    pub async fn connect(name: &str) -> Result<Self, Error> {
        Host::locate()?.connect(name).await
    }

    /// Connects to the sandbox of an entry.
    ///
    /// # Errors
    /// It does not run.
    pub async fn open(host: Host, entry: Entry) -> Result<Self, Error> {
        if !entry.is_live() {
            return Err(Error::NotRunning { name: display_name(&entry), state: entry.record.state });
        }
        let link = cellule_supervisor::Sandbox::connect(&entry).await?;
        Ok(Self { host, name: entry.name, spec: entry.spec, link, image: None })
    }

    /// Starts the sandbox of an entry that does not run. [`ready`](Self::ready) waits for it.
    ///
    /// It belongs to this process until it is [detached](Self::detach).
    ///
    /// # Errors
    /// It runs already, or what it is made of is gone.
    pub async fn start(host: Host, entry: Entry) -> Result<Self, Error> {
        let secrets = secrets::again(&entry.spec)?;
        let dir = host.sandboxes()?.lock(&entry.spec.id)?;
        Self::launch(host, entry.spec, entry.name, dir, secrets, None).await
    }

    pub(crate) async fn launch(
        host: Host,
        spec: SandboxSpec,
        name: Option<SandboxName>,
        dir: SandboxDir,
        secrets: SecretValues,
        image: Option<Image>,
    ) -> Result<Self, Error> {
        host.networks().check(&spec.network.networks)?;
        let link = cellule_supervisor::Sandbox::start(dir, &host.supervisor()?).await?;
        Self { host, name, spec, link, image }.with_secrets(secrets).await
    }

    pub(crate) async fn of_link(
        host: Host,
        spec: SandboxSpec,
        name: Option<SandboxName>,
        link: cellule_supervisor::Sandbox,
        secrets: SecretValues,
    ) -> Result<Self, Error> {
        Self { host, name, spec, link, image: None }.with_secrets(secrets).await
    }

    /// Says the values of its secrets, for which its start waits.
    async fn with_secrets(mut self, secrets: SecretValues) -> Result<Self, Error> {
        if !self.spec.network.secrets.is_empty() {
            Box::pin(self.link.give_secrets(secrets)).await?;
        }
        Ok(self)
    }

    /// Waits until it runs, its main program too if it has one.
    pub(crate) async fn up(mut self) -> Result<Self, Error> {
        self.ready().await?;
        if self.has_main() {
            self.start_main().await?;
        }
        Ok(self)
    }

    /// Its id, 12 hexadecimal digits.
    pub fn id(&self) -> &str {
        self.spec.id.as_str()
    }

    /// Its name, if it has one; as of when this handle was made.
    pub fn name(&self) -> Option<&str> {
        self.name.as_ref().map(SandboxName::as_str)
    }

    /// What it is made of.
    pub fn spec(&self) -> &SandboxSpec {
        &self.spec
    }

    /// Whether it has a main program, whose end is the sandbox's.
    pub fn has_main(&self) -> bool {
        self.spec.main.is_some()
    }

    /// Waits until the guest answers.
    ///
    /// # Errors
    /// The guest does not boot.
    pub async fn ready(&mut self) -> Result<Status, Error> {
        let status = self.link.running().await?;
        // Its supervisor holds the root filesystem by now.
        self.image = None;
        Ok(status)
    }

    /// Opens the main program's streams: its input if `stdin` is set, its standard error unless it has a terminal. All of
    /// its output comes if this is done before [`start_main`](Self::start_main).
    ///
    /// # Errors
    /// The sandbox is lost.
    pub async fn main_stdio(&self, stdin: bool) -> Result<Stdio, Error> {
        let stderr = self.spec.main.as_ref().is_some_and(|main| !main.tty);
        self.link.main_stdio(stdin, stderr).await.map_err(|lost| self.lost(lost))
    }

    /// Starts the main program, as soon as the guest answers.
    ///
    /// # Errors
    /// It cannot be started; the guest does not boot.
    pub async fn start_main(&mut self) -> Result<(), Error> {
        match self.link.start_main().await {
            Ok(()) => Ok(()),
            Err(StartMainError::Failed(source)) => {
                let program = self.spec.main.as_ref().and_then(|main| main.argv.first()).cloned();
                Err(Error::Start { program: program.unwrap_or_default(), source })
            }
            Err(StartMainError::Sandbox(error)) => Err(error.into()),
        }
    }

    /// Waits for the main program's end, however long that takes. All of its output has been passed on by then.
    ///
    /// # Errors
    /// The sandbox ended without it, or has none.
    pub async fn wait(&mut self) -> Result<ExitStatus, Error> {
        Ok(self.link.wait_main().await?)
    }

    /// Lets the sandbox live on without this process.
    ///
    #[cfg_attr(not(cellule_guest), doc = "```no_run")]
    #[cfg_attr(cellule_guest, doc = "```")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use cellule::{Exit, Sandbox, StopOptions};
    /// use std::time::Duration;
    ///
    /// let mut sandbox = Sandbox::builder("base")?.start().await?;
    /// sandbox.detach().await?;
    /// let id = sandbox.id().to_owned();
    /// drop(sandbox);
    ///
    /// // In another process as well as here.
    /// let mut again = Sandbox::connect(&id).await?;
    /// assert_eq!(again.command("true").status().await?.exit, Exit::Code(0));
    /// let options = StopOptions { grace: Duration::from_secs(1), signal: None, remove: true };
    /// again.stop_with(options).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The sandbox is gone.
    pub async fn detach(&mut self) -> Result<(), Error> {
        Ok(self.link.release().await?)
    }

    /// Begins a program to run in it, with the environment, user and directory of the sandbox.
    pub fn command(&self, program: impl Into<Vec<u8>>) -> Command {
        Command::new(self, program.into())
    }

    /// Its files.
    ///
    #[cfg_attr(not(cellule_guest), doc = "```no_run")]
    #[cfg_attr(cellule_guest, doc = "```")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let sandbox = cellule::Sandbox::builder("base")?.start().await?;
    /// use cellule::{ReadRange, WriteOptions};
    /// use tokio::io::{AsyncReadExt, AsyncWriteExt};
    ///
    /// let files = sandbox.files();
    /// let mut file = files.write("/tmp/note", WriteOptions::default()).await?;
    /// file.write_all(b"hello").await?;
    /// // Until here there is no file, and if this is never reached there will be none.
    /// file.finish().await?;
    ///
    /// let mut text = String::new();
    /// files.read("/tmp/note", ReadRange::default()).await?.read_to_string(&mut text).await?;
    /// assert_eq!(text, "hello");
    /// # sandbox.end().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn files(&self) -> Files {
        self.session().files()
    }

    /// Connects to a port on which a program in it listens, on the sandbox's own loopback or on all of its addresses. It
    /// needs no network.
    ///
    /// # Errors
    /// Nobody listens there, or the guest does not answer.
    pub async fn connect_port(&self, port: u16) -> Result<PortStream, Error> {
        Ok(self.session().open_port(port).await?)
    }

    /// The programs that run in it, and the detached ones that ended and are kept.
    ///
    /// # Errors
    /// The guest does not answer.
    pub async fn execs(&self) -> Result<Vec<ExecInfo>, Error> {
        Ok(self.session().execs().await?)
    }

    /// Joins a program that runs in it already.
    ///
    /// # Errors
    /// There is none of that id.
    pub async fn attach(&self, exec: ExecId, what: AttachSpec) -> Result<Attachment, Error> {
        Ok(self.session().attach(exec, what).await?)
    }

    /// Sends a signal to a program in it; `false` if there is none of that id any more.
    ///
    /// # Errors
    /// The guest does not answer.
    pub async fn signal(&self, exec: ExecId, signal: Signal, all: bool) -> Result<bool, Error> {
        Ok(self.session().signal(exec, signal.number(), all).await?)
    }

    /// Tells a program's terminal its size; `false` if there is none of that id any more.
    ///
    /// # Errors
    /// The guest does not answer, or the program has no terminal.
    pub async fn resize(&self, exec: ExecId, size: TerminalSize) -> Result<bool, Error> {
        Ok(self.session().resize(exec, size).await?)
    }

    /// Forgets a detached program that ended; `false` if there is none of that id any more.
    ///
    /// # Errors
    /// It runs, or the guest does not answer.
    pub async fn forget(&self, exec: ExecId) -> Result<bool, Error> {
        Ok(self.session().forget(exec).await?)
    }

    /// What it uses now.
    ///
    /// # Errors
    /// The guest does not answer.
    pub async fn stats(&mut self) -> Result<Stats, Error> {
        let guest = self.session().stats().await?;
        let status = self.link.running().await?;
        Ok(stats::combine(&guest, &status.processes))
    }

    /// The processes in it.
    ///
    /// # Errors
    /// The guest does not answer.
    pub async fn processes(&self) -> Result<Vec<v1::Process>, Error> {
        Ok(self.session().processes().await?)
    }

    /// What differs from the image.
    ///
    /// # Errors
    /// The guest does not answer.
    pub async fn diff(&self) -> Result<Vec<v1::Difference>, Error> {
        let mut all = Vec::new();
        let mut differences = self.session().diff().await?;
        while let Some(difference) = differences.next().await? {
            all.push(difference);
        }
        Ok(all)
    }

    /// Sends the main program a signal. SIGKILL ends the sandbox, paused or not.
    ///
    /// # Errors
    /// The sandbox has no main program that runs, or refuses.
    pub async fn kill(&mut self, signal: Signal) -> Result<(), Error> {
        Ok(self.link.kill(signal.number()).await?)
    }

    /// Asks the main program to stop, and after `grace` ends it and the machine. Returns when nothing runs any more.
    ///
    /// # Errors
    /// The supervisor does not answer.
    pub async fn stop(&mut self, grace: Duration) -> Result<(), Error> {
        Ok(self.link.stop(StopOptions { grace, signal: None, remove: false }).await?)
    }

    /// Ends the sandbox, as [`stop`](Self::stop) does, by this signal, and removes it where `remove` says so.
    ///
    /// # Errors
    /// The supervisor does not answer.
    pub async fn stop_with(&mut self, options: StopOptions) -> Result<(), Error> {
        Ok(self.link.stop(options).await?)
    }

    /// Stops the guest's processors; its time stands still.
    ///
    /// # Errors
    /// It does not run.
    pub async fn pause(&mut self) -> Result<(), Error> {
        Ok(self.link.pause().await?)
    }

    /// Lets a paused guest go on, with its clock set.
    ///
    /// # Errors
    /// It is not paused.
    pub async fn resume(&mut self) -> Result<(), Error> {
        Ok(self.link.resume().await?)
    }

    /// Lets the guest have no more than so many bytes of its machine's memory, rounded down to MiB; the rest goes back to this
    /// host. Or lets it have that much again. Gives what it has then: a guest is asked for no more than its programs can spare.
    /// Holds until the sandbox stops, and in its copies.
    ///
    /// What programs free of their own accord goes back to this host in any case.
    ///
    /// # Errors
    /// Less than a guest needs, or more than its machine has; it does not run.
    pub async fn set_memory(&mut self, bytes: u64) -> Result<u64, Error> {
        let all = self.spec().memory_mib;
        let wanted = MemorySize::from_mib(mib(bytes)).map_err(Error::Machine)?;
        if u64::from(wanted.mib()) > all {
            return Err(Error::TooMuchMemory { asked_mib: wanted.mib().into(), all_mib: all });
        }
        Ok(self.link.set_memory(wanted.mib().into()).await?)
    }

    /// Whether it has a scratch disk that is kept when it ends.
    pub fn keeps_disk(&self) -> bool {
        self.spec().disk.is_some() && !self.spec().auto_remove
    }

    /// Ends a sandbox that belongs to this process, at once, and waits until nothing of it is left.
    ///
    /// What its guest had not written to a scratch disk by then never is; after [`stop`](Self::stop) all is.
    ///
    /// # Errors
    /// Its directory cannot be removed.
    pub async fn end(self) -> Result<(), Error> {
        Ok(self.link.end().await?)
    }

    /// Why nothing can be asked of the sandbox any more: its supervisor's last words.
    pub async fn cause(&mut self) -> SandboxError {
        self.link.cause().await
    }

    /// The session with the agent, for what this library has no words for.
    pub fn session(&self) -> &Session {
        self.link.session()
    }

    pub(crate) fn link_mut(&mut self) -> &mut cellule_supervisor::Sandbox {
        &mut self.link
    }

    /// The host that it lives on.
    pub fn host(&self) -> &Host {
        &self.host
    }

    #[expect(clippy::unused_self, reason = "the cause may be asked of the supervisor one day")]
    fn lost(&self, lost: Lost) -> Error {
        Error::Lost { lost, failure: None }
    }
}

/// What to call a sandbox in messages.
pub(crate) fn display_name(entry: &Entry) -> String {
    entry.name.as_ref().map_or_else(|| entry.spec.id.to_string(), ToString::to_string)
}
