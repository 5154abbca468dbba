//! `cellule login`: keeps the credential for a registry where Docker keeps it.

use std::io::{BufRead as _, IsTerminal as _, Read as _};
use std::process::ExitCode;
use std::sync::Arc;

use cellule_image::{Credential, Credentials};

use crate::attached::died_of;
use crate::failure::Failure;
use crate::relay::Signals;
use crate::store::{self, GetOptions};
use crate::terminal::ChangedMode;
use crate::watch::Watch;

/// A password longer than this is a mistake.
const SECRET_BYTES: u64 = 64 << 10;

/// Log in to a registry; the credential is checked first and kept where Docker keeps it
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The registry; Docker's own if none is named
    #[arg(default_value = "docker.io")]
    registry: String,
    /// The user's name
    #[arg(short, long)]
    username: Option<String>,
    /// Read the password, or an access token, from standard input
    #[arg(long)]
    password_stdin: bool,
    #[command(flatten)]
    get: GetOptions,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let terminal = std::io::stdin().is_terminal();
    let username = match &arguments.username {
        Some(name) => name.clone(),
        None if terminal && !arguments.password_stdin => ask("Username: ")?,
        None => return Err(Failure::new("no user is named").hint("name one: --username NAME")),
    };
    let secret = if arguments.password_stdin {
        Some(read_secret()?)
    } else if terminal {
        None
    } else {
        return Err(Failure::new("there is no terminal to ask for the password on")
            .hint("pipe it in: --password-stdin"));
    };
    let runtime = super::runtime()?;
    let done = runtime.block_on(log_in(arguments, username, secret));
    // A thread may still wait for the password.
    runtime.shutdown_background();
    done?;
    crate::say(&format!("logged in to {}\n", arguments.registry));
    Ok(ExitCode::SUCCESS)
}

/// Asks for the password if there is none, and logs in, unless a signal ends that.
async fn log_in(arguments: &Arguments, username: String, secret: Option<String>) -> Result<(), Failure> {
    let mut signals = Signals::catch().map_err(|error| Failure::because("cannot catch signals", &error))?;
    let password = match secret {
        Some(secret) => secret,
        None => ask_hidden("Password: ", &mut signals).await?,
    };
    if password.is_empty() {
        return Err(Failure::new("the password is empty"));
    }
    let credential = Credential::Password { username, password };
    let options = arguments.get.options(&Arc::new(Watch::new(true)));
    let login = Credentials::default();
    let done = tokio::select! {
        done = login.login(&arguments.registry, credential, &options) => done,
        signal = signals.next() => return Err(died_of(signal)),
    };
    done.map_err(|error| store::failure(format!("cannot log in to {}", arguments.registry), &error))
}

fn ask(question: &str) -> Result<String, Failure> {
    crate::say(question);
    let mut line = String::new();
    let read = std::io::stdin().lock().take(SECRET_BYTES).read_line(&mut line);
    read.map_err(|error| Failure::because("cannot read the answer", &error))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Asks on a terminal that does not show what is typed, and is as it was afterwards, whatever ends the question.
async fn ask_hidden(question: &'static str, signals: &mut Signals) -> Result<String, Failure> {
    let hidden = ChangedMode::without_echo(std::io::stdin())
        .map_err(|error| Failure::because("cannot hide the password", &error))?;
    let answer = tokio::select! {
        answer = tokio::task::spawn_blocking(move || ask(question)) => {
            answer.unwrap_or_else(|error| Err(Failure::because("cannot read the answer", &error)))
        }
        signal = signals.next() => Err(died_of(signal)),
    };
    drop(hidden);
    crate::say("\n");
    answer
}

fn read_secret() -> Result<String, Failure> {
    let mut secret = String::new();
    let read = std::io::stdin().lock().take(SECRET_BYTES).read_to_string(&mut secret);
    read.map_err(|error| Failure::because("cannot read the password", &error))?;
    Ok(secret.trim_end_matches(['\r', '\n']).to_owned())
}
