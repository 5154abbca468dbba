//! `cellule execs …`: the commands that run in a sandbox besides its own, and the detached ones that ended.

mod attach;
mod list;

use std::process::ExitCode;

use cellule::{AttachEvent, AttachSpec, ExecId, ExecInfo, ExitStatus, Sandbox, Signal, TerminalSize};

use crate::each::code;
use crate::failure::Failure;
use crate::{attached, completion, host};

/// Manage the commands that `cellule exec` started
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List the commands that run in a sandbox, and the detached ones that ended
    Ls(list::Arguments),
    /// Join a command: its output, its input, its exit code
    Attach(attach::Arguments),
    /// Send commands a signal
    Kill {
        /// The signal, by name or number
        #[arg(short, long, default_value = "KILL")]
        signal: Signal,
        /// Send it to all processes that the command started, as SIGKILL always is
        #[arg(short, long)]
        all: bool,
        #[command(flatten)]
        which: Several,
    },
    /// Wait until commands have ended, and exit as the last of them did
    Wait {
        #[command(flatten)]
        which: Several,
    },
    /// Tell the terminal of a command its size
    Resize {
        #[command(flatten)]
        which: One,
        /// Lines
        #[arg(long)]
        rows: u16,
        /// Characters in a line
        #[arg(long)]
        columns: u16,
    },
    /// Forget detached commands that ended, and what is kept of their output
    Rm {
        #[command(flatten)]
        which: Several,
    },
}

/// An exec.
#[derive(Debug, clap::Args)]
pub(crate) struct One {
    /// The sandbox's name, or what its id begins with
    #[arg(add = completion::sandbox())]
    sandbox: String,
    /// What the id begins with that `cellule execs ls` shows
    exec: String,
}

/// Some of a sandbox's execs.
#[derive(Debug, clap::Args)]
pub(crate) struct Several {
    /// The sandbox's name, or what its id begins with
    #[arg(add = completion::sandbox())]
    sandbox: String,
    /// What the ids begin with that `cellule execs ls` shows
    #[arg(required = true, value_name = "EXEC")]
    execs: Vec<String>,
}

pub(crate) fn run(command: Command) -> Result<ExitCode, Failure> {
    let runtime = super::runtime()?;
    let result = match command {
        Command::Ls(arguments) => runtime.block_on(list::run(&arguments)),
        Command::Attach(arguments) => runtime.block_on(attach::run(&arguments)),
        Command::Kill { signal, all, which } => {
            runtime.block_on(kill(&which, signal, all || signal == Signal::KILL))
        }
        Command::Wait { which } => runtime.block_on(wait(&which)),
        Command::Resize { which, rows, columns } => {
            runtime.block_on(resize(&which, TerminalSize { rows, columns }))
        }
        Command::Rm { which } => runtime.block_on(remove(&which)),
    };
    // A thread may still wait for standard input, which need not end for us to.
    runtime.shutdown_background();
    result
}

async fn kill(which: &Several, signal: Signal, all: bool) -> Result<ExitCode, Failure> {
    each(which, async |sandbox, exec| match sandbox.signal(exec, signal, all).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(ended(exec)),
        Err(error) => Err(host::explained(sandbox, error).await),
    })
    .await
}

async fn remove(which: &Several) -> Result<ExitCode, Failure> {
    each(which, async |sandbox, exec| match sandbox.forget(exec).await {
        // That it is forgotten already is what was asked for.
        Ok(_) => Ok(()),
        Err(error) => Err(host::explained(sandbox, error).await),
    })
    .await
}

async fn resize(which: &One, size: TerminalSize) -> Result<ExitCode, Failure> {
    let mut sandbox = host::connect(&which.sandbox).await?;
    let exec = find(&mut sandbox, &which.exec).await?.id;
    match sandbox.resize(exec, size).await {
        Ok(true) => Ok(ExitCode::SUCCESS),
        Ok(false) => Err(ended(exec)),
        Err(error) => Err(host::explained(&mut sandbox, error).await),
    }
}

