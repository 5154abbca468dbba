//! The supervisor's process: owns one sandbox from the launch of its machine until nothing of it is left.
//!
//! One task, [`Supervisor::live`], owns the machine and the state. Connections only hand it [`Ask`]s and watch the
//! status that it publishes; streams to the agent pass through without a look at what they carry.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use cellule_protocol::client::Session;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};

use crate::connection;
use crate::directory::{DirectoryError, SandboxDir};
use crate::machine::{self, Started};
use crate::spec::SandboxSpec;
use crate::state::{Event, State};
use crate::status::{Failure, Status};

/// How long a machine that was told to end may take before it is given up. It is killed, so this is for a host in need.
const END: Duration = Duration::from_secs(10);
/// How long the owner may take to read the last status.
const FAREWELL: Duration = Duration::from_secs(15);

/// What a connection asks of the owner of the state.
#[derive(Debug)]
pub(crate) enum Ask {
    /// End the machine, giving its processes this long; the answer comes when it is gone.
    Stop(Duration, oneshot::Sender<()>),
    /// The process that the sandbox belongs to is gone.
    OwnerGone,
}

/// What connections see of the sandbox.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) status: watch::Receiver<Arc<Status>>,
    pub(crate) session: watch::Receiver<Option<Session>>,
    pub(crate) asks: mpsc::Sender<Ask>,
}

/// Supervises the sandbox of `dir` until it has ended, and removes the directory.
///
/// `owner` is a connection to the process that the sandbox belongs to. Its end is the end of the sandbox.
///
/// # Errors
/// The directory cannot be removed. Whatever happens to the sandbox itself is told to the owner.
pub async fn supervise(dir: SandboxDir, spec: SandboxSpec, owner: UnixStream) -> Result<(), DirectoryError> {
    let (status, status_view) = watch::channel(Arc::new(Status::starting()));
    let (session, session_view) = watch::channel(None);
    let (asks, inbox) = mpsc::channel(16);
    let view = View { status: status_view, session: session_view, asks };
    let mut owner = tokio::spawn(connection::serve(owner, view));
    let supervisor = Supervisor { state: State::Starting, status, session, inbox };
    supervisor.live(&spec, &dir).await;
    // The directory goes before the last word is heard, so that who hears it finds nothing left.
    let removed = dir.remove();
    _ = tokio::time::timeout(FAREWELL, &mut owner).await;
    owner.abort();
    removed
}

struct Supervisor {
    state: State,
    status: watch::Sender<Arc<Status>>,
    session: watch::Sender<Option<Session>>,
    inbox: mpsc::Receiver<Ask>,
}

/// What ended a phase of the sandbox's life.
enum Turn {
    Asked(Ask),
    Broke(Failure),
    PoweredOff(Failure),
}

impl Supervisor {
    async fn live(mut self, spec: &SandboxSpec, dir: &SandboxDir) {
        let status = self.status.clone();
        let start = machine::start(spec, dir.path(), |phase, machine| {
            status.send_modify(|status| {
                let status = Arc::make_mut(status);
                status.phases.push(phase);
                if let Some(machine) = machine {
                    status.set_engine_processes(&machine.processes());
                }
            });
        });
        let started = tokio::select! {
            started = start => started,
            ask = self.inbox.recv() => {
                // The future was dropped, and with it the machine.
                self.stop_without_machine(ask.unwrap_or(Ask::OwnerGone));
                return;
            }
        };
        let Started { machine, session } = match started {
            Ok(started) => started,
            Err(failure) => return self.fail(failure),
        };
        self.session.send_replace(Some(session.clone()));
        self.change(Event::AgentReady);

        let turn = tokio::select! {
            biased;
            ask = self.inbox.recv() => Turn::Asked(ask.unwrap_or(Ask::OwnerGone)),
            reason = machine.wait() => {
                let failure = machine::ended(&*machine, &reason);
                if reason == cellule_engine::ExitReason::PoweredOff { Turn::PoweredOff(failure) } else { Turn::Broke(failure) }
            }
            lost = session.ended() => Turn::Broke(machine::better_reason(&*machine, Failure::lost(&lost)).await),
        };
        match turn {
            Turn::Asked(ask) => {
                self.change(if matches!(ask, Ask::OwnerGone) { Event::OwnerGone } else { Event::StopAsked });
                if let Ask::Stop(grace, _) = &ask
                    && !grace.is_zero()
                    && session.power_off(*grace).await.is_ok()
                {
                    _ = tokio::time::timeout(*grace + END, machine.wait()).await;
                }
                machine.kill();
                _ = tokio::time::timeout(END, machine.wait()).await;
                self.change(Event::Broke);
                if let Ask::Stop(_, done) = ask {
                    _ = done.send(());
                }
            }
            Turn::PoweredOff(failure) => {
                // Why it ended is told although nothing failed: whoever waits for a program in it lost that.
                self.publish(|status| status.failure = Some(failure));
                self.change(Event::PoweredOff);
            }
            Turn::Broke(failure) => {
                machine.kill();
                _ = tokio::time::timeout(END, machine.wait()).await;
                self.fail(failure);
            }
        }
    }

    fn stop_without_machine(&mut self, ask: Ask) {
        self.change(if matches!(ask, Ask::OwnerGone) { Event::OwnerGone } else { Event::StopAsked });
        self.change(Event::Broke);
        if let Ask::Stop(_, done) = ask {
            _ = done.send(());
        }
    }

    fn fail(&mut self, failure: Failure) {
        self.publish(|status| status.failure = Some(failure));
        self.change(Event::Broke);
    }

    fn change(&mut self, event: Event) {
        self.state = self.state.after(event);
        let state = self.state;
        if state.is_final() {
            self.session.send_replace(None);
        }
        self.publish(|status| status.state = state);
    }

    fn publish(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_modify(|status| change(Arc::make_mut(status)));
    }
}

/// Takes over what the process was started with: the connection to its owner as standard input, the lock of the
/// sandbox's directory as standard output.
///
/// # Errors
/// They are not there.
pub fn inherited() -> io::Result<(UnixStream, std::fs::File)> {
    use std::os::fd::AsFd as _;
    let owner = io::stdin().as_fd().try_clone_to_owned()?;
    let lock = io::stdout().as_fd().try_clone_to_owned()?;
    let owner = std::os::unix::net::UnixStream::from(owner);
    owner.set_nonblocking(true)?;
    Ok((UnixStream::from_std(owner)?, lock.into()))
}
