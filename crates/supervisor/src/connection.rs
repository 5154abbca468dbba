//! One connection to the supervisor: a session in which the client opens streams.
//!
//! Streams of kind [`StreamKind::Supervisor`] carry calls to us. Every other stream is handed on to the agent as it is,
//! its header included, so that a client talks to the agent as if nobody stood between.

use std::pin::Pin;
use std::time::Duration;

use cellule_protocol::client::HostStream as AgentStream;
use cellule_protocol::mux::MuxStream;
use cellule_protocol::server::Streams;
use cellule_protocol::stream::{StreamHeader, StreamKind};
use cellule_protocol::supervisor::v1;
use cellule_protocol::supervisor::v1::supervisor_server::Supervisor;
use futures::stream::{self, Stream};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tonic::{Request, Response};

use crate::greeting;
use crate::pass_through::{Passable, pass_through};
use crate::process::{Ask, View};
use crate::state::{Admission, Request as Asked};

/// How long a client may take to say that it is one, or which stream it opens.
const GREETING: Duration = Duration::from_secs(10);

impl Passable for MuxStream {
    fn is_closed(&self) -> bool {
        self.is_reset()
    }
}

impl Passable for AgentStream {
    fn is_closed(&self) -> bool {
        self.is_reset()
    }
}

/// Serves a connection until it ends, and says so: the process behind it is what the sandbox belongs to.
pub(crate) async fn serve(mut io: UnixStream, view: View) {
    let asks = view.asks.clone();
    if let Ok(Ok(())) = tokio::time::timeout(GREETING, greeting::answer(&mut io)).await {
        let mut streams = Streams::new(io);
        while let Ok(Some(stream)) = streams.next().await {
            tokio::spawn(route(stream, view.clone()));
        }
    }
    // An owner of the state that is gone already needs no telling.
    _ = asks.send(Ask::OwnerGone).await;
}

async fn route(mut stream: MuxStream, view: View) {
    // A stream that is not understood is dropped, which resets it and no other.
    let header = tokio::time::timeout(GREETING, StreamHeader::read(&mut stream)).await;
    let Ok(Ok(header)) = header else { return };
    if header.kind == StreamKind::Supervisor {
        greeting::serve(stream, Service { view }).await;
    } else if let Some(agent) = agent_stream(header, view).await {
        // A cut has been passed on by dropping both.
        _ = pass_through(stream, agent).await;
    }
}

/// Opens the same stream to the agent, once it answers.
async fn agent_stream(header: StreamHeader, mut view: View) -> Option<AgentStream> {
    // Ends with the start, which has its own limits: then there is a session, or a final state.
    let settled =
        view.status.wait_for(|status| status.state.admit(Asked::Agent) != Ok(Admission::WhenRunning));
    settled.await.ok()?.state.admit(Asked::Agent).ok()?;
    let session = view.session.borrow().clone()?;
    session.open(header).await.ok()
}

#[derive(Debug)]
struct Service {
    view: View,
}

type Statuses = Pin<Box<dyn Stream<Item = Result<v1::Status, tonic::Status>> + Send>>;

#[tonic::async_trait]
impl Supervisor for Service {
    type WatchStream = Statuses;

    async fn watch(&self, _request: Request<v1::WatchRequest>) -> Result<Response<Statuses>, tonic::Status> {
        // `None` after a final state has been told.
        let mut status = self.view.status.clone();
        status.mark_changed();
        let statuses = stream::unfold(Some(status), |status| async move {
            let mut status = status?;
            status.changed().await.ok()?;
            let now = status.borrow_and_update().clone();
            let next = if now.state.is_final() { None } else { Some(status) };
            Some((Ok(v1::Status::from(&*now)), next))
        });
        Ok(Response::new(Box::pin(statuses)))
    }

    async fn stop(
        &self,
        request: Request<v1::StopRequest>,
    ) -> Result<Response<v1::StopResponse>, tonic::Status> {
        let state = self.view.status.borrow().state;
        state
            .admit(Asked::Stop)
            .map_err(|refusal| tonic::Status::failed_precondition(refusal.to_string()))?;
        let (done, gone) = oneshot::channel();
        let grace = Duration::from_millis(request.into_inner().grace_ms);
        // Whoever no longer listens, or drops the answer, is gone; and then so is the machine.
        if self.view.asks.send(Ask::Stop(grace, done)).await.is_ok() {
            _ = gone.await;
        }
        Ok(Response::new(v1::StopResponse {}))
    }
}
