//! Describes a sandbox before there is one: [`Builder`] collects what is asked for, [`Prepared`] has all that it needs.
//!
//! ```text
//!   Builder ──prepare──▶ Prepared ──create──▶ a directory, to be started later
//!   (pure)               (image, bundle,     ──launch──▶ Sandbox, booting
//!                         engine checked)
//! ```

pub(crate) mod authorities;
mod main_program;
mod network;
mod prepared;
mod spec;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cellule_engine::{CpuCount, EngineChoice, MemorySize};
use cellule_image::{Options, Policy};
use cellule_supervisor::{DiskSize, Entry, IdleAction, SandboxId, SandboxName, Tmpfs, WarmUp};

use self::main_program::Main;
pub use self::prepared::Prepared;
use crate::{Error, Host, Sandbox, Signal, Variables};

/// What is told while a sandbox comes into being.
#[derive(Debug)]
#[non_exhaustive]
pub enum Progress {
    /// A step of making the boot bundle, which happens once.
    Boot(cellule_boot::Progress),
    /// A step of getting the image.
    Image(cellule_image::Event),
    /// A step that is done.
    Step {
        /// What was done.
        name: &'static str,
        /// How long it took.
        took: Duration,
    },
}

/// Who is told.
pub(crate) type ProgressSink = Arc<dyn Fn(&Progress) + Send + Sync>;

/// What a sandbox's main program reads.
pub use cellule_supervisor::MainStdin as Stdin;

/// Describes a sandbox. Made by [`Sandbox::builder`] or [`Host::sandbox`].
///
/// Without [`command`](Self::command) or [`main`](Self::main) it has no main program: it idles until programs are run
/// in it, and lives until it is stopped.
#[derive(Clone)]
#[must_use = "it describes a sandbox and does nothing before it is started"]
pub struct Builder {
    host: Host,
    image: String,
    main: Option<Main>,
    variables: Variables,
    user: Option<String>,
    working_dir: Option<String>,
    groups: Vec<String>,
    name: Option<SandboxName>,
    hostname: Option<String>,
    cpus: u16,
    memory: u64,
    disk: Option<DiskSize>,
    engine: EngineChoice,
    read_only: bool,
    tmpfs: Vec<Tmpfs>,
    labels: BTreeMap<String, String>,
    stop_signal: Option<Signal>,
    remove: bool,
    ttl: Option<Duration>,
    idle: Option<(Duration, IdleAction)>,
    cold: bool,
    template_cache: u64,
    warm_up: WarmUp,
    network: network::Wish,
    pull: Policy,
    options: Options,
    progress: ProgressSink,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Variables may be secrets.
        f.debug_struct("Builder")
            .field("image", &self.image)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Builder {
    /// Memory of a machine, if nobody says otherwise.
    pub const DEFAULT_MEMORY: u64 = 512 << 20;

    /// What all templates together may take on disk, if nobody says otherwise: some forty small ones.
    pub const DEFAULT_TEMPLATE_CACHE: u64 = 4 << 30;

    pub(crate) fn new(host: Host, image: String) -> Self {
        Self {
            host,
            image,
            main: None,
            variables: Variables::default(),
            user: None,
            working_dir: None,
            groups: Vec::new(),
            name: None,
            hostname: None,
            cpus: 1,
            memory: Self::DEFAULT_MEMORY,
            disk: None,
            engine: EngineChoice::default(),
            read_only: false,
            tmpfs: Vec::new(),
            labels: BTreeMap::new(),
            stop_signal: None,
            remove: true,
            ttl: None,
            idle: None,
            cold: false,
            template_cache: Self::DEFAULT_TEMPLATE_CACHE,
            warm_up: WarmUp::default(),
            network: network::Wish::default(),
            pull: Policy::Missing,
            options: Options::default(),
            progress: Arc::new(|_| ()),
        }
    }

    /// Looks for state and programs there, rather than where the environment says.
    pub fn host(mut self, host: Host) -> Self {
        self.host = host;
        self
    }

    /// Sets a variable for all programs.
    ///
    /// # Errors
    /// It has no name, or holds a NUL byte.
    pub fn env(mut self, name: &str, value: &str) -> Result<Self, Error> {
        self.variables.set(format!("{name}={value}"))?;
        Ok(self)
    }

    /// Sets and takes away all of these variables.
    pub fn variables(mut self, variables: Variables) -> Self {
        self.variables = variables;
        self
    }

    /// Runs programs as this user, `name|uid[:group|gid]`, rather than the image's.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Gives the main program another group, by name or number.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.groups.push(group.into());
        self
    }

