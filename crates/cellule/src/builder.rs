//! Describes a sandbox before there is one: [`Builder`] collects what is asked for, [`Prepared`] has all that it needs.
//!
//! ```text
//!   Builder ──prepare──▶ Prepared ──create──▶ a directory, to be started later
//!   (pure)               (image, bundle,     ──launch──▶ Sandbox, booting
//!                         engine checked)
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cellule_boot::Bundle;
use cellule_engine::{CpuCount, EngineChoice, MemorySize};
use cellule_image::{Image, Options, Policy};
use cellule_supervisor::{
    Entry, FORMAT, IdleAction, IdleRule, MainSpec, MainStdin, SandboxDir, SandboxId, SandboxName,
    SandboxSpec, TemplateCache, Tmpfs, WarmUp,
};

use crate::process::{self, UserSettings};
use crate::{Error, Host, Rlimit, Sandbox, Signal, TerminalSize, Variables, get};

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
    pull: Policy,
    options: Options,
    progress: ProgressSink,
}

/// What is asked of the main program.
#[derive(Debug, Clone, Default)]
struct Main {
    entrypoint: Option<String>,
    arguments: Vec<String>,
    terminal: Option<TerminalSize>,
    stdin: Option<MainStdin>,
    timeout: Option<Duration>,
    rlimits: Vec<Rlimit>,
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

    /// Gives the sandbox a main program: what the image runs, with these arguments instead of its own if there are any.
    /// The sandbox ends when that program does.
    pub fn main<A: Into<String>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.main_mut().arguments = arguments.into_iter().map(Into::into).collect();
        self
    }

    /// Runs this main program instead of the image's entrypoint. An empty one takes the entrypoint away.
    pub fn entrypoint(mut self, program: impl Into<String>) -> Self {
        self.main_mut().entrypoint = Some(program.into());
        self
    }

    /// Gives the main program a terminal of this size.
    pub fn terminal(mut self, size: TerminalSize) -> Self {
        self.main_mut().terminal = Some(size);
        self
    }

    /// What the main program reads; by default nothing.
    pub fn stdin(mut self, stdin: MainStdin) -> Self {
        self.main_mut().stdin = Some(stdin);
        self
    }

    /// Kills the main program, and all it started, after this time.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.main_mut().timeout = Some(limit);
        self
    }

    /// Limits a resource of the main program's.
    pub fn rlimit(mut self, limit: Rlimit) -> Self {
        self.main_mut().rlimits.push(limit);
        self
    }

    fn main_mut(&mut self) -> &mut Main {
        self.main.get_or_insert_default()
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

    /// Gets everything that the sandbox needs: boot bundle, image, an engine that works. Makes no sandbox yet.
    ///
    /// # Errors
    /// Something cannot be had, or what is asked for cannot be.
    pub async fn prepare(mut self) -> Result<Prepared, Error> {
        let progress = Arc::clone(&self.progress);
        let sink = Arc::clone(&progress);
        let told = Arc::clone(&self.options.progress);
        self.options.progress = Arc::new(move |event: cellule_image::Event| {
            told.event(event.clone());
            sink(&Progress::Image(event));
        });
        let engine = self.engine.engine(self.host.qemu().map(PathBuf::from));
        // A host without an engine is known before an image is downloaded for nothing. Where all is here already, nobody waits
        // for the engine to say its version: the launch asks for it too.
        let (bundle, image) = {
            let mut got = Box::pin(self.bundle_and_image(&progress));
            tokio::select! {
                biased;
                checked = engine.check() => {
                    checked.map_err(Error::Engine)?;
                    got.await?
                }
                got = &mut got => got?,
            }
        };
        let spec = self.spec(engine.name(), &bundle, &image)?;
        Ok(Prepared { host: self.host, name: self.name, spec, image, emulated: engine.emulates_cpu() })
    }

    async fn bundle_and_image(&self, progress: &ProgressSink) -> Result<(Bundle, Image), Error> {
        let begun = Instant::now();
        let bundle = get::bundle(self.host.home(), progress).await?;
        progress(&Progress::Step { name: "boot bundle", took: begun.elapsed() });
        let begun = Instant::now();
        let store = self.host.images()?;
        let image = get::image(&store, &bundle, &self.image, self.pull, &self.options).await?;
        progress(&Progress::Step { name: "image", took: begun.elapsed() });
        Ok((bundle, image))
    }

    fn spec(&self, engine: &str, bundle: &Bundle, image: &Image) -> Result<SandboxSpec, Error> {
        let config = &image.info.config;
        let main = self.main.as_ref();
        let user = UserSettings {
            entrypoint: main.and_then(|main| main.entrypoint.clone()),
            arguments: main.map(|main| main.arguments.clone()).unwrap_or_default(),
            user: self.user.clone(),
            working_dir: self.working_dir.clone(),
        };
        let process = process::compose(config, user)?;
        if main.is_some() && process.argv.is_empty() {
            return Err(Error::NoCommand);
        }
        let id = new_id()?;
        let hostname = self.hostname.clone().unwrap_or_else(|| id.to_string());
        let env = self.variables.over_image(&config.env, &hostname);
        let now = now_ns();
        let stop_signal = match (self.stop_signal, config.stop_signal.as_deref()) {
            (Some(signal), _) => Some(signal.number()),
            // An image whose word for it means nothing gets the ordinary signal, as with Docker.
            (None, text) => text.and_then(|text| text.parse::<Signal>().ok()).map(Signal::number),
        };
        let main = main.map(|main| MainSpec {
            argv: process.argv,
            env: main_env(&env, main.terminal.is_some()),
            working_dir: process.working_dir.clone(),
            user: process.user.clone(),
            groups: self.groups.clone(),
            tty: main.terminal.is_some(),
            rows: main.terminal.map_or(0, |size| size.rows),
            columns: main.terminal.map_or(0, |size| size.columns),
            stdin: main.stdin.unwrap_or(MainStdin::None),
            timeout_ms: main.timeout.map(millis),
            rlimits: main.rlimits.iter().map(|limit| (limit.name.clone(), limit.soft, limit.hard)).collect(),
        });
        Ok(SandboxSpec {
            format: FORMAT,
            id,
            image: self.image.clone(),
            image_digest: image.info.id.to_string(),
            created_ns: now,
            engine: engine.to_owned(),
            engine_program: self.host.qemu().map(PathBuf::from),
            cpus: self.cpus.into(),
            memory_mib: mib(self.memory).into(),
            kernel: bundle.kernel_path.clone(),
            initramfs: bundle.initramfs_path.clone(),
            rootfs: image.rootfs.path.clone(),
            rootfs_digest: image.rootfs.digest.to_string(),
            hostname,
            read_only: self.read_only,
            tmpfs: self.tmpfs.clone(),
            env,
            working_dir: process.working_dir,
            user: process.user,
            main,
            stop_signal,
            auto_remove: self.remove,
            expires_ns: self
                .ttl
                .map(|ttl| now.saturating_add(i64::try_from(ttl.as_nanos()).unwrap_or(i64::MAX))),
            idle: self.idle.map(|(after, action)| IdleRule { after_ms: millis(after), action }),
            labels: self.labels.clone(),
            templates: (!self.cold).then(|| TemplateCache {
                dir: self.host.templates(self.template_cache).dir().to_path_buf(),
                limit: self.template_cache,
                boot: bundle.id.clone(),
                warm_up: self.image_warm_up(config),
            }),
            saved: None,
        })
    }

    /// The warm-up with the image's own settings, if there is anything to do.
    fn image_warm_up(&self, config: &cellule_image::ImageConfig) -> WarmUp {
        if self.warm_up.is_empty() {
            return WarmUp::default();
        }
        WarmUp {
            env: config.env.clone(),
            working_dir: config.working_dir.clone(),
            user: config.user.clone(),
            ..self.warm_up.clone()
        }
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
        self.prepare().await?.launch().await?.up().await
    }
}

