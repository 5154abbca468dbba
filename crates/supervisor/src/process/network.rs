//! What is changed of the network while the sandbox runs, and kept for when it is started again.

use std::net::SocketAddr;
use std::sync::Arc;

use cellule_network::policy::{Policy, Protocol};
use cellule_network::{Forward, ForwardError, Network, NetworkError, Visit};
use tokio::sync::oneshot;

use super::{Done, Supervisor};
use crate::connection::{Ask, Reply};
use crate::spec::SandboxSpec;
use crate::warm::chain;

/// What of the network is to be another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// What may be reached.
    Policy(Policy),
    /// One more way in.
    AddPort(Forward),
    /// One less.
    RemovePort(SocketAddr, Protocol),
}

/// What came of a change.
pub(super) struct Changed {
    reply: oneshot::Sender<Reply>,
    result: Result<Applied, String>,
}

/// What is another now.
enum Applied {
    Policy(Policy),
    /// As it was asked for, and as it is.
    Added(Forward, Forward),
    Removed(SocketAddr, Protocol),
}

impl Supervisor {
    pub(super) fn change_network(&mut self, change: Change, reply: oneshot::Sender<Reply>) {
        let Some(network) = self.network.borrow().clone() else {
            return drop(reply.send(Reply::Failed("the sandbox is still starting".to_owned())));
        };
        if std::mem::replace(&mut self.changing.network, true) {
            return drop(reply.send(Reply::Failed("another change is under way".to_owned())));
        }
        self.jobs.push(Box::pin(async move {
            let result = apply(&network, change).await.map_err(|error| chain(&*error));
            Done::NetworkChanged(Changed { reply, result })
        }));
    }

    /// Whoever comes in over the network uses the sandbox.
    pub(super) fn watch_visits(&mut self, network: &Arc<Network>) {
        let (asks, activity, network) = (self.asks.clone(), self.activity.clone(), Arc::clone(network));
        let visits = Box::new(move || -> Visit {
            if let Some(asks) = asks.upgrade() {
                // One that stands still for want of use goes on. If so much is asked already, it is not idle.
                _ = asks.try_send(Ask::Used);
            }
            Box::new(activity.begin())
        });
        self.jobs.push(Box::pin(async move {
            // A network that is gone has no visitors.
            _ = network.tell_visits(visits).await;
            Done::Nothing
        }));
    }

    pub(super) fn network_changed(&mut self, Changed { reply, result }: Changed) {
        self.changing.network = false;
        let answer = match result {
            Ok(applied) => self.keep(applied),
            Err(why) => Reply::Failed(why),
        };
        self.publish(vec![(reply, answer)]);
    }

    /// Writes down what is another now.
    fn keep(&mut self, applied: Applied) -> Reply {
        let mut spec = SandboxSpec::clone(&self.spec);
        let ports = &mut spec.network.ports;
        let answer = match applied {
            Applied::Policy(policy) => {
                spec.network.policy = policy;
                Reply::Done
            }
            Applied::Added(asked, added) => {
                ports.push(asked);
                self.record.ports.push(added);
                Reply::Port(added)
            }
            Applied::Removed(host, protocol) => {
                let at = |forward: &Forward| forward.host == host && forward.protocol == protocol;
                // One that was chosen stands in the specification as the wish for any.
                let guest = self.record.ports.iter().find(|forward| at(forward)).map(|forward| forward.guest);
                self.record.ports.retain(|forward| !at(forward));
                let chosen = |forward: &Forward| {
                    forward.host.port() == 0
                        && forward.host.ip() == host.ip()
                        && forward.protocol == protocol
                        && Some(forward.guest) == guest
                };
                if let Some(found) = ports.iter().position(|forward| at(forward) || chosen(forward)) {
                    ports.remove(found);
                }
                Reply::Done
            }
        };
        if let Err(error) = self.dir.update_spec(&spec) {
            let why = chain(&error);
            return Reply::Failed(format!(
                "it is so now, but will not be when the sandbox is started again: {why}"
            ));
        }
        self.spec = Arc::new(spec);
        answer
    }
}

async fn apply(
    network: &Network,
    change: Change,
) -> Result<Applied, Box<dyn std::error::Error + Send + Sync>> {
    Ok(match change {
        Change::Policy(policy) => {
            network.set_policy(policy.clone()).await.map_err(Box::<NetworkError>::new)?;
            Applied::Policy(policy)
        }
        Change::AddPort(forward) => {
            let added = network.publish(forward).await.map_err(Box::<ForwardError>::new)?;
            Applied::Added(forward, added)
        }
        Change::RemovePort(host, protocol) => {
            network.unpublish(host, protocol).await.map_err(Box::<ForwardError>::new)?;
            Applied::Removed(host, protocol)
        }
    })
}
