//! `cellule execs attach`: joins an exec, at any point of its output.

use std::process::ExitCode;

use cellule::{AttachEvent, AttachSpec, Attachment, ExitStatus};
use cellule_protocol::client::Lost;

use crate::attached::{self, Broken, Outcome, Streams, Terminal, died_of};
use crate::detach_keys::DetachKeys;
use crate::failure::Failure;
use crate::relay::Signals;
use crate::terminal::check_input;
use crate::{host, quantity};

/// The offset that stands for the end of what was written so far.
const FROM_NOW_ON: u64 = u64::MAX;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: super::One,
    /// Begin at this byte of its standard output; by default with what is written from now on
    #[arg(long, value_name = "BYTES")]
    offset: Option<u64>,
    /// Begin at this byte of its standard error; by default at the beginning if --offset is given
    #[arg(long, value_name = "BYTES")]
    stderr_offset: Option<u64>,
    /// Pass no input on
    #[arg(long)]
    no_stdin: bool,
    /// The keys that leave without ending the command
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    detach_keys: DetachKeys,
}

pub(super) async fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let mut signals = Signals::catch().map_err(|error| Failure::because("cannot catch signals", &error))?;
    let mut sandbox = host::connect(&arguments.which.sandbox).await?;
    let info = super::find(&mut sandbox, &arguments.which.exec).await?;
    // One that has ended reads nothing more.
    let stdin = !arguments.no_stdin && info.exited.is_none();
    check_input(stdin, info.terminal)?;
    let stdout = arguments.offset;
    let stderr = arguments.stderr_offset.or(stdout.map(|_| 0));
    let what = AttachSpec {
        stdin,
        stdout: Some(stdout.unwrap_or(FROM_NOW_ON)),
        stderr: (!info.terminal).then_some(stderr.unwrap_or(FROM_NOW_ON)),
    };
    let mut joined = match sandbox.attach(info.id, what).await {
        Ok(joined) => joined,
        Err(error) => return Err(host::explained(&mut sandbox, error).await),
    };
    for (what, asked, from) in [
        ("standard output", stdout, joined.stdout_from),
        ("standard error", stderr.filter(|_| !info.terminal), joined.stderr_from),
    ] {
        tell_missing(what, asked.map_or(0, |asked| from.saturating_sub(asked)));
    }
    let streams =
        Streams { stdin: joined.stdin.take(), stdout: joined.stdout.take(), stderr: joined.stderr.take() };
    let terminal = info.terminal.then(|| Terminal { keys: arguments.detach_keys.clone() });
    let session = sandbox.session().clone();
    let relayed = attached::relay(streams, terminal, session, info.id, &mut signals, exit(&mut joined)).await;
    match relayed {
        Ok(Outcome::Exited(status)) => attached::exit_code(status, None, false),
        Ok(Outcome::Detached) => Ok(ExitCode::SUCCESS),
        Err(Broken::Signal(signal)) => Err(died_of(signal)),
        Err(Broken::Lost(lost)) => {
            let error = cellule::Error::Lost { lost, failure: None };
            Err(host::explained(&mut sandbox, error).await)
        }
        Err(Broken::Ours(failure)) => Err(failure),
    }
}

/// Waits for the exit, and says meanwhile what is missing.
async fn exit(joined: &mut Attachment) -> Result<ExitStatus, Lost> {
    loop {
        match joined.next().await? {
            AttachEvent::Exited(status) => return Ok(status),
            AttachEvent::Dropped { stderr, bytes, .. } => {
                tell_missing(if stderr { "standard error" } else { "standard output" }, bytes);
            }
        }
    }
}

fn tell_missing(what: &str, bytes: u64) {
    if bytes > 0 {
        let size = quantity::show_size(bytes);
        crate::say(&format!(
            "cellule: {size} ({bytes} bytes) of {what} are missing here: they were dropped\n"
        ));
    }
}