/// A sandbox that only has to be made: its image is here and held.
#[derive(Debug)]
pub struct Prepared {
    host: Host,
    name: Option<SandboxName>,
    spec: SandboxSpec,
    image: Image,
    emulated: bool,
}

impl Prepared {
    /// What it will be made of.
    pub fn spec(&self) -> &SandboxSpec {
        &self.spec
    }

    /// Where it will be.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Whether the guest's processor is emulated in software.
    pub fn emulates_cpu(&self) -> bool {
        self.emulated
    }

    /// Makes the sandbox without starting it.
    ///
    /// # Errors
    /// The name is taken, or its directory cannot be made.
    pub fn create(self) -> Result<Entry, Error> {
        let sandboxes = self.host.sandboxes()?;
        let dir = sandboxes.create(&self.spec, self.name.as_ref())?;
        drop(dir);
        Ok(sandboxes.find(self.spec.id.as_str())?)
    }

    /// Makes the sandbox and starts its machine; [`Sandbox::ready`] waits for it.
    ///
    /// # Errors
    /// The name is taken, its directory cannot be made, or the supervisor not started.
    pub async fn launch(self) -> Result<Sandbox, Error> {
        let program = self.host.supervisor()?;
        let sandboxes = self.host.sandboxes()?;
        // What others left is no reason not to start.
        _ = sandboxes.sweep();
        self.host.sweep_templates();
        let dir: SandboxDir = sandboxes.create(&self.spec, self.name.as_ref())?;
        Sandbox::launch(self.host, self.spec, self.name, dir, &program, Some(self.image)).await
    }
}

/// A terminal's programs ask what kind it is.
fn main_env(env: &[String], terminal: bool) -> Vec<String> {
    let mut env = env.to_vec();
    if terminal && !env.iter().any(|variable| variable.starts_with("TERM=")) {
        env.push("TERM=xterm".to_owned());
    }
    env
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
