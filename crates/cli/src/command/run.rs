//! `cellule run`: an image's program, or another one, in a microVM of its own.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use cellule_boot::Bundle;
use cellule_engine::{ConfigError, CpuCount, EngineChoice, MemorySize};
use cellule_image::{Image, Policy};
use cellule_protocol::client::ExecSpec;
use cellule_supervisor::{FORMAT, Sandbox, SandboxId, SandboxName, SandboxSpec, Sandboxes, Tmpfs};

use crate::attached::{self, died_of};
use crate::environment::Variables;
use crate::failure::Failure;
use crate::process::{self, ImageSettings, UserSettings};
use crate::relay::Signals;
use crate::report::Report;
use crate::store::GetOptions;
use crate::watch::Watch;
use crate::{environment, home, quantity, sandbox_failure, setup, store};

/// Said where the engine emulates the processor, unless `--quiet` is given.
const EMULATED: &str = "cellule: this version's engine is QEMU, which emulates the CPU: programs run many times \
slower, and the boundary is QEMU's emulator, not the processor\n";

/// Run a command in a new microVM made from an image
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own on the command line")]
#[command(override_usage = "cellule run [OPTIONS] IMAGE [COMMAND [ARG...]]")]
pub(crate) struct Arguments {
    /// The image; the command and its arguments follow it. An image is a registry's reference, oci:DIR[:TAG],
    /// docker-archive:FILE, a path of a root filesystem's tar or directory, or the built-in `base`
    #[arg(required = true, value_name = "IMAGE", trailing_var_arg = true)]
    words: Vec<String>,
    /// Set a variable; NAME alone takes the value that it has here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read variables from a file, one on a line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Work in this directory; it is made if it is missing
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Run as this user and group, names or numbers
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Run this instead of the image's entrypoint; empty takes it away
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Pass standard input on to the command
    #[arg(short, long)]
    interactive: bool,
    /// Name the sandbox; no other of that name can run meanwhile
    #[arg(long)]
    name: Option<SandboxName>,
    /// What the guest calls itself; by default its id
    #[arg(long)]
    hostname: Option<String>,
    /// Virtual processors
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    cpus: u16,
    /// Memory of the machine
    #[arg(short, long, default_value = "512m", value_name = "SIZE", value_parser = quantity::parse_size)]
    memory: u64,
    /// End the command after this time, with exit code 124
    #[arg(long, value_name = "TIME", value_parser = quantity::parse_duration)]
    timeout: Option<Duration>,
    /// What executes the machine: auto or qemu
    #[arg(long, default_value = "auto")]
    engine: EngineChoice,
    /// Make the root filesystem read-only; /tmp, /run and /dev/shm stay writable
    #[arg(long)]
    read_only: bool,
    /// Mount an empty filesystem in memory, with options such as size=64m,mode=1777
    #[arg(long, value_name = "PATH[:OPTIONS]")]
    tmpfs: Vec<String>,
    /// Remove the sandbox when the command ends, which an attached run does anyway
    #[arg(long)]
    rm: bool,
    /// When to ask the registry: always, missing or never
    #[arg(long, default_value = "missing", value_name = "WHEN", value_parser = parse_policy)]
    pull: Policy,
    #[command(flatten)]
    get: GetOptions,
    /// Say nothing of our own unless something fails
    #[arg(short, long)]
    quiet: bool,
    /// Tell what is done and how long it takes
    #[arg(long, conflicts_with = "quiet")]
    verbose: bool,
}

fn parse_policy(text: &str) -> Result<Policy, String> {
    match text {
        "always" => Ok(Policy::Always),
        "missing" => Ok(Policy::Missing),
        "never" => Ok(Policy::Never),
        _ => Err("it is one of always, missing and never".to_owned()),
    }
}

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let runtime = super::runtime()?;
    let result = runtime.block_on(run_attached(arguments));
    // A thread may still wait for standard input, which need not end for us to.
    runtime.shutdown_background();
    result
}

async fn run_attached(arguments: Arguments) -> Result<ExitCode, Failure> {
    let mut signals = Signals::catch().map_err(|error| Failure::because("cannot catch signals", &error))?;
    let report = Report::new(arguments.verbose);
    let variables = check(&arguments)?;
    let watch = Arc::new(Watch::new(arguments.quiet));
    let prepared = tokio::select! {
        prepared = prepare(&arguments, variables, &watch, &report) => prepared,
        signal = signals.next() => Err(died_of(signal)),
    };
    watch.clear();
    let Prepared { sandboxes, spec, exec, image } = prepared?;
    if !arguments.quiet && arguments.engine.engine(None).emulates_cpu() {
        crate::say(EMULATED);
    }

    let started = tokio::select! {
        // This very program, whatever lies at its path by now.
        started = Sandbox::start(&sandboxes, &spec, Path::new("/proc/self/exe")) => started,
        signal = signals.next() => return Err(died_of(signal)),
    };
    let mut sandbox = started.map_err(|error| sandbox_failure::failure(&error))?;
    let outcome = attached::run(&mut sandbox, exec, &mut signals, &report, arguments.quiet).await;
    let ended = report.step("clean-up", sandbox.end()).await;
    // Only now may its root filesystem be removed.
    drop(image);
    let code = outcome?;
    ended.map_err(|error| sandbox_failure::failure(&error))?;
    report.total();
    Ok(code)
}

