//! `cellule start`: starts sandboxes that were made before, or that have ended; or a new one from a snapshot.

use std::process::ExitCode;

use cellule::network::NetworkChanges;
use cellule::{Host, Sandbox, SandboxName, SavedSandbox, SnapshotName};

use super::attach;
use crate::attached::died_of;
use crate::config::Config;
use crate::detach_keys::DetachKeys;
use crate::failure::{Failure, OWN_FAILURE};
use crate::network_options::NetworkOptions;
use crate::relay::Signals;
use crate::report::Report;
use crate::{completion, host, library_failure};

/// Start sandboxes that do not run, or a new one from a snapshot
///
/// The network of one from a snapshot is the snapshot's, as far as that opens neither this host nor its networks, at ports of
/// this host that are free; what is said of it here is another.
#[derive(Debug, clap::Args)]
#[command(mut_args(of_snapshot))]
pub(crate) struct Arguments {
    /// Names, or what ids begin with
    #[arg(required_unless_present = "from", value_name = "SANDBOX", add = completion::sandbox())]
    sandboxes: Vec<String>,
    /// Make a sandbox that goes on from this snapshot, start it, and print its id
    #[arg(long, value_name = "SNAPSHOT", conflicts_with = "sandboxes", add = completion::snapshot())]
    from: Option<SnapshotName>,
    /// Name the sandbox that goes on from a snapshot
    #[arg(long, conflicts_with = "sandboxes")]
    name: Option<SandboxName>,
    /// Stay with the command and exit as it does
    #[arg(short, long)]
    attach: bool,
    /// Pass standard input on to the command; implies --attach
    #[arg(short, long)]
    interactive: bool,
    /// The keys that leave a terminal without ending its command
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    detach_keys: DetachKeys,
    #[command(flatten)]
    network: NetworkOptions,
}

/// One that is started again has the network that it had. Clap does not ask for what `requires` names where that conflicts
/// with what is there, so that this must conflict itself.
fn of_snapshot(argument: clap::Arg) -> clap::Arg {
    let is_network = argument.get_help_heading() == Some(NetworkOptions::HEADING);
    if is_network { argument.conflicts_with("sandboxes") } else { argument }
}

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let runtime = super::runtime()?;
    let result = runtime.block_on(start_all(arguments));
    runtime.shutdown_background();
    result
}

async fn start_all(arguments: Arguments) -> Result<ExitCode, Failure> {
    let host = host::locate()?;
    let mut signals = Signals::catch().map_err(|error| Failure::because("cannot catch signals", &error))?;
    if let Some(snapshot) = &arguments.from {
        let network = arguments.network.changes(&Config::read()?.network)?;
        tell_missing_secrets(&host, snapshot, &network);
        let launched = tokio::select! {
            launched = host.launch_from_with(snapshot, arguments.name.clone(), network) => launched,
            signal = signals.next() => return Err(died_of(signal)),
        };
        let mut sandbox = launched.map_err(|error| library_failure::of(&error))?;
        if arguments.attach || arguments.interactive {
            return attach::started(sandbox, arguments.interactive, arguments.detach_keys, &mut signals)
                .await;
        }
        tokio::select! {
            going = go_on(&mut sandbox) => going?,
            signal = signals.next() => return Err(died_of(signal)),
        }
        crate::answer(&format!("{}\n", sandbox.id()))?;
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.attach || arguments.interactive {
        let [name] = arguments.sandboxes.as_slice() else {
            return Err(Failure::new("only one sandbox can be attached to"));
        };
        let sandbox = launch(&host, name).await?;
        return attach::started(sandbox, arguments.interactive, arguments.detach_keys, &mut signals).await;
    }
    let mut failed = false;
    for name in &arguments.sandboxes {
        let started = tokio::select! {
            started = start_one(&host, name) => started,
            signal = signals.next() => return Err(died_of(signal)),
        };
        match started {
            Ok(()) => crate::answer(&format!("{name}\n"))?,
            Err(failure) => {
                crate::say(&failure.render());
                failed = true;
            }
        }
    }
    Ok(ExitCode::from(if failed { OWN_FAILURE } else { 0 }))
}

async fn launch(host: &Host, name: &str) -> Result<Sandbox, Failure> {
    let failed = |error: cellule::Error| library_failure::of(&error);
    let entry = host.find(name).map_err(failed)?;
    if entry.is_live() {
        let (name, state) = (name.to_owned(), entry.record.state);
        return Err(failed(cellule::Error::Running { name, state }));
    }
    Sandbox::start(host.clone(), entry).await.map_err(failed)
}

/// Starts one and lets go of it. One that runs already is as it should be, by Docker's habit.
async fn start_one(host: &Host, name: &str) -> Result<(), Failure> {
    if host.find(name).map_err(|error| library_failure::of(&error))?.is_live() {
        return Ok(());
    }
    go_on(&mut launch(host, name).await?).await
}

/// A snapshot brings no secrets: whoever starts a sandbox from it hears which it had.
fn tell_missing_secrets(host: &Host, snapshot: &SnapshotName, network: &NetworkChanges) {
    let files = host.snapshots().find(snapshot).ok();
    let Some(saved) = files.and_then(|files| SavedSandbox::of(&files).ok()) else { return };
    let had = saved.spec.network.secrets.iter().map(|known| &known.secret.name);
    let missing: Vec<&str> = had
        .filter(|name| !network.secrets.iter().any(|secret| secret.spec.name == **name))
        .map(String::as_str)
        .collect();
    if !missing.is_empty() {
        crate::say(&format!(
            "cellule: a snapshot brings no secrets; this one's programs have placeholders of {}, for which --secret says what they \
             are\n",
            missing.join(", ")
        ));
    }
}

/// Waits until one that was launched runs, and lets go of it.
async fn go_on(sandbox: &mut Sandbox) -> Result<(), Failure> {
    super::run::start(sandbox, &Report::new(false, false)).await?;
    sandbox.detach().await.map_err(|error| library_failure::of(&error))
}

/// Starts one again that has ended.
pub(super) async fn again(host: &Host, name: &str) -> Result<(), Failure> {
    start_one(host, name).await
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Words {
        #[command(flatten)]
        _arguments: Arguments,
    }

    #[test]
    fn a_network_is_for_one_from_a_snapshot_alone() {
        for option in [
            "--publish=80",
            "--network=none",
            "--allow=example.com",
            "--host-names",
            "--dns=192.0.2.53",
            "--name=again",
        ] {
            assert!(Words::try_parse_from(["start", "--from", "loaded", option]).is_ok(), "{option}");
            let refused = Words::try_parse_from(["start", "web", option]).unwrap_err().to_string();
            assert!(refused.contains("SANDBOX"), "{option}: {refused}");
        }
    }
}
