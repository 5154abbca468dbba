//! The calls that a client makes to the supervisor.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use cellule_engine::MemorySize;
use cellule_network::{Forward, Network, NetworkError};
use cellule_protocol::supervisor::v1;
use cellule_protocol::supervisor::v1::supervisor_server::Supervisor;
use futures::stream::{self, Stream};
use tokio::sync::oneshot;
use tonic::{Request, Response};

use crate::connection::{Ask, Reply, Role, View};
use crate::life::Request as Asked;
use crate::network::wire;
use crate::process::NetworkChange;
use crate::save::SaveRequest;
use crate::secrets::SecretValues;

/// Serves the calls of one client.
#[derive(Debug)]
pub(crate) struct Service {
    view: View,
    role: Role,
}

type Statuses = Pin<Box<dyn Stream<Item = Result<v1::Status, tonic::Status>> + Send>>;

impl Service {
    pub(crate) fn new(view: View, role: Role) -> Self {
        Self { view, role }
    }

    async fn ask(&self, request: Asked, remove: bool) -> Result<Reply, tonic::Status> {
        self.send(|reply| Ask::Request { request, remove, reply }).await
    }

    async fn send(&self, ask: impl FnOnce(oneshot::Sender<Reply>) -> Ask) -> Result<Reply, tonic::Status> {
        let (reply, answer) = oneshot::channel();
        let gone = || tonic::Status::unavailable("the supervisor is ending");
        self.view.asks.send(ask(reply)).await.map_err(|_| gone())?;
        match answer.await.map_err(|_| gone())? {
            Reply::Refused(refusal) => Err(tonic::Status::failed_precondition(refusal.to_string())),
            Reply::Failed(why) => Err(tonic::Status::aborted(why)),
            other => Ok(other),
        }
    }
}

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

    async fn start_main(
        &self,
        _request: Request<v1::StartMainRequest>,
    ) -> Result<Response<v1::StartMainResponse>, tonic::Status> {
        let failure = match self.ask(Asked::StartMain, false).await? {
            Reply::MainRefused(failure) => failure,
            _ => Vec::new(),
        };
        Ok(Response::new(v1::StartMainResponse { failure }))
    }

    async fn release(
        &self,
        _request: Request<v1::ReleaseRequest>,
    ) -> Result<Response<v1::ReleaseResponse>, tonic::Status> {
        if self.role == Role::Owner {
            self.ask(Asked::Release, false).await?;
        }
        Ok(Response::new(v1::ReleaseResponse {}))
    }

    async fn kill(
        &self,
        request: Request<v1::KillRequest>,
    ) -> Result<Response<v1::KillResponse>, tonic::Status> {
        let signal = valid_signal(request.into_inner().signal)
            .ok_or_else(|| tonic::Status::invalid_argument("there is no such signal"))?;
        self.ask(Asked::Kill(signal), false).await?;
        Ok(Response::new(v1::KillResponse {}))
    }

    async fn stop(
        &self,
        request: Request<v1::StopRequest>,
    ) -> Result<Response<v1::StopResponse>, tonic::Status> {
        let v1::StopRequest { grace_ms, signal, remove } = request.into_inner();
        let signal = match signal {
            0 => None,
            signal => Some(
                valid_signal(signal)
                    .ok_or_else(|| tonic::Status::invalid_argument("there is no such signal"))?,
            ),
        };
        let grace = Duration::from_millis(grace_ms).min(LONGEST);
        self.ask(Asked::Stop { grace, signal }, remove).await?;
        Ok(Response::new(v1::StopResponse {}))
    }

    async fn pause(
        &self,
        _request: Request<v1::PauseRequest>,
    ) -> Result<Response<v1::PauseResponse>, tonic::Status> {
        self.ask(Asked::Pause, false).await?;
        Ok(Response::new(v1::PauseResponse {}))
    }

    async fn resume(
        &self,
        _request: Request<v1::ResumeRequest>,
    ) -> Result<Response<v1::ResumeResponse>, tonic::Status> {
        self.ask(Asked::Resume, false).await?;
        Ok(Response::new(v1::ResumeResponse {}))
    }

    async fn save(
        &self,
        request: Request<v1::SaveRequest>,
    ) -> Result<Response<v1::SaveResponse>, tonic::Status> {
        let request = SaveRequest::try_from(request.into_inner()).map_err(tonic::Status::invalid_argument)?;
        match self.send(|reply| Ask::Save { request, reply }).await? {
            Reply::Saved(outcome) => Ok(Response::new(outcome.into())),
            _ => Err(tonic::Status::internal("an answer to something else")),
        }
    }

    async fn set_memory(
        &self,
        request: Request<v1::SetMemoryRequest>,
    ) -> Result<Response<v1::SetMemoryResponse>, tonic::Status> {
        let mib = u32::try_from(request.into_inner().mib).unwrap_or(u32::MAX);
        let target =
            MemorySize::from_mib(mib).map_err(|error| tonic::Status::invalid_argument(error.to_string()))?;
        match self.send(|reply| Ask::SetMemory { target, reply }).await? {
            Reply::Memory(bytes) => Ok(Response::new(v1::SetMemoryResponse { bytes })),
            _ => Err(tonic::Status::internal("an answer to something else")),
        }
    }

    async fn set_policy(
        &self,
        request: Request<v1::SetPolicyRequest>,
    ) -> Result<Response<v1::SetPolicyResponse>, tonic::Status> {
        let policy =
            wire::policy_from_wire(&request.into_inner()).map_err(tonic::Status::invalid_argument)?;
        self.change_network(NetworkChange::Policy(policy)).await?;
        Ok(Response::new(v1::SetPolicyResponse {}))
    }

    async fn check_network(
        &self,
        request: Request<v1::CheckNetworkRequest>,
    ) -> Result<Response<v1::CheckNetworkResponse>, tonic::Status> {
        let (whom, port, protocol) =
            wire::question_from_wire(&request.into_inner()).map_err(tonic::Status::invalid_argument)?;
        let answers = self.network()?.check(whom, port, protocol).await.map_err(|error| gone(&error))?;
        Ok(Response::new(wire::answers_to_wire(answers)))
    }

    async fn ports(
        &self,
        _request: Request<v1::PortsRequest>,
    ) -> Result<Response<v1::PortsResponse>, tonic::Status> {
        let ports = self.network()?.forwards().await.map_err(|error| gone(&error))?;
        Ok(Response::new(wire::ports_to_wire(ports)))
    }

    async fn add_port(
        &self,
        request: Request<v1::AddPortRequest>,
    ) -> Result<Response<v1::AddPortResponse>, tonic::Status> {
        let forward = forward(request.into_inner().port)?;
        match self.change_network(NetworkChange::AddPort(forward)).await? {
            Reply::Port(added) => {
                Ok(Response::new(v1::AddPortResponse { port: Some(wire::port_to_wire(added)) }))
            }
            _ => Err(tonic::Status::internal("an answer to something else")),
        }
    }

    async fn give_secrets(
        &self,
        request: Request<v1::GiveSecretsRequest>,
    ) -> Result<Response<v1::GiveSecretsResponse>, tonic::Status> {
        if self.role != Role::Owner {
            return Err(tonic::Status::failed_precondition(
                "only who started the sandbox can say its secrets",
            ));
        }
        let values = SecretValues::try_from(request.into_inner().values.unwrap_or_default())
            .map_err(|error| tonic::Status::invalid_argument(error.to_string()))?;
        if self.view.vault.give(values) {
            Ok(Response::new(v1::GiveSecretsResponse {}))
        } else {
            Err(tonic::Status::failed_precondition("the sandbox has its secrets already"))
        }
    }

    async fn take_secrets(
        &self,
        _request: Request<v1::TakeSecretsRequest>,
    ) -> Result<Response<v1::TakeSecretsResponse>, tonic::Status> {
        // One that has none is as good as one that was told them.
        let values = self.view.vault.for_copies().unwrap_or_default();
        Ok(Response::new(v1::TakeSecretsResponse { values: Some(values.into()) }))
    }

    async fn remove_port(
        &self,
        request: Request<v1::RemovePortRequest>,
    ) -> Result<Response<v1::RemovePortResponse>, tonic::Status> {
        let forward = forward(request.into_inner().port)?;
        self.change_network(NetworkChange::RemovePort(forward.host, forward.protocol)).await?;
        Ok(Response::new(v1::RemovePortResponse {}))
    }
}

fn forward(port: Option<v1::Port>) -> Result<Forward, tonic::Status> {
    let port = port.ok_or_else(|| tonic::Status::invalid_argument("no port is named"))?;
    wire::port_from_wire(&port).map_err(tonic::Status::invalid_argument)
}

fn gone(error: &NetworkError) -> tonic::Status {
    tonic::Status::aborted(error.to_string())
}

impl Service {
    fn network(&self) -> Result<Arc<Network>, tonic::Status> {
        let network = self.view.network.borrow().clone();
        network.ok_or_else(|| tonic::Status::failed_precondition("the sandbox does not run"))
    }

    async fn change_network(&self, change: NetworkChange) -> Result<Reply, tonic::Status> {
        self.send(|reply| Ask::ChangeNetwork { change, reply }).await
    }
}

/// The longest time that a program is given to end: what is longer is as good as for ever, and still a time.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

fn valid_signal(signal: i32) -> Option<i32> {
    (1..=64).contains(&signal).then_some(signal)
}
