//! `cellule stop`: ends sandboxes in good order.

use std::process::ExitCode;
use std::time::Duration;

use cellule::{Entry, Host, Sandbox, Signal, StopOptions};

use crate::each::each;
use crate::failure::Failure;
use crate::{completion, host, library_failure, quantity};

/// Stop sandboxes: ask the command to end, and kill it when its time is over
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Names, or what ids begin with
    #[arg(required = true, value_name = "SANDBOX", add = completion::sandbox())]
    sandboxes: Vec<String>,
    #[command(flatten)]
    grace: Grace,
    /// Send the command this signal instead of the image's own, or SIGTERM
    #[arg(short, long)]
    signal: Option<Signal>,
}

/// How long a command may take to end.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct Grace {
    /// Kill the command after this time; a number alone is seconds
    #[arg(short = 't', long = "timeout", visible_alias = "time", value_name = "TIME", default_value = "10",
          value_parser = parse_grace)]
    pub(super) time: Duration,
}

/// A time as everywhere, or none at all.
fn parse_grace(text: &str) -> Result<Duration, String> {
    if text == "0" { Ok(Duration::ZERO) } else { quantity::parse_duration(text) }
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let host = host::locate()?;
    let signal = arguments.signal.map(Signal::number);
    let options = StopOptions { grace: arguments.grace.time, signal, remove: false };
    let stopping = each(&arguments.sandboxes, |name| {
        let host = host.clone();
        async move {
            let entry = host.find(&name).map_err(|error| library_failure::of(&error))?;
            stop(&host, entry, options).await?;
            Ok(name)
        }
    });
    super::runtime()?.block_on(stopping)
}

/// Ends one. That it has ended is what was asked for, whoever did it.
pub(super) async fn stop(host: &Host, entry: Entry, options: StopOptions) -> Result<(), Failure> {
    if !entry.is_live() {
        return Ok(());
    }
    let id = entry.spec.id.clone();
    let stopped = async { Sandbox::open(host.clone(), entry).await?.stop_with(options).await };
    match stopped.await {
        Err(error) if !host::has_ended(host, id.as_str()) => Err(library_failure::of(&error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_may_get_no_time_at_all() {
        assert_eq!(parse_grace("0"), Ok(Duration::ZERO));
        assert_eq!(parse_grace("7"), Ok(Duration::from_secs(7)));
        assert_eq!(parse_grace("1m"), Ok(Duration::from_secs(60)));
        assert!(parse_grace("-1").is_err());
    }
}