    /// Runs programs in this directory, an absolute path, rather than the image's. It is made if it is missing.
    pub fn working_dir(mut self, dir: impl Into<String>) -> Self {
        self.working_dir = Some(dir.into());
        self
    }

    /// Names the sandbox.
    ///
    /// # Errors
    /// It is no name: 2 to 64 of `a-z A-Z 0-9 _ . -`, the first a letter or digit.
    pub fn name(mut self, name: &str) -> Result<Self, Error> {
        let why = "2 to 64 of a-z A-Z 0-9 _ . -, the first a letter or digit";
        let name =
            name.parse().map_err(|_| Error::Option { option: "--name", value: name.to_owned(), why })?;
        self.name = Some(name);
        Ok(self)
    }

    /// What the guest calls itself; by default the sandbox's id.
    ///
    /// # Errors
    /// It is no host name.
    pub fn hostname(mut self, name: &str) -> Result<Self, Error> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
        if !(1..=63).contains(&name.len()) || !name.bytes().all(plain) || name.starts_with(['-', '.']) {
            let why = "1 to 63 letters, digits, dots and hyphens are a name";
            return Err(Error::Option { option: "--hostname", value: name.to_owned(), why });
        }
        self.hostname = Some(name.to_owned());
        Ok(self)
    }

    /// Virtual processors; by default one.
    ///
    /// # Errors
    /// None, or more than this host has.
    pub fn cpus(mut self, count: u16) -> Result<Self, Error> {
        CpuCount::new(count).map_err(Error::Machine)?;
        self.cpus = count;
        Ok(self)
    }

    /// Memory of the machine in bytes, rounded down to MiB; by default [`DEFAULT_MEMORY`](Self::DEFAULT_MEMORY).
    ///
    /// # Errors
    /// Too little to boot, or more than this host has.
    pub fn memory(mut self, bytes: u64) -> Result<Self, Error> {
        MemorySize::from_mib(mib(bytes)).map_err(Error::Machine)?;
        self.memory = bytes;
        Ok(self)
    }

    /// Gives the sandbox a scratch disk of so many bytes, rounded down to MiB: what is written into the root filesystem is on
    /// it, and not in the guest's memory. It takes of this host's disk what was ever written to it. A sandbox that is kept
    /// has it again each time it is started, and boots with it; a fork, and a sandbox from a snapshot, has a copy.
    ///
    /// # Errors
    /// A size that no disk can have.
    pub fn disk(mut self, bytes: u64) -> Result<Self, Error> {
        self.disk = Some(DiskSize::from_mib(bytes >> 20).map_err(Error::Disk)?);
        Ok(self)
    }

    /// What executes the machine.
    pub fn engine(mut self, engine: EngineChoice) -> Self {
        self.engine = engine;
        self
    }

    /// Makes the root filesystem refuse writes; `/tmp`, `/run` and `/dev/shm` stay writable.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Mounts an empty filesystem in memory, with options of mount(8) for tmpfs.
    ///
    /// # Errors
    /// The path is not an absolute one below `/`.
    pub fn tmpfs(mut self, path: &str, options: &str) -> Result<Self, Error> {
        if !path.starts_with('/') || path == "/" {
            let why = "it is not an absolute path below /";
            return Err(Error::Option { option: "--tmpfs", value: path.to_owned(), why });
        }
        self.tmpfs.push(Tmpfs { path: path.to_owned(), options: options.to_owned() });
        Ok(self)
    }

    /// Attaches a label, for whoever lists sandboxes.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// What asks the main program to stop; by default the image's own signal, else SIGTERM.
    pub fn stop_signal(mut self, signal: Signal) -> Self {
        self.stop_signal = Some(signal);
        self
    }

    /// Whether nothing of the sandbox is kept once it has ended; by default so. One that is kept can be started again
    /// and its log read.
    pub fn remove_when_ended(mut self, remove: bool) -> Self {
        self.remove = remove;
        self
    }

    /// Removes the sandbox this long after its creation, whatever it does then.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Boots the machine each time it is started, in place of going on from where one like it had booted before.
    pub fn cold(mut self, cold: bool) -> Self {
        self.cold = cold;
        self
    }

    /// Runs a script of the image's shell in the machine before its template is saved: what it leaves, in files and in the
    /// guest's memory, each sandbox with the same warm-up begins with. Several run in their order. They run with the image's
    /// own settings, as they are no sandbox's; one that does not end with code 0 makes the start a cold one.
    pub fn warm_up(mut self, script: impl Into<String>) -> Self {
        self.warm_up.commands.push(script.into());
        self
    }

    /// Starts a script, after those of [`warm_up`](Self::warm_up), that lives on: each sandbox begins with it running.
    pub fn warm_up_detached(mut self, script: impl Into<String>) -> Self {
        self.warm_up.detached.push(script.into());
        self
    }

    /// Saves the template only when a TCP socket of the guest listens on this port.
    pub fn ready_port(mut self, port: u16) -> Self {
        self.warm_up.ready_ports.push(port);
        self
    }

    /// Saves the template only when this script has ended with code 0; it is tried again until it does.
    pub fn ready_command(mut self, script: impl Into<String>) -> Self {
        self.warm_up.ready_commands.push(script.into());
        self
    }

    /// Lets all templates together take this many bytes on disk; those that were not used for longest make room.
    pub fn template_cache(mut self, bytes: u64) -> Self {
        self.template_cache = bytes;
        self
    }

    /// Stops or pauses the sandbox after this long without any use: no command but the main program, no file operation,
    /// nobody attached.
    pub fn idle_timeout(mut self, after: Duration, action: IdleAction) -> Self {
        self.idle = Some((after, action));
        self
    }

    /// When a registry is asked for the image; by default if it is missing here.
    pub fn pull(mut self, policy: Policy) -> Self {
        self.pull = policy;
        self
    }

    /// Platform, credentials and limits for getting the image.
    pub fn image_options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Who is told what happens meanwhile.
    pub fn progress(mut self, sink: impl Fn(&Progress) + Send + Sync + 'static) -> Self {
        self.progress = Arc::new(sink);
        self
    }

    /// Makes the sandbox without starting it.
    ///
    /// # Errors
    /// As of [`prepare`](Self::prepare), and if its directory cannot be made.
    pub async fn create(self) -> Result<Entry, Error> {
        self.prepare().await?.create()
    }

    /// Starts the sandbox and waits until it runs, its main program too if it has one.
    ///
    /// It belongs to this process: dropping it, or this process's death, ends it, unless it is
    /// [detached](Sandbox::detach).
    ///
    /// # Errors
    /// As of [`prepare`](Self::prepare), and if the guest does not boot or the main program cannot be started.
    pub async fn start(self) -> Result<Sandbox, Error> {
        Box::pin(self.prepare()).await?.launch().await?.up().await
    }
}

pub(crate) fn new_id() -> Result<SandboxId, Error> {
    SandboxId::random().map_err(|source| Error::Io { doing: "draw an id".to_owned(), source })
}

pub(crate) fn mib(bytes: u64) -> u32 {
    u32::try_from(bytes >> 20).unwrap_or(u32::MAX)
}

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

pub(crate) fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