/// Refuses what cannot be, before anything is made or fetched. Gives the variables that the user set.
fn check(arguments: &Arguments) -> Result<Variables, Failure> {
    let refused = |error: ConfigError| {
        let failure = Failure::because("the machine cannot be as asked", &error);
        match error {
            ConfigError::TooLittleMemory { min, .. } => {
                failure.hint(format!("--memory {min}m is the least that boots"))
            }
            _ => failure,
        }
    };
    CpuCount::new(arguments.cpus).map_err(refused)?;
    MemorySize::from_mib(arguments.memory_mib()).map_err(refused)?;
    arguments.tmpfs.iter().try_for_each(|text| parse_tmpfs(text).map(drop))?;
    if let Some(dir) = arguments.workdir.as_deref().filter(|dir| !dir.is_empty() && !dir.starts_with('/')) {
        return Err(Failure::new(format!("--workdir {dir}: it must begin with a slash")));
    }
    if let Some(name) = arguments.hostname.as_deref().filter(|name| !is_hostname(name)) {
        return Err(Failure::new(format!(
            "--hostname {name:?}: 1 to 63 letters, digits, dots and hyphens are a name"
        )));
    }
    environment::read(&arguments.env_file, &arguments.env)
}

fn is_hostname(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    (1..=63).contains(&name.len()) && name.bytes().all(plain) && !name.starts_with(['-', '.'])
}

fn parse_tmpfs(text: &str) -> Result<Tmpfs, Failure> {
    let (path, options) = text.split_once(':').unwrap_or((text, ""));
    if !path.starts_with('/') || path == "/" {
        return Err(Failure::new(format!("--tmpfs {text}: {path:?} is not an absolute path below /")));
    }
    Ok(Tmpfs { path: path.to_owned(), options: options.to_owned() })
}

impl Arguments {
    fn image_and_command(&self) -> Result<(&str, &[String]), Failure> {
        let (image, command) = self.words.split_first().ok_or_else(|| Failure::new("no image is given"))?;
        Ok((image, command))
    }

    fn memory_mib(&self) -> u32 {
        u32::try_from(self.memory >> 20).unwrap_or(u32::MAX)
    }
}

/// All that a sandbox is made of.
struct Prepared {
    sandboxes: Sandboxes,
    spec: SandboxSpec,
    exec: ExecSpec,
    image: Image,
}

async fn prepare(
    arguments: &Arguments,
    variables: Variables,
    watch: &Arc<Watch>,
    report: &Report,
) -> Result<Prepared, Failure> {
    let home = home::locate()?;
    let sandboxes = Sandboxes::open(&home).map_err(|error| sandbox_failure::directory(&error))?;
    // What others left is no reason not to run.
    _ = sandboxes.sweep();
    let engine = arguments.engine.engine(home::qemu());
    // A host without an engine is known before an image is downloaded for nothing; one that has it waits for nothing.
    let checked = async { engine.check().await.map_err(|error| sandbox_failure::engine(&error)) };
    let (_, (bundle, image)) = tokio::try_join!(checked, bundle_and_image(arguments, &home, watch, report))?;

    let config = &image.info.config;
    let settings = ImageSettings {
        entrypoint: config.entrypoint.clone(),
        cmd: config.cmd.clone(),
        user: config.user.clone(),
        working_dir: config.working_dir.clone(),
    };
    let (name, command) = arguments.image_and_command()?;
    let user = UserSettings {
        entrypoint: arguments.entrypoint.clone(),
        arguments: command.to_vec(),
        user: arguments.user.clone(),
        working_dir: arguments.workdir.clone(),
    };
    let process = process::compose(&settings, user)?;
    let id = SandboxId::random().map_err(|error| Failure::because("cannot draw an id", &error))?;
    let hostname = arguments.hostname.clone().unwrap_or_else(|| id.to_string());
    let env = variables.merge(&config.env, &hostname);
    let exec = ExecSpec {
        argv: process.argv.into_iter().map(String::into_bytes).collect(),
        env: env.into_iter().map(String::into_bytes).collect(),
        cwd: process.working_dir.into_bytes(),
        create_cwd: true,
        user: process.user,
        groups: Vec::new(),
        stdin: arguments.interactive,
        timeout: arguments.timeout,
    };
    let spec = SandboxSpec {
        format: FORMAT,
        name: arguments.name.clone(),
        image: name.to_owned(),
        engine: engine.name().to_owned(),
        engine_program: home::qemu(),
        cpus: arguments.cpus.into(),
        memory_mib: arguments.memory_mib().into(),
        kernel: bundle.kernel_path.clone(),
        initramfs: bundle.initramfs_path.clone(),
        rootfs: image.rootfs.path.clone(),
        hostname,
        read_only: arguments.read_only,
        tmpfs: arguments.tmpfs.iter().map(|text| parse_tmpfs(text)).collect::<Result<_, _>>()?,
        id,
    };
    Ok(Prepared { sandboxes, spec, exec, image })
}

async fn bundle_and_image(
    arguments: &Arguments,
    home: &Path,
    watch: &Arc<Watch>,
    report: &Report,
) -> Result<(Bundle, Image), Failure> {
    let (for_setup, at) = (Arc::clone(watch), home.to_path_buf());
    let bundle =
        tokio::task::spawn_blocking(move || setup::ensure(&at, &|progress| for_setup.boot(progress)));
    let bundle = report
        .step("boot bundle", bundle)
        .await
        .map_err(|error| Failure::because("cannot set up", &error))??;
    let store = store::open(home)?;
    let (name, _) = arguments.image_and_command()?;
    let options = arguments.get.options(watch);
    let image = store::get(&store, &bundle, name, arguments.pull, &options);
    let image = report.step("image", image).await?;
    Ok((bundle, image))
}