async fn wait(which: &Several) -> Result<ExitCode, Failure> {
    let mut sandbox = host::connect(&which.sandbox).await?;
    let mut code = ExitCode::SUCCESS;
    for exec in &which.execs {
        let info = find(&mut sandbox, exec).await?;
        let status = match info.exited {
            Some(status) => Ok(status),
            None => end_of(&sandbox, info.id).await,
        };
        code = match status {
            Ok(status) => attached::exit_code(status, None, true)?,
            Err(error) => return Err(host::explained(&mut sandbox, error).await),
        };
    }
    Ok(code)
}

async fn end_of(sandbox: &Sandbox, exec: ExecId) -> Result<ExitStatus, cellule::Error> {
    let mut joined = sandbox.attach(exec, AttachSpec::default()).await?;
    loop {
        match joined.next().await {
            Ok(AttachEvent::Exited(status)) => return Ok(status),
            Ok(AttachEvent::Dropped { .. }) => {}
            Err(lost) => return Err(cellule::Error::Lost { lost, failure: None }),
        }
    }
}

/// Does something to each of them, and prints the id of each when it is done.
async fn each(
    which: &Several,
    act: impl AsyncFn(&mut Sandbox, ExecId) -> Result<(), Failure>,
) -> Result<ExitCode, Failure> {
    let mut sandbox = host::connect(&which.sandbox).await?;
    let mut failed = false;
    for exec in &which.execs {
        let found = find(&mut sandbox, exec).await;
        let done = match &found {
            Ok(info) => act(&mut sandbox, info.id).await.map(|()| info.id),
            Err(_) => found.map(|info| info.id),
        };
        match done {
            Ok(id) => crate::answer(&format!("{id}\n"))?,
            Err(failure) => {
                crate::say(&failure.render());
                failed = true;
            }
        }
    }
    Ok(code(failed))
}

fn ended(exec: ExecId) -> Failure {
    Failure::new(format!("the command {exec} has ended"))
}

/// The exec that is meant.
async fn find(sandbox: &mut Sandbox, text: &str) -> Result<ExecInfo, Failure> {
    match sandbox.execs().await {
        Ok(execs) => choose(execs, text),
        Err(error) => Err(host::explained(sandbox, error).await),
    }
}

fn choose(execs: Vec<ExecInfo>, text: &str) -> Result<ExecInfo, Failure> {
    let prefix = text.to_ascii_lowercase();
    let mut found: Vec<ExecInfo> = execs
        .into_iter()
        .filter(|info| !prefix.is_empty() && info.id.to_string().starts_with(&prefix))
        .collect();
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one),
        (None, _) => Err(Failure::new(format!("the sandbox has no command {text:?}"))
            .hint("those that it has are listed by: cellule execs ls SANDBOX")),
        (Some(_), false) => {
            Err(Failure::new(format!("several commands have an id that begins with {text:?}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    pub(super) fn info(id: u64) -> ExecInfo {
        ExecInfo {
            id: ExecId(id),
            argv: vec![b"sh".to_vec(), b"-c".to_vec(), b"true\n".to_vec()],
            pid: 7,
            terminal: false,
            detached: true,
            started: UNIX_EPOCH,
            exited: None,
            stdout_bytes: 3_000_000,
            stdout_dropped: 2_000_000,
            stderr_bytes: 0,
            stderr_dropped: 0,
        }
    }

    #[test]
    fn an_exec_is_found_by_what_its_id_begins_with_if_only_one_does() {
        let all = || vec![info(0xabcd_0000_0000_0000), info(0xabce_0000_0000_0000), info(1)];
        assert_eq!(choose(all(), "ABCD").unwrap().id, ExecId(0xabcd_0000_0000_0000));
        assert_eq!(choose(all(), "0000000000000001").unwrap().id, ExecId::MAIN);
        assert!(choose(all(), "abc").unwrap_err().render().contains("several"));
        assert!(choose(all(), "f").unwrap_err().render().contains("no command"));
        assert!(choose(all(), "").is_err());
    }
}
