//! `cellule run`: an image's program, or another one, in a microVM of its own.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use cellule::{ExecId, Prepared, Sandbox, SandboxName, StopOptions};
use clap::ArgAction;

use crate::attached::{self, Broken, Outcome, Streams, Terminal, died_of};
use crate::detach_keys::DetachKeys;
use crate::failure::Failure;
use crate::pool::{PoolDir, PoolName};
use crate::relay::Signals;
use crate::report::Report;
use crate::sandbox_options::SandboxOptions;
use crate::watch::Watch;
use crate::{completion, host, library_failure, ports, terminal};

/// Said where the engine emulates the processor, unless `--quiet` is given.
const EMULATED: &str = "cellule: this version's engine is QEMU, which emulates the CPU: programs run many times \
slower, and the boundary is QEMU's emulator, not the processor\n";

/// What the others may take to end once the command has, in a sandbox with a disk that is kept.
const POWER_OFF: Duration = Duration::from_secs(10);

/// Run a command in a new microVM made from an image
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "cellule run [OPTIONS] IMAGE [COMMAND [ARG...]]\n       cellule run [OPTIONS] --pool POOL [COMMAND [ARG...]]"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    options: SandboxOptions,
    /// Take a machine of this pool, which is ready; its image is the pool's, and all words are the command
    #[arg(long, value_name = "POOL", add = completion::pool(), conflicts_with_all = ["cpus", "memory", "disk", "engine",
          "cold", "template_cache", "warmup", "warmup_detach", "ready_port", "ready_cmd", "pull"])]
    pool: Option<PoolName>,
    /// Leave the sandbox running and print its id
    #[arg(short, long)]
    detach: bool,
    /// Remove the sandbox when the command ends; by default so, unless it is detached
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set,
          require_equals = true)]
    rm: Option<bool>,
    /// The keys that leave a terminal without ending its command
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    detach_keys: DetachKeys,
}

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let runtime = super::runtime()?;
    let result = runtime.block_on(run_in(arguments));
    // A thread may still wait for standard input, which need not end for us to.
    runtime.shutdown_background();
    result
}

async fn run_in(arguments: Arguments) -> Result<ExitCode, Failure> {
    let Arguments { options, pool, detach, rm, detach_keys } = arguments;
    let mut signals = Signals::catch().map_err(|error| Failure::because("cannot catch signals", &error))?;
    if !detach {
        terminal::check_input(options.interactive, options.tty)?;
    }
    let report = Arc::new(Report::new(options.verbose, options.quiet));
    let watch = Arc::new(Watch::new(options.quiet));
    let host = host::locate()?;
    let pool = pool.map(|name| PoolDir::find(&host, &name)).transpose()?;
    let builder = options
        .builder(&host, pool.as_ref().map(PoolDir::document), !detach, attached::window(), &watch, &report)?
        .remove_when_ended(rm.unwrap_or(!detach));
    let prepared = tokio::select! {
        prepared = builder.prepare() => prepared.map_err(|error| library_failure::of(&error)),
        signal = signals.next() => Err(died_of(signal)),
    };
    watch.clear();
    let prepared = prepared?;
    if !options.quiet && prepared.emulates_cpu() {
        crate::say(EMULATED);
    }
    let launched = tokio::select! {
        launched = launch(prepared, pool, options.name()) => launched?,
        signal = signals.next() => return Err(died_of(signal)),
    };
    if detach {
        return run_detached(launched, &mut signals, &report).await;
    }
    let terminal = options.tty.then_some(Terminal { keys: detach_keys });
    Box::pin(run_attached(launched, options, terminal, &mut signals, &report)).await
}

/// Launches what was prepared, in a machine of the pool if there is one.
async fn launch(
    prepared: Prepared,
    pool: Option<PoolDir>,
    name: Option<SandboxName>,
) -> Result<Sandbox, Failure> {
    match pool {
        Some(pool) => pool.claim(&prepared, name).await,
        None => prepared.launch().await.map_err(|error| library_failure::of(&error)),
    }
}

