//! What runs in a guest before it is saved.
//!
//! ```text
//!   inodes read ahead ──▶ a shell, twice ──▶ commands, in turn ──▶ detached ones ──▶ ports and commands say "ready"
//!        ──▶ all programs held ──▶ (the guest is saved) ──▶ released, in this guest and in each copy, once it knows what it is
//! ```

use std::time::{Duration, Instant};

use cellule_protocol::client::files::ReadRange;
use cellule_protocol::client::{Exec, ExecId, ExecSpec, Exit};
use tokio::io::AsyncReadExt as _;
use tokio::time::{sleep, timeout};

use super::chain;
use crate::failure::Failure;
use crate::machine::{Running, nobodys};
use crate::network;
use crate::spec::WarmUp;

/// How long one command may take: they install and compile.
const COMMAND_WITHIN: Duration = Duration::from_secs(600);
/// How long it may take until all is ready, and how often is looked.
const READY_WITHIN: Duration = Duration::from_secs(120);
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// How long the shell may take that most programs begin with.
const SHELL_WITHIN: Duration = Duration::from_secs(10);
/// How often a start is rehearsed, and how many programs are run each time: what ran before finds its way.
const REHEARSALS: usize = 2;
const PROGRAMS: usize = 6;
/// What is read of a list of sockets: some thousand of them.
const SOCKETS_MAX: u64 = 1 << 20;

/// The longest that it can take.
pub(super) fn limit(warm_up: &WarmUp) -> Duration {
    let commands = u32::try_from(warm_up.commands.len()).unwrap_or(u32::MAX);
    let ready = u32::try_from(warm_up.ready_commands.len()).unwrap_or(u32::MAX).saturating_add(1);
    COMMAND_WITHIN.saturating_mul(commands).saturating_add(READY_WITHIN.saturating_mul(ready))
}

/// Prepares a guest to be saved; the error says what of it did not work.
pub(super) async fn prepare(guest: &Running, warm_up: &WarmUp) -> Result<(), String> {
    let session = &guest.session;
    let _refusing = network::refusing(&guest.link).map_err(|failure| failure.line())?;
    // Of no image's importance but to be fast.
    _ = session.read_ahead().await;
    // What most programs run first: then it is in the page cache, and a control group is at hand. Twice, since the pages that
    // the first one read are its group's, which is not used again then. An image without a shell has neither.
    for _ in 0..2 {
        _ = timeout(SHELL_WITHIN, run(guest, spec(&WarmUp::default(), ":"))).await;
    }
    for command in &warm_up.commands {
        let ended = timeout(COMMAND_WITHIN, run(guest, spec(warm_up, command))).await;
        match ended.map_err(|_| format!("`{command}` took more than {} s", COMMAND_WITHIN.as_secs()))?? {
            Exit::Code(0) => {}
            Exit::Code(code) => return Err(format!("`{command}` ended with code {code}")),
            Exit::Signal(signal) => return Err(format!("`{command}` was killed by signal {signal}")),
        }
    }
    for command in &warm_up.detached {
        let started = session.exec_detached(ExecId::random(), spec(warm_up, command)).await;
        started.map_err(|error| format!("`{command}`: {}", chain(&error)))?;
    }
    let begun = Instant::now();
    for port in &warm_up.ready_ports {
        while !is_listened_on(guest, *port).await? {
            wait_for(begun, || format!("port {port} is not listened on")).await?;
        }
    }
    for command in &warm_up.ready_commands {
        while timeout(READY_WITHIN, run(guest, spec(warm_up, command))).await != Ok(Ok(Exit::Code(0))) {
            wait_for(begun, || format!("`{command}` does not end with code 0")).await?;
        }
    }
    session.hold().await.map_err(|error| chain(&error))
}

