//! Owns what the calls on execs answer.

use std::sync::Arc;

use cellule_protocol::v1;
use rustix::process::Signal;
use tokio::sync::mpsc;
use tonic::Status;

use super::registry::NotForgotten;
use super::{Events, Exec, attach};
use crate::session::{Agent, Session, Wanted};

/// Events of an exec that nobody has taken yet: it started, it exited; or what a slow reader missed.
const EVENTS: usize = 4;

/// Events on their way to a call.
pub(crate) type Incoming = mpsc::Receiver<Result<v1::ExecEvent, Status>>;

/// Runs a program.
pub(crate) fn exec(agent: &Arc<Agent>, session: &Arc<Session>, request: v1::ExecRequest) -> Incoming {
    let (sender, receiver) = mpsc::channel(EVENTS);
    tokio::spawn(super::run(Arc::clone(agent), Arc::clone(session), request, sender));
    receiver
}

/// Joins an exec.
pub(crate) async fn attach(
    agent: &Agent,
    session: &Session,
    request: v1::AttachRequest,
) -> Result<Incoming, Status> {
    let exec = find(agent, request.exec_id)?;
    let wanted = Wanted { stdin: request.stdin, stdout: request.stdout, stderr: request.stderr };
    let streams = session.streams.take(request.attachment_id, wanted).await;
    let streams = streams.map_err(|failure| Status::failed_precondition(failure.into_message().message))?;
    let (sender, receiver): (Events, _) = mpsc::channel(EVENTS);
    tokio::spawn(attach::attach(exec, request, streams, sender));
    Ok(receiver)
}

/// Sends a signal.
pub(crate) fn signal(agent: &Agent, request: v1::SignalRequest) -> Result<v1::SignalResponse, Status> {
    let v1::SignalRequest { exec_id, signal, whole_exec } = request;
    let signal = Signal::from_named_raw(signal)
        .ok_or_else(|| Status::invalid_argument(format!("no signal has the number {signal}")))?;
    let exec = find(agent, exec_id)?;
    let reaper = &agent.reaper;
    let sent = if whole_exec { exec.signal_all(reaper, signal) } else { exec.signal(reaper, signal) };
    match sent {
        Ok(true) => Ok(v1::SignalResponse {}),
        Ok(false) => Err(Status::not_found("no such exec runs")),
        Err(error) => Err(Status::failed_precondition(format!("the signal can't be sent: {error}"))),
    }
}

/// Tells a terminal its size.
pub(crate) fn resize(agent: &Agent, request: v1::ResizeRequest) -> Result<v1::ResizeResponse, Status> {
    let exec = find(agent, request.exec_id)?;
    if !exec.has_terminal() {
        return Err(Status::failed_precondition("this exec has no terminal"));
    }
    match exec.resize(request.size.unwrap_or_default()) {
        Some(Ok(())) => Ok(v1::ResizeResponse {}),
        Some(Err(error)) => Err(Status::failed_precondition(format!("the size can't be set: {error}"))),
        None => Err(Status::not_found("no such exec runs")),
    }
}

/// Leaves an exec to itself.
pub(crate) fn detach(agent: &Agent, request: v1::DetachRequest) -> Result<v1::DetachResponse, Status> {
    let exec = find(agent, request.exec_id)?;
    exec.detach();
    Ok(v1::DetachResponse {})
}

/// Closes an output as soon as nobody reads it.
pub(crate) fn close_output(
    agent: &Agent,
    request: v1::CloseOutputRequest,
) -> Result<v1::CloseOutputResponse, Status> {
    find(agent, request.exec_id)?.close_output(request.stderr);
    Ok(v1::CloseOutputResponse {})
}

/// Drops what is kept of an exec.
pub(crate) fn forget(agent: &Agent, request: v1::ForgetRequest) -> Result<v1::ForgetResponse, Status> {
    match agent.execs.forget(request.exec_id) {
        Ok(()) => Ok(v1::ForgetResponse {}),
        Err(NotForgotten::Running) => Err(Status::failed_precondition("this exec runs")),
        Err(NotForgotten::Unknown) => Err(unknown()),
    }
}

/// All execs that are known.
pub(crate) fn list(agent: &Agent) -> v1::ListExecsResponse {
    v1::ListExecsResponse { execs: agent.execs.all().iter().map(|exec| exec.info()).collect() }
}

fn find(agent: &Agent, id: u64) -> Result<Arc<Exec>, Status> {
    agent.execs.find(id).ok_or_else(unknown)
}

fn unknown() -> Status {
    Status::not_found("there is no such exec")
}