async fn run_detached(
    mut sandbox: Sandbox,
    signals: &mut Signals,
    report: &Report,
) -> Result<ExitCode, Failure> {
    let started = tokio::select! {
        started = start(&mut sandbox, report) => started,
        signal = signals.next() => Err(died_of(signal)),
    };
    if let Err(failure) = started {
        // Nobody was told of it, so nothing may be left of it.
        let options = StopOptions { grace: Duration::ZERO, signal: None, remove: true };
        _ = sandbox.stop_with(options).await;
        return Err(failure);
    }
    let id = sandbox.id().to_owned();
    sandbox.detach().await.map_err(|error| library_failure::of(&error))?;
    report.total();
    crate::answer(&format!("{id}\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// Waits for the guest and starts the main program.
pub(super) async fn start(sandbox: &mut Sandbox, report: &Report) -> Result<(), Failure> {
    let status = sandbox.ready().await.map_err(|error| library_failure::of(&error))?;
    for phase in &status.phases {
        let name = if phase.in_guest { format!("  guest: {}", phase.name) } else { phase.name.clone() };
        report.tell(&name, phase.took);
    }
    if let Some(start) = &status.start {
        let how = match (&start.saved, &start.template) {
            (Some(saved), _) => format!("it goes on from {saved}"),
            (None, Some(template)) => format!("warm start, from template {template}"),
            (None, None) => "cold start".to_owned(),
        };
        match (&start.template, &start.note) {
            // Whoever might have had a warm one hears why not.
            (None, Some(note)) => report.warn(&format!("{how}: {note}")),
            (Some(_), Some(note)) => report.note(&format!("{how}: {note}")),
            (_, None) => report.note(&how),
        }
    }
    ports::tell_chosen(sandbox, report)?;
    for (role, pid) in &status.processes {
        report.note(&format!("{role} has process id {pid}"));
    }
    if !sandbox.has_main() {
        return Ok(());
    }
    let started = report.step("command started", sandbox.start_main()).await;
    started.map_err(|error| library_failure::of(&error))
}

async fn run_attached(
    mut sandbox: Sandbox,
    options: SandboxOptions,
    terminal: Option<Terminal>,
    signals: &mut Signals,
    report: &Report,
) -> Result<ExitCode, Failure> {
    let outcome = relay_main(&mut sandbox, options.interactive, terminal, signals, report).await;
    let exited = matches!(outcome, Ok(Outcome::Exited(_)));
    let code = match outcome {
        Ok(Outcome::Detached) => {
            sandbox.detach().await.map_err(|error| library_failure::of(&error))?;
            return Ok(ExitCode::SUCCESS);
        }
        Ok(Outcome::Exited(status)) => attached::exit_code(status, options.timeout, options.quiet),
        Err(failure) => Err(failure),
    };
    if exited && sandbox.keeps_disk() {
        // What was written is to be on the disk, which is not so of a machine that is ended.
        let options = StopOptions { grace: POWER_OFF, signal: None, remove: false };
        let stopped = report.step("power off", sandbox.stop_with(options)).await;
        stopped.map_err(|error| library_failure::of(&error))?;
    }
    let ended = report.step("clean-up", sandbox.end()).await;
    let code = code?;
    ended.map_err(|error| library_failure::of(&error))?;
    report.total();
    Ok(code)
}

async fn relay_main(
    sandbox: &mut Sandbox,
    interactive: bool,
    terminal: Option<Terminal>,
    signals: &mut Signals,
    report: &Report,
) -> Result<Outcome, Failure> {
    let stdio = sandbox.main_stdio(interactive).await.map_err(|error| library_failure::of(&error))?;
    tokio::select! {
        started = start(sandbox, report) => started?,
        signal = signals.next() => return Err(died_of(signal)),
    }
    let streams = Streams { stdin: stdio.stdin, stdout: Some(stdio.stdout), stderr: stdio.stderr };
    let session = sandbox.session().clone();
    let exit = report.step("command", sandbox.wait());
    let outcome = attached::relay(streams, terminal, session, ExecId::MAIN, signals, exit).await;
    outcome.map_err(|broken| match broken {
        Broken::Signal(signal) => died_of(signal),
        Broken::Lost(error) => library_failure::of(&error),
        Broken::Ours(failure) => failure,
    })
}
