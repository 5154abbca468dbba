//! `cellule attach`: joins the main program of a running sandbox.

use std::process::ExitCode;
use std::time::Duration;

use cellule::{ExecId, Sandbox};

use crate::attached::{self, Broken, Outcome, Streams, Terminal, died_of};
use crate::detach_keys::DetachKeys;
use crate::failure::Failure;
use crate::relay::Signals;
use crate::report::Report;
use crate::{completion, host, library_failure, terminal};

/// How long a sandbox may take to end once its command has.
const SETTLE: Duration = Duration::from_secs(20);

/// Join the command of a running sandbox: its output from now on, its input, its exit code
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The sandbox's name, or what its id begins with
    #[arg(add = completion::sandbox())]
    sandbox: String,
    /// Pass no input on
    #[arg(long)]
    no_stdin: bool,
    /// The keys that leave without ending the command
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    detach_keys: DetachKeys,
}

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let runtime = super::runtime()?;
    let result = runtime.block_on(async {
        let mut signals =
            Signals::catch().map_err(|error| Failure::because("cannot catch signals", &error))?;
        let sandbox = host::locate()?.connect(&arguments.sandbox).await;
        let mut sandbox = sandbox.map_err(|error| library_failure::of(&error))?;
        join(&mut sandbox, !arguments.no_stdin, arguments.detach_keys, &mut signals, false).await
    });
    runtime.shutdown_background();
    result
}

/// Starts the main program of a sandbox that was just launched, and stays with it. The sandbox outlives this process.
pub(super) async fn started(
    mut sandbox: Sandbox,
    interactive: bool,
    keys: DetachKeys,
    signals: &mut Signals,
) -> Result<ExitCode, Failure> {
    join(&mut sandbox, interactive, keys, signals, true).await
}

/// Stays with the main program, which is to be started first if `start` says so.
async fn join(
    sandbox: &mut Sandbox,
    stdin: bool,
    keys: DetachKeys,
    signals: &mut Signals,
    start: bool,
) -> Result<ExitCode, Failure> {
    let failed = |error: cellule::Error| library_failure::of(&error);
    let Some(main) = sandbox.spec().main.clone() else {
        return Err(Failure::new("the sandbox has no command of its own to attach to")
            .hint("run one in it: cellule exec, or cellule shell"));
    };
    let stdin = stdin && main.stdin != cellule::Stdin::None;
    terminal::check_input(stdin, main.tty)?;
    let theirs = sandbox.main_stdio(stdin).await.map_err(failed)?;
    if start {
        let report = Report::new(false, false);
        tokio::select! {
            started = super::run::start(sandbox, &report) => started?,
            signal = signals.next() => return Err(died_of(signal)),
        }
        sandbox.detach().await.map_err(failed)?;
    }
    let terminal = (main.tty && stdin).then_some(Terminal { keys });
    let streams = Streams { stdin: theirs.stdin, stdout: Some(theirs.stdout), stderr: theirs.stderr };
    let session = sandbox.session().clone();
    let exit = sandbox.wait();
    match attached::relay(streams, terminal, session, ExecId::MAIN, signals, exit).await {
        Ok(Outcome::Exited(status)) => {
            // Whoever comes next finds it ended. If that takes long, the code is no less true.
            _ = host::wait_for_end(sandbox.host(), sandbox.id(), SETTLE).await;
            attached::exit_code(status, None, false)
        }
        Ok(Outcome::Detached) => Ok(ExitCode::SUCCESS),
        Err(Broken::Signal(signal)) => Err(died_of(signal)),
        Err(Broken::Lost(error)) => Err(failed(error)),
        Err(Broken::Ours(failure)) => Err(failure),
    }
}
