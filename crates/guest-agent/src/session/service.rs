//! Owns the calls: each comes on a stream of its own.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use cellule_protocol::call;
use cellule_protocol::mux::MuxStream;
use cellule_protocol::v1;
use cellule_protocol::v1::agent_server::{Agent as AgentService, AgentServer};
use cellule_protocol::v1::files_server::{FilesServer, SERVICE_NAME as FILES};
use futures::{Stream, StreamExt as _};
use tokio::sync::mpsc;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, http};
use tonic::{Request, Response, Status};

use super::{Agent, Session};
use crate::exec::calls;
use crate::insight::{self, diff, processes, stats};
use crate::log::LOG;
use crate::machine::Machine;
use crate::{boot, files, machine};

/// How long the answer to a power-off gets to leave.
const ANSWER_LEAVES_WITHIN: Duration = Duration::from_millis(20);

/// The services of one session.
#[derive(Debug, Clone)]
pub(super) struct Services {
    agent: AgentServer<Service>,
    files: FilesServer<files::Service>,
}

impl Services {
    pub(super) fn new(agent: &Arc<Agent>, session: &Arc<Session>) -> Self {
        let files = files::Service::new(Arc::clone(agent), Arc::clone(session));
        let agent = Service { agent: Arc::clone(agent), session: Arc::clone(session) };
        Self { agent: AgentServer::new(agent), files: FilesServer::new(files) }
    }

    /// Serves the call on `stream`.
    pub(super) async fn serve(self, stream: MuxStream) {
        // Its end is the host's doing, or the session's.
        let _ended = call::serve::serve(stream, self).await;
    }
}

impl tonic::codegen::Service<http::Request<Body>> for Services {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<http::Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let path = request.uri().path();
        if path.strip_prefix('/').is_some_and(|path| path.starts_with(FILES)) {
            self.files.call(request)
        } else {
            self.agent.call(request)
        }
    }
}

#[derive(Debug)]
struct Service {
    agent: Arc<Agent>,
    session: Arc<Session>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type ExecEvents = Answers<v1::ExecEvent>;

#[async_trait::async_trait]
impl AgentService for Service {
    type ExecStream = ExecEvents;
    type AttachStream = ExecEvents;
    type DiffStream = Answers<v1::DiffResponse>;
    type LogStream = Answers<v1::LogLine>;

    async fn handshake(
        &self,
        request: Request<v1::HandshakeRequest>,
    ) -> Result<Response<v1::HandshakeResponse>, Status> {
        Ok(Response::new(match self.agent.machine() {
            Some(machine) => machine.handshake(request.get_ref()),
            None => machine::describe(),
        }))
    }

    async fn exec(&self, request: Request<v1::ExecRequest>) -> Result<Response<ExecEvents>, Status> {
        let mut events = calls::exec(&self.agent, &self.session, request.into_inner());
        // With the first of them there is something to answer with, and not before.
        let first = events.recv().await;
        Ok(Response::new(Box::pin(futures::stream::iter(first).chain(received(events)))))
    }

    async fn attach(&self, request: Request<v1::AttachRequest>) -> Result<Response<ExecEvents>, Status> {
        let events = calls::attach(&self.agent, &self.session, request.into_inner()).await?;
        Ok(Response::new(received(events)))
    }

    async fn list_execs(
        &self,
        _: Request<v1::ListExecsRequest>,
    ) -> Result<Response<v1::ListExecsResponse>, Status> {
        Ok(Response::new(calls::list(&self.agent)))
    }

    async fn signal(
        &self,
        request: Request<v1::SignalRequest>,
    ) -> Result<Response<v1::SignalResponse>, Status> {
        calls::signal(&self.agent, request.into_inner()).map(Response::new)
    }

    async fn resize(
        &self,
        request: Request<v1::ResizeRequest>,
    ) -> Result<Response<v1::ResizeResponse>, Status> {
        calls::resize(&self.agent, request.into_inner()).map(Response::new)
    }

    async fn detach(
        &self,
        request: Request<v1::DetachRequest>,
    ) -> Result<Response<v1::DetachResponse>, Status> {
        calls::detach(&self.agent, request.into_inner()).map(Response::new)
    }

    async fn close_output(
        &self,
        request: Request<v1::CloseOutputRequest>,
    ) -> Result<Response<v1::CloseOutputResponse>, Status> {
        calls::close_output(&self.agent, request.into_inner()).map(Response::new)
    }

    async fn forget(
        &self,
        request: Request<v1::ForgetRequest>,
    ) -> Result<Response<v1::ForgetResponse>, Status> {
        calls::forget(&self.agent, request.into_inner()).map(Response::new)
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        Ok(Response::new(v1::StatusResponse {
            running_execs: u32::try_from(self.agent.execs.running()).unwrap_or(u32::MAX),
            memory_available_bytes: machine::memory_available_bytes(),
            uptime_us: boot::since_boot_us(),
            agent_rss_bytes: machine::own_rss_bytes(),
        }))
    }

    async fn stats(&self, _: Request<v1::StatsRequest>) -> Result<Response<v1::StatsResponse>, Status> {
        Ok(Response::new(stats::stats(self.agent.cgroups())))
    }

    async fn processes(
        &self,
        _: Request<v1::ProcessesRequest>,
    ) -> Result<Response<v1::ProcessesResponse>, Status> {
        let processes = insight::apart(self.agent.place_apart()?, "processes", processes::list).await?;
        Ok(Response::new(v1::ProcessesResponse { processes }))
    }

    async fn diff(&self, _: Request<v1::DiffRequest>) -> Result<Response<Answers<v1::DiffResponse>>, Status> {
        let sides = self.agent.machine().and_then(Machine::sides);
        let (sides, skip) = sides.ok_or_else(|| {
            Status::failed_precondition("this agent has no root filesystem to compare with its image")
        })?;
        let answers = diff::in_the_background(self.agent.place_apart()?, sides, skip)?;
        Ok(Response::new(received(answers)))
    }

    async fn log(&self, _: Request<v1::LogRequest>) -> Result<Response<Answers<v1::LogLine>>, Status> {
        let lines = futures::stream::unfold(LOG.lines(), |mut lines| async {
            let line = lines.next().await;
            Some((Ok(line), lines))
        });
        Ok(Response::new(Box::pin(lines)))
    }

    async fn power_off(
        &self,
        request: Request<v1::PowerOffRequest>,
    ) -> Result<Response<v1::PowerOffResponse>, Status> {
        if self.agent.machine().is_none() {
            return Err(Status::failed_precondition("this agent is not the first process of a machine"));
        }
        let grace = Duration::from_millis(request.into_inner().grace_ms);
        let agent = Arc::clone(&self.agent);
        tokio::spawn(async move {
            tokio::time::sleep(ANSWER_LEAVES_WITHIN).await;
            machine::shut_down(&agent.reaper, grace).await
        });
        Ok(Response::new(v1::PowerOffResponse {}))
    }
}

/// The messages of a channel, until its last sender is gone.
fn received<T: Send + 'static>(mut receiver: mpsc::Receiver<Result<T, Status>>) -> Answers<T> {
    Box::pin(futures::stream::poll_fn(move |cx| receiver.poll_recv(cx)))
}