/// Has a guest do all that a sandbox begins with, so that its emulator has translated it: told what it is, let go on, programs
/// run to their ends. Then its programs stand still.
pub(crate) async fn rehearse(guest: &Running, env: &[String]) -> Result<(), Failure> {
    let script = spec(&WarmUp { env: env.to_vec(), ..WarmUp::default() }, "echo");
    let program = ExecSpec { argv: vec![b"echo".to_vec()], ..script.clone() };
    for _ in 0..REHEARSALS {
        guest.handshake(Some(nobodys())).await?;
        guest.session.go_on().await.map_err(|error| Failure::call(&error))?;
        for _ in 0..PROGRAMS {
            // An image that has neither rehearses what is said of that.
            for spec in [&script, &program] {
                _ = timeout(SHELL_WITHIN, output(guest, spec.clone())).await;
            }
        }
        guest.session.hold().await.map_err(|error| Failure::call(&error))?;
    }
    Ok(())
}

/// Runs something as those do who want to read what it says.
async fn output(guest: &Running, spec: ExecSpec) -> Result<(), String> {
    let Exec { mut stdout, stderr, mut process, .. } =
        guest.session.exec(spec).await.map_err(|error| chain(&error))?;
    let (mut said, mut complained) = (Vec::new(), Vec::new());
    let complaints = async {
        match stderr {
            Some(mut stderr) => stderr.read_to_end(&mut complained).await,
            None => Ok(0),
        }
    };
    let (said, complained, ended) = tokio::join!(stdout.read_to_end(&mut said), complaints, process.wait());
    said.and(complained).map_err(|error| error.to_string())?;
    ended.map(drop).map_err(|lost| chain(&lost))
}

async fn wait_for(begun: Instant, what: impl FnOnce() -> String) -> Result<(), String> {
    if begun.elapsed() > READY_WITHIN {
        return Err(format!("{} after {} s", what(), READY_WITHIN.as_secs()));
    }
    sleep(LOOK_AGAIN_AFTER).await;
    Ok(())
}

async fn run(guest: &Running, spec: ExecSpec) -> Result<Exit, String> {
    let mut process = guest.session.exec_without_output(spec).await.map_err(|error| chain(&error))?;
    Ok(process.wait().await.map_err(|lost| chain(&lost))?.exit)
}

fn spec(warm_up: &WarmUp, script: &str) -> ExecSpec {
    ExecSpec {
        argv: ["/bin/sh", "-c", script].map(|word| word.as_bytes().to_vec()).to_vec(),
        env: warm_up.env.iter().map(|variable| variable.as_bytes().to_vec()).collect(),
        cwd: warm_up.working_dir.as_bytes().to_vec(),
        create_cwd: true,
        user: warm_up.user.clone(),
        ..ExecSpec::default()
    }
}

/// Whether a TCP socket of the guest listens on this port, as the guest's kernel tells it.
async fn is_listened_on(guest: &Running, port: u16) -> Result<bool, String> {
    for list in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let reader = guest.session.files().read(list, ReadRange::default()).await;
        // A kernel without IPv6 has no such list.
        let Ok(reader) = reader else { continue };
        let mut text = String::new();
        let read = reader.take(SOCKETS_MAX).read_to_string(&mut text).await;
        read.map_err(|error| format!("{list}: {error}"))?;
        if listens(&text, port) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a list of sockets in the kernel's form has one that listens on this port.
fn listens(sockets: &str, port: u16) -> bool {
    const LISTEN: &str = "0A";
    sockets.lines().any(|line| {
        // `sl local_address rem_address st …`, the address and the port in hexadecimal.
        let mut words = line.split_whitespace().skip(1);
        let local = words.next().and_then(|local| local.rsplit_once(':'));
        let state = words.nth(1);
        state == Some(LISTEN) && local.is_some_and(|(_, digits)| u16::from_str_radix(digits, 16) == Ok(port))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listening_socket_is_told_from_a_connected_one() {
        let sockets = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt\n\
             0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12 1 0\n\
             1: 0100007F:0050 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 13 1 0\n";
        assert!(listens(sockets, 8080));
        assert!(!listens(sockets, 80) && !listens(sockets, 50000) && !listens("garbage", 8080));
    }
}
