//! Owns the calls: gRPC over one stream of the session.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use cellule_protocol::mux::MuxStream;
use cellule_protocol::v1;
use cellule_protocol::v1::agent_server::{Agent as AgentService, AgentServer};
use futures::stream;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::Signal;
use tokio::sync::mpsc;
use tonic::codegen::Service as _;
use tonic::{Request, Response, Status};

use super::{Agent, Session};
use crate::{boot, exec, machine};

/// Events of an exec: it started, it exited.
const EVENTS: usize = 2;
/// The largest request, above what Linux takes as arguments and environment.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// Execs and as many short calls again.
const MAX_CALLS: u32 = 128;
/// What a call that is not read ahead of may hold.
const WINDOW: u32 = 64 * 1024;
/// How long the answer to a power-off gets to leave.
const ANSWER_LEAVES_WITHIN: Duration = Duration::from_millis(20);

/// Serves the calls on `stream` until it ends.
pub(super) async fn serve(agent: Arc<Agent>, session: Arc<Session>, stream: MuxStream) {
    let service = AgentServer::new(Service { agent, session }).max_decoding_message_size(MAX_MESSAGE);
    let service = service_fn(move |request| service.clone().call(request));
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

type ExecEvents = Pin<Box<dyn futures::Stream<Item = Result<v1::ExecEvent, Status>> + Send>>;

#[async_trait::async_trait]
impl AgentService for Service {
    type ExecStream = ExecEvents;

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
        let (sender, mut receiver) = mpsc::channel(EVENTS);
        let (agent, session) = (Arc::clone(&self.agent), Arc::clone(&self.session));
        tokio::spawn(exec::run(agent, session, request.into_inner(), sender));
        Ok(Response::new(Box::pin(stream::poll_fn(move |cx| receiver.poll_recv(cx)))))
    }

    async fn signal(
        &self,
        request: Request<v1::SignalRequest>,
    ) -> Result<Response<v1::SignalResponse>, Status> {
        let v1::SignalRequest { exec_id, signal, whole_exec } = request.into_inner();
        let signal = Signal::from_named_raw(signal)
            .ok_or_else(|| Status::invalid_argument(format!("no signal has the number {signal}")))?;
        let Some(running) = self.session.find(exec_id) else {
            return Err(Status::not_found("no such exec runs"));
        };
        let reaper = &self.agent.reaper;
        let sent =
            if whole_exec { running.signal_all(reaper, signal) } else { running.signal(reaper, signal) };
        match sent {
            Ok(true) => Ok(Response::new(v1::SignalResponse {})),
            Ok(false) => Err(Status::not_found("no such exec runs")),
            Err(error) => Err(Status::failed_precondition(format!("the signal can't be sent: {error}"))),
        }
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        Ok(Response::new(v1::StatusResponse {
            running_execs: u32::try_from(self.agent.reaper.watched()).unwrap_or(u32::MAX),
            memory_available_bytes: machine::memory_available_bytes(),
            uptime_us: boot::since_boot_us(),
            agent_rss_bytes: machine::own_rss_bytes(),
        }))
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
