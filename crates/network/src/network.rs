//! Owns the gateway's thread, and what the rest of the program asks of it.

use std::collections::HashMap;
use std::fmt;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::thread;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinSet, LocalSet};

use crate::check::{self, Answer, Whom};
use crate::dns::{Dns, Servers};
use crate::echo::Echoes;
use crate::forward::{self, Forward, ForwardError, ForwardStatus};
use crate::gateway::Gateway;
use crate::limits::Limits;
use crate::link::{self, Link};
use crate::neighbours::{self, Joined, Neighbourhood, Neighbours, Unjoined};
use crate::outbox::Outbox;
use crate::policy::{Policy, Protocol};
use crate::record::Sink;
use crate::reply;
use crate::secrets::Secrets;
use crate::tcp::{Connections, OpenConnection};
use crate::udp::Exchanges;
use crate::visit::Visits;

/// How a network begins.
pub struct Config {
    /// What may be reached.
    pub policy: Policy,
    /// Who is asked for names.
    pub servers: Servers,
    /// Whether names in the host's file of hosts are answered from there.
    pub hosts_file: bool,
    /// Ports of the address that stands for the host, and which port of the host's loopback each is.
    pub exposed: HashMap<u16, u16>,
    /// What the guest may take.
    pub limits: Limits,
    /// The address that the guest's card has.
    pub mac: [u8; 6],
    /// Connections that the guest believes to have, since it is a copy of one that has them: they are reset.
    pub lost: Vec<OpenConnection>,
    /// What is put in for some hosts, and is nowhere in the guest.
    pub secrets: Option<Secrets>,
    /// The named networks that the sandbox is on.
    pub neighbourhoods: Vec<Neighbourhood>,
    /// Where it is told what became of connections. Called on the gateway's thread, which waits for it.
    pub sink: Sink,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("policy", &self.policy)
            .field("exposed", &self.exposed)
            .finish_non_exhaustive()
    }
}

/// The network could not be made, or has ended.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// It could not be made.
    #[error("cannot start the sandbox's network")]
    Start(#[source] io::Error),
    /// The sandbox could not be put on a named network.
    #[error("cannot join the network {network}")]
    Join {
        /// Its name.
        network: String,
        /// The cause.
        source: io::Error,
    },
    /// It ended, with its guest.
    #[error("the sandbox's network has ended")]
    Gone,
}

/// What a network has at present.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Connections, those that are being made included.
    pub connections: usize,
    /// Frames from the guest that made no sense, or came from another's address.
    pub dropped_from_guest: u64,
    /// Frames for the guest that it had no room for.
    pub dropped_to_guest: u64,
}

type Job = Box<dyn FnOnce(&Rc<Gateway>) + Send>;

/// A sandbox's network. Dropping it ends it.
#[derive(Debug)]
pub struct Network {
    jobs: mpsc::UnboundedSender<Job>,
}

impl Network {
    /// Starts a network for the guest whose Ethernet frames `link` carries: a connected socket with messages (`SOCK_SEQPACKET`), one frame
    /// with each.
    ///
    /// # Errors
    /// [`NetworkError::Start`], [`NetworkError::Join`].
    pub fn start(link: OwnedFd, mut config: Config) -> Result<Self, NetworkError> {
        let joined = neighbours::join(std::mem::take(&mut config.neighbourhoods))
            .map_err(|Unjoined { network, error }| NetworkError::Join { network, source: error })?;
        let (jobs, asked) = mpsc::unbounded_channel();
        let (started, start) = std::sync::mpsc::sync_channel(1);
        let run = move || {
            let runtime =
                match tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build() {
                    Ok(runtime) => runtime,
                    Err(error) => return drop(started.send(Err(error))),
                };
            _ = started.send(Ok(()));
            LocalSet::new().block_on(&runtime, run(link, config, joined, asked));
        };
        thread::Builder::new().name("gateway".to_owned()).spawn(run).map_err(NetworkError::Start)?;
        match start.recv() {
            Ok(Ok(())) => Ok(Self { jobs }),
            Ok(Err(error)) => Err(NetworkError::Start(error)),
            Err(_) => Err(NetworkError::Gone),
        }
    }

