//! Owns the calls: gRPC over one stream of the session.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use cellule_protocol::mux::MuxStream;
use cellule_protocol::v1;
use cellule_protocol::v1::agent_server::{Agent as AgentService, AgentServer};
use cellule_protocol::v1::files_server::{FilesServer, SERVICE_NAME as FILES};
use futures::Stream;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::mpsc;
use tonic::codegen::Service as _;
use tonic::{Request, Response, Status};

use super::{Agent, Session};
use crate::exec::calls;
use crate::insight::{self, diff, processes, stats};
use crate::log::LOG;
use crate::machine::Machine;
use crate::{boot, files, machine};

/// The largest request, above what Linux takes as arguments and environment.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// All execs that run, and as many short calls as may well come at once.
const MAX_CALLS: u32 = 640;
/// What a call that is not read ahead of may hold.
const WINDOW: u32 = 64 * 1024;
/// How long the answer to a power-off gets to leave.
const ANSWER_LEAVES_WITHIN: Duration = Duration::from_millis(20);

/// Serves the calls on `stream` until it ends.
pub(super) async fn serve(agent: Arc<Agent>, session: Arc<Session>, stream: MuxStream) {
    let files = FilesServer::new(files::Service::new(Arc::clone(&agent), Arc::clone(&session)));
    let service = AgentServer::new(Service { agent, session }).max_decoding_message_size(MAX_MESSAGE);
    let service = service_fn(move |request: hyper::Request<_>| {
        let path = request.uri().path();
        if path.strip_prefix('/').is_some_and(|path| path.starts_with(FILES)) {
            files.clone().call(request)
        } else {
            service.clone().call(request)
        }
    });
    let connection = Builder::new(TokioExecutor::new())
        .max_concurrent_streams(MAX_CALLS)
        .initial_stream_window_size(WINDOW)
        .serve_connection(TokioIo::new(stream), service);
    // Its end is the host's doing, or the session's.
    let _ended = connection.await;
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
        let events = calls::exec(&self.agent, &self.session, request.into_inner());
        Ok(Response::new(received(events)))
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
