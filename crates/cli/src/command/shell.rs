//! `cellule shell`: the best shell that an image has, on a terminal.

use std::process::ExitCode;

use cellule::{Error, StartFailureKind};

use super::exec;
use crate::attached::{self, Terminal, died_of};
use crate::detach_keys::DetachKeys;
use crate::failure::Failure;
use crate::relay::Signals;
use crate::{completion, environment, host, library_failure, terminal};

/// The best first.
const SHELLS: [&str; 6] = ["bash", "zsh", "fish", "ash", "dash", "sh"];

/// Open a shell in a running sandbox: the best that its image has
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The sandbox's name, or what its id begins with
    #[arg(add = completion::sandbox())]
    sandbox: String,
    /// Set a variable; NAME alone takes the value that it has here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Begin in this directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Be this user and group, names or numbers
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// The keys that leave the shell without ending it
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    detach_keys: DetachKeys,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let runtime = super::runtime()?;
    let result = runtime.block_on(shell(arguments));
    runtime.shutdown_background();
    result
}

async fn shell(arguments: &Arguments) -> Result<ExitCode, Failure> {
    terminal::check_input(true, true)?;
    let mut signals = Signals::catch().map_err(|error| Failure::because("cannot catch signals", &error))?;
    let sandbox = host::locate()?.connect(&arguments.sandbox).await;
    let mut sandbox = sandbox.map_err(|error| library_failure::of(&error))?;
    let variables = environment::read(&[""; 0], &arguments.env)?;
    for program in SHELLS {
        let mut command = sandbox.command(program);
        command.variables(variables.clone()).stdin(true).terminal(attached::window());
        if let Ok(term) = std::env::var("TERM")
            && !arguments.env.iter().any(|variable| variable.starts_with("TERM"))
        {
            command.env("TERM", &term);
        }
        if let Some(dir) = &arguments.workdir {
            command.current_dir(dir.as_str());
        }
        if let Some(user) = &arguments.user {
            command.user(user);
        }
        let spawned = tokio::select! {
            spawned = command.spawn() => spawned,
            signal = signals.next() => return Err(died_of(signal)),
        };
        match spawned {
            Ok(child) => {
                let terminal = Some(Terminal { keys: arguments.detach_keys.clone() });
                return exec::attach(&mut sandbox, child, terminal, None, &mut signals).await;
            }
            Err(Error::Start { source, .. }) if source.kind == StartFailureKind::NotFound => {}
            Err(error) => return Err(host::explained(&mut sandbox, error).await),
        }
    }
    Err(Failure::new("the image has no shell")
        .hint("copy a static one into it: cellule cp busybox NAME:/bin/sh"))
}