    /// Has `work` done by the gateway.
    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Rc<Gateway>, oneshot::Sender<T>) + Send + 'static,
    ) -> Result<T, NetworkError> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Box::new(move |gateway| work(gateway, reply))).map_err(|_| NetworkError::Gone)?;
        answer.await.map_err(|_| NetworkError::Gone)
    }

    /// Changes what may be reached. Connections that are not allowed any more are reset.
    ///
    /// # Errors
    /// [`NetworkError::Gone`].
    pub async fn set_policy(&self, policy: Policy) -> Result<(), NetworkError> {
        self.ask(|gateway, reply| {
            *gateway.policy.borrow_mut() = policy;
            Connections::review(gateway);
            Exchanges::review(gateway);
            Echoes::review(gateway);
            _ = reply.send(());
        })
        .await
    }

    /// What would become of a connection, from the code that decides on connections: one answer for each address.
    ///
    /// # Errors
    /// [`NetworkError::Gone`].
    pub async fn check(
        &self,
        whom: Whom,
        port: u16,
        protocol: Protocol,
    ) -> Result<Vec<Answer>, NetworkError> {
        self.ask(move |gateway, reply| {
            let answers = check::check(Rc::clone(gateway), whom, port, protocol);
            tokio::task::spawn_local(async move { reply.send(answers.await) });
        })
        .await
    }

    /// Tells `visits` from now on of each connection that comes in over a forward.
    ///
    /// # Errors
    /// [`NetworkError::Gone`].
    pub async fn tell_visits(&self, visits: Visits) -> Result<(), NetworkError> {
        self.ask(move |gateway, reply| {
            *gateway.visits.borrow_mut() = Some(visits);
            _ = reply.send(());
        })
        .await
    }

    /// Listens for a forward; the result has the port that was chosen.
    ///
    /// # Errors
    /// All of [`ForwardError`].
    pub async fn publish(&self, forward: Forward) -> Result<Forward, ForwardError> {
        let published = self.ask(move |gateway, reply| _ = reply.send(forward::add(gateway, forward)));
        published.await.map_err(|_| ForwardError::Gone)?
    }

    /// Ends a forward; its open connections go on.
    ///
    /// # Errors
    /// [`ForwardError::Unknown`], [`ForwardError::Gone`].
    pub async fn unpublish(&self, host: SocketAddr, protocol: Protocol) -> Result<(), ForwardError> {
        let removed =
            self.ask(move |gateway, reply| _ = reply.send(forward::remove(gateway, host, protocol)));
        removed.await.map_err(|_| ForwardError::Gone)?
    }

    /// The forwards that there are, and whether the guest's ports answer now.
    ///
    /// # Errors
    /// [`NetworkError::Gone`].
    pub async fn forwards(&self) -> Result<Vec<ForwardStatus>, NetworkError> {
        self.ask(|gateway, reply| {
            let gateway = Rc::clone(gateway);
            tokio::task::spawn_local(async move { reply.send(forward::statuses(gateway).await) });
        })
        .await
    }

    /// The connections that are open.
    ///
    /// # Errors
    /// [`NetworkError::Gone`].
    pub async fn connections(&self) -> Result<Vec<OpenConnection>, NetworkError> {
        self.ask(|gateway, reply| _ = reply.send(gateway.connections.all_open())).await
    }

    /// What the network has at present.
    ///
    /// # Errors
    /// [`NetworkError::Gone`].
    pub async fn figures(&self) -> Result<Figures, NetworkError> {
        self.ask(|gateway, reply| _ = reply.send(gateway.figures())).await
    }
}

async fn run(link: OwnedFd, config: Config, joined: Vec<Joined>, mut asked: mpsc::UnboundedReceiver<Job>) {
    let Ok(link) = Link::new(link) else { return };
    let Config { policy, servers, hosts_file, exposed, limits, mac, lost, secrets, sink, .. } = config;
    let mut seed = [0; 8];
    if rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty()).is_err() {
        return;
    }
    let dns = Dns::new(servers);
    let dns = if hosts_file { dns.with_hosts_file() } else { dns };
    let outbox = Outbox::new(mac);
    let mut gateway = Gateway::new(outbox, policy, dns, limits, sink, u64::from_ne_bytes(seed));
    gateway.secrets = secrets.map(Rc::new);
    let (neighbours, doors) = Neighbours::new(joined);
    gateway.neighbours = neighbours;
    let gateway = Rc::new(gateway);
    *gateway.exposed.borrow_mut() = exposed;
    for OpenConnection { guest_port, remote } in lost {
        reply::ask_about(&gateway.outbox, remote, guest_port, gateway.seed());
    }
    let serve = async {
        while let Some(job) = asked.recv().await {
            job(&gateway);
        }
    };
    let refresh = async {
        match &gateway.secrets {
            Some(secrets) => secrets.keep().await,
            None => pending().await,
        }
    };
    let ended = tokio::select! {
        ended = carry(&gateway, link) => ended,
        () = serve => Ok(()),
        () = refresh => Ok(()),
        () = neighbours::serve(&gateway, doors) => Ok(()),
    };
    if let Err(error) = ended {
        tracing::warn!(%error, "the link to the guest ended");
    }
}

/// Carries frames both ways, until the guest's side is gone. In tasks like those of connections, which wake each other without asking
/// the kernel.
pub(crate) async fn carry(gateway: &Rc<Gateway>, link: Link) -> io::Result<()> {
    let (link, mut ends) = (Rc::new(link), JoinSet::new());
    let (reader, taker) = (Rc::clone(&link), Rc::clone(gateway));
    ends.spawn_local(async move { link::read_from(&reader, |frame| taker.take(frame)).await });
    let writer = Rc::clone(gateway);
    ends.spawn_local(async move { writer.outbox.write_to(&link).await });
    match ends.join_next().await {
        Some(ended) => ended.unwrap_or_else(|panic| Err(io::Error::other(panic))),
        None => Ok(()),
    }
}
