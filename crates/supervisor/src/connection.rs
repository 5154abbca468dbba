//! One connection to the supervisor: a session in which the client opens streams.
//!
//! Streams of kind [`StreamKind::Supervisor`] carry calls to us. Those of the main program, of which there are many
//! readers and one agent's stream, come from the [hub](crate::hub). Every other stream is handed on to the agent as it is,
//! its header included, so that a client talks to the agent as if nobody stood between.

use std::sync::Arc;
use std::time::Duration;

use cellule_engine::MemorySize;
use cellule_network::{Forward, Network};
use cellule_protocol::client::{ExecId, HostStream as AgentStream, Session};
use cellule_protocol::mux::MuxStream;
use cellule_protocol::server::Streams;
use cellule_protocol::stream::{StreamHeader, StreamKind};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};

use crate::activity::{Activity, Watched};
use crate::greeting;
use crate::hub::Hub;
use crate::life::{Gate, Request};
use crate::process::NetworkChange;
use crate::save::{SaveOutcome, SaveRequest};
use crate::secrets::Vault;
use crate::service::Service;
use crate::state::Refusal;
use crate::status::Status;
use cellule_protocol::pass_through::pass_through;

/// How long a client may take to say that it is one, or which stream it opens.
const GREETING: Duration = Duration::from_secs(10);
/// What is read ahead of a side that writes slowly.
const AHEAD: usize = 128 << 10;

/// What a connection tells the owner of the state.
#[derive(Debug)]
pub(crate) enum Ask {
    /// A client asks something.
    Request {
        /// What.
        request: Request,
        /// The sandbox is removed once it has ended.
        remove: bool,
        /// Who waits for the answer.
        reply: oneshot::Sender<Reply>,
    },
    /// A client asks that the sandbox be saved.
    Save {
        /// How.
        request: SaveRequest,
        /// Who waits for the answer.
        reply: oneshot::Sender<Reply>,
    },
    /// A client asks how much of its machine's memory the guest is to have.
    SetMemory {
        /// That much.
        target: MemorySize,
        /// Who waits for the answer.
        reply: oneshot::Sender<Reply>,
    },
    /// A client asks that the network be another.
    ChangeNetwork {
        /// How.
        change: NetworkChange,
        /// Who waits for the answer.
        reply: oneshot::Sender<Reply>,
    },
    /// Somebody uses the sandbox.
    Used,
    /// The process that the sandbox belongs to is gone.
    OwnerGone,
}

/// What the owner of the state answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// It is done.
    Done,
    /// The main program could not be started: the agent's message.
    MainRefused(Vec<u8>),
    /// It was saved.
    Saved(SaveOutcome),
    /// The guest has so many bytes of memory now.
    Memory(u64),
    /// The port of the host's that leads in.
    Port(Forward),
    /// It was tried and failed: why.
    Failed(String),
    /// It is not done, for this reason.
    Refused(Refusal),
}

/// What connections see of the sandbox.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) status: watch::Receiver<Arc<Status>>,
    pub(crate) gate: watch::Receiver<Gate>,
    pub(crate) session: watch::Receiver<Option<Session>>,
    pub(crate) network: watch::Receiver<Option<Arc<Network>>>,
    pub(crate) vault: Vault,
    pub(crate) hub: Option<Hub>,
    pub(crate) activity: Activity,
    pub(crate) asks: mpsc::Sender<Ask>,
}

/// Whose connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// That of the process that the sandbox belongs to.
    Owner,
    /// That of anybody else who may connect.
    Guest,
}

/// Serves a connection until it ends, and says so if it is the owner's.
pub(crate) async fn serve(mut io: UnixStream, view: View, role: Role) {
    let asks = view.asks.clone();
    if let Ok(Ok(())) = tokio::time::timeout(GREETING, greeting::answer(&mut io)).await {
        let mut streams = Streams::new(io);
        while let Ok(Some(stream)) = streams.next().await {
            tokio::spawn(route(stream, view.clone(), role));
        }
    }
    if role == Role::Owner {
        // An owner of the state that is gone already needs no telling.
        _ = asks.send(Ask::OwnerGone).await;
    }
}

async fn route(mut stream: MuxStream, view: View, role: Role) {
    // A stream that is not understood is dropped, which resets it and no other.
    let header = tokio::time::timeout(GREETING, StreamHeader::read(&mut stream)).await;
    let Ok(Ok(header)) = header else { return };
    match header.kind {
        StreamKind::Supervisor => greeting::serve(stream, Service::new(view, role)).await,
        StreamKind::Stdin | StreamKind::Stdout | StreamKind::Stderr if header.id == ExecId::MAIN.0 => {
            join_main(header.kind, stream, view).await;
        }
        _ => pass_to_agent(header, stream, view).await,
    }
}

async fn join_main(kind: StreamKind, stream: MuxStream, view: View) {
    let Some(hub) = view.hub else { return };
    _ = view.asks.send(Ask::Used).await;
    match kind {
        StreamKind::Stdin => hub.join_input(stream),
        kind => hub.join_output(kind == StreamKind::Stderr, stream),
    }
}

async fn pass_to_agent(header: StreamHeader, stream: MuxStream, view: View) {
    let activity = view.activity.clone();
    let Some(agent) = agent_stream(header, view).await else { return };
    // A cut has been passed on by dropping both.
    if header.kind == StreamKind::Calls {
        // The agent's side too: a watcher that hears something uses the sandbox.
        _ = pass_through(Watched(stream, activity.clone()), Watched(agent, activity), AHEAD).await;
    } else {
        let _use = activity.begin();
        _ = pass_through(stream, agent, AHEAD).await;
    }
}

/// Opens the same stream to the agent, once it answers.
async fn agent_stream(header: StreamHeader, mut view: View) -> Option<AgentStream> {
    loop {
        // Copied out: the value is locked as long as it is looked at.
        let gate = *view.gate.borrow_and_update();
        match gate {
            Gate::Open => break,
            Gate::Closed => return None,
            Gate::Wake => view.asks.send(Ask::Used).await.ok()?,
            Gate::Wait => {}
        }
        // What the gate waits for has its own limits: then it opens or is closed.
        view.gate.changed().await.ok()?;
    }
    let session = view.session.borrow().clone()?;
    session.open(header).await.ok()
}
