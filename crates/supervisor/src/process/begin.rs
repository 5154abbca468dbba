//! Sets up a supervisor: what it owns, and what its connections see of that.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};

use super::{Changing, Clocks, Saves, Supervisor, Teller};
use crate::activity::Activity;
use crate::connection::{self, Role, View};
use crate::directory::{DirectoryError, LOGS, SandboxDir};
use crate::failure::{Failure, FailureKind};
use crate::hub::Hub;
use crate::inherited::complain;
use crate::life::{Gate, Life};
use crate::listener::Listener;
use crate::log::{LogWriter, MAIN_LOG};
use crate::machine::{self, Progress, Started, Steps};
use crate::record::Record;
use crate::recorder::Recorder;
use crate::secrets::Vault;
use crate::spec::SandboxSpec;
use crate::status::Status;

/// What connections may have asked and not been heard with.
const ASKS: usize = 64;

/// Supervises the sandbox of `dir` until it has ended, and removes the directory if nobody keeps it.
///
/// `owner` is a connection to the process that the sandbox belongs to. Its end is the end of the sandbox, unless the
/// owner released it before.
///
/// # Errors
/// The directory cannot be removed. Whatever happens to the sandbox itself is told to its clients.
pub async fn supervise(dir: SandboxDir, spec: SandboxSpec, owner: UnixStream) -> Result<(), DirectoryError> {
    // A terminal or a shell that goes away takes nothing of ours down. It fails where we have no terminal already.
    _ = rustix::process::setsid();
    let (progress, phases) = mpsc::unbounded_channel();
    let spec = Arc::new(spec);
    let vault = Vault::default();
    let start =
        machine::start(Arc::clone(&spec), dir.path().to_path_buf(), vault.clone(), Steps::new(progress));
    supervise_start(dir, spec, owner, vault, Box::pin(start), phases).await
}

/// The same with a start that may be on its way already, and what it tells of its steps.
pub(crate) async fn supervise_start(
    dir: SandboxDir,
    spec: Arc<SandboxSpec>,
    owner: UnixStream,
    vault: Vault,
    start: BoxFuture<'static, Result<Started, Failure>>,
    phases: mpsc::UnboundedReceiver<Progress>,
) -> Result<(), DirectoryError> {
    let record = dir.record().unwrap_or_else(|_| Record::created().starting());
    let (status, status_view) = watch::channel(Arc::new(Status::starting()));
    let (gate, gate_view) = watch::channel(Gate::Wait);
    let (session, session_view) = watch::channel(None);
    let (network, network_view) = watch::channel(None);
    let (asks, inbox) = mpsc::channel(ASKS);
    let weak = asks.downgrade();
    let activity = Activity::new();
    let hub = spec.main.as_ref().map(|main| {
        Hub::new(LogWriter::new(&dir.path().join(LOGS).join(MAIN_LOG)), main.stdin, activity.clone())
    });
    let view = View {
        status: status_view,
        gate: gate_view,
        session: session_view,
        network: network_view,
        vault,
        hub: hub.clone(),
        activity: activity.clone(),
        asks,
    };
    let connections = Connections::default();
    connections.serve(owner, view.clone(), Role::Owner, ());
    let accepting = Listener::bind(dir.path()).map(|listener| {
        let connections = connections.clone();
        tokio::spawn(async move {
            loop {
                let accepted = listener.accept().await;
                connections.serve(accepted.stream, view.clone(), Role::Guest, accepted.place);
            }
        })
    });
    let supervisor = Supervisor {
        life: Life::new(spec.main.is_some(), spec.stop_signal)
            .keeping_disk(spec.disk.is_some() && !spec.auto_remove),
        clocks: Clocks::new(&spec),
        recorder: Recorder::new(dir.path().to_path_buf(), status),
        status: Status::starting(),
        record: Record { supervisor_pid: Some(std::process::id()), ..record },
        cause: None,
        remove: spec.auto_remove,
        asked_to_stop: false,
        tickets: HashMap::new(),
        next_ticket: 0,
        saves: Saves::default(),
        changing: Changing::default(),
        carried: None,
        refusal: Vec::new(),
        pending: VecDeque::new(),
        start: Some(start),
        jobs: FuturesUnordered::new(),
        logging: None,
        machine: None,
        teller: Teller::new(&dir, &spec),
        path: dir.path().to_path_buf(),
        spec,
        dir,
        gate,
        session,
        network,
        asks: weak,
        inbox,
        phases,
        hub,
        activity,
        connections,
    };
    match accepting {
        Ok(accepting) => supervisor.live(accepting).await,
        Err(error) => {
            complain(&format!("cannot listen: {error}"));
            let failure = Failure::new(FailureKind::Supervisor, "the supervisor cannot listen", Some(&error));
            supervisor.fail_at_once(failure).await
        }
    }
}

/// The connections that are open.
#[derive(Debug, Clone)]
pub(super) struct Connections(watch::Sender<usize>);

impl Default for Connections {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl Connections {
    /// Serves one in a task of its own; `place` is given back at its end.
    fn serve(&self, stream: UnixStream, view: View, role: Role, place: impl Send + 'static) {
        let open = self.0.clone();
        open.send_modify(|count| *count += 1);
        tokio::spawn(async move {
            connection::serve(stream, view, role).await;
            drop(place);
            open.send_modify(|count| *count -= 1);
        });
    }

    /// Waits until all are closed.
    pub(super) async fn closed(&self) {
        // The sender is ours, so the wait cannot fail.
        _ = self.0.subscribe().wait_for(|count| *count == 0).await;
    }
}
