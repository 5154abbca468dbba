//! Owns the sessions: one host at a time, its streams, its calls.
//!
//! A session's end takes all of it along: calls are dropped, and with them every exec that somebody owned. The next
//! session finds of the former the machine, the detached execs, and what programs left running behind them.
//!
//! A session that ends while programs are held is another matter: this machine is a copy of one whose session goes on, and
//! nobody hung up on anything. Its execs are left to themselves, as if they had been detached.

mod ports;
mod service;
mod streams;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use cellule_protocol::mux::{MAX_CALLS, MAX_STREAMS, MuxStream};
use cellule_protocol::server::Streams;
use cellule_protocol::stream::{StreamHeader, StreamKind};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tonic::Status;

use self::ports::Ports;
use self::service::Services;
use self::streams::ExecStreams;
pub(crate) use self::streams::{Stdio, Wanted};
use crate::cgroup::Cgroups;
use crate::exec::Registry;
use crate::fault::report;
use crate::files::{Transfers, Workers};
use crate::machine::Machine;
use crate::port::Port;
use crate::reaper::Reaper;
use crate::wire::Wire;

/// How long a stream may take to say what it is for.
const HEADER_WITHIN: Duration = Duration::from_secs(10);
/// Calls that are answered on threads of their own, at a time.
const MAX_APART: usize = 4;
/// Descriptors that the agent itself may hold.
const OPEN_FILES: u64 = 65_536;
/// How long to wait before a port that failed, or gave no session, is tried again.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// What all sessions share.
#[derive(Debug)]
pub struct Agent {
    machine: Option<Machine>,
    pub(crate) reaper: Reaper,
    pub(crate) execs: Registry,
    pub(crate) workers: Arc<Workers>,
    /// Places for what is done apart from the one thread.
    apart: Arc<Semaphore>,
    open_files: Option<libc::rlimit>,
}

/// What one session has.
#[derive(Debug, Default)]
pub(crate) struct Session {
    pub(crate) streams: ExecStreams,
    pub(crate) transfers: Transfers,
    ports: Ports,
}

impl Agent {
    /// An agent that serves `machine`, or, without one, only runs programs where it runs itself.
    pub fn new(machine: Option<Machine>) -> Arc<Self> {
        let open_files = take_open_files();
        Arc::new(Self {
            machine,
            reaper: Reaper::default(),
            execs: Registry::default(),
            workers: Arc::default(),
            apart: Arc::new(Semaphore::new(MAX_APART)),
            open_files,
        })
    }

    /// Serves one host after another for as long as the port has any.
    pub async fn serve(self: Arc<Self>, port: &mut impl Port) {
        let agent = Arc::clone(&self);
        tokio::spawn(async move { agent.reaper.run().await });
        loop {
            match port.next().await {
                Ok(Some(io)) => {
                    let mut wire = Wire::new(io);
                    let mut served = false;
                    while let Ok(true) = wire.accept().await {
                        served = true;
                        match Arc::clone(&self).session(&mut wire).await {
                            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                                report(format_args!("a session ended: {error}"));
                            }
                            // However a host hangs up, the next read of the wire tells.
                            Err(_) | Ok(()) => {}
                        }
                    }
                    // The next host may be there already, as after a restore.
                    if served {
                        continue;
                    }
                }
                Ok(None) => return,
                Err(error) => report(format_args!("the port to the host failed: {error}")),
            }
            // A port that gives nothing again and again must not keep the machine busy.
            tokio::time::sleep(TRY_AGAIN_AFTER).await;
        }
    }

    /// Serves one session until its end.
    async fn session<I>(self: Arc<Self>, wire: &mut Wire<I>) -> io::Result<()>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let session = Arc::new(Session::default());
        let services = Services::new(&self, &session);
        let mut incoming = Streams::new(wire);
        // Dropped at the end, and with it whatever it still does.
        let mut tasks = JoinSet::new();
        let end = loop {
            tokio::select! {
                stream = incoming.next() => match stream {
                    // The host counts its streams; what is more than it may have is not the host's counting.
                    Ok(Some(stream)) if tasks.len() < MAX_STREAMS + MAX_CALLS => {
                        tasks.spawn(serve(Arc::clone(&session), services.clone(), stream));
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                },
                Some(_done) = tasks.join_next() => {}
            }
        };
        if self.machine.as_ref().is_some_and(Machine::is_held) {
            self.execs.detach_all();
        }
        end
    }

    pub(crate) fn machine(&self) -> Option<&Machine> {
        self.machine.as_ref()
    }

    /// Whether programs have a root to run in; outside a guest it is the system's own.
    pub(crate) fn has_root(&self) -> bool {
        self.machine.as_ref().is_none_or(Machine::has_root)
    }

    /// A place for a thread of a call's own, if there is one.
    pub(crate) fn place_apart(&self) -> Result<OwnedSemaphorePermit, Status> {
        let place = Arc::clone(&self.apart).try_acquire_owned();
        place.map_err(|_| Status::resource_exhausted("as many such calls as there may be are under way"))
    }

    /// The limit of open files that programs get; none if it is the agent's own.
    pub(crate) fn open_files(&self) -> Option<libc::rlimit> {
        self.open_files
    }

    pub(crate) fn cgroups(&self) -> Option<&Cgroups> {
        self.machine.as_ref()?.cgroups()
    }
}

/// Finds out what a stream is for, and sees to it.
async fn serve(session: Arc<Session>, services: Services, mut stream: MuxStream) {
    // A stream that says nothing, or something unknown, is reset; the session goes on.
    let Ok(Ok(header)) = tokio::time::timeout(HEADER_WITHIN, StreamHeader::read(&mut stream)).await else {
        return;
    };
    match header.kind {
        StreamKind::Calls => services.serve(stream).await,
        StreamKind::Stdin | StreamKind::Stdout | StreamKind::Stderr => session.streams.offer(header, stream),
        StreamKind::Data => session.transfers.offer(header.id, stream),
        StreamKind::Port => session.ports.connect(header.id, stream).await,
        // Not for an agent: dropped, that is reset.
        StreamKind::Supervisor => {}
    }
}

/// Lets this process, which holds several descriptors for each exec, have as many as it may. Returns the limit that it was
/// given, which is the one for programs.
fn take_open_files() -> Option<libc::rlimit> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let given = getrlimit(Resource::Nofile);
    let (current, maximum) = (given.current?, given.maximum);
    let most = maximum.map_or(OPEN_FILES, |maximum| maximum.min(OPEN_FILES)).max(current);
    setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum }).ok()?;
    Some(libc::rlimit { rlim_cur: current, rlim_max: maximum.unwrap_or(libc::RLIM_INFINITY) })
}
