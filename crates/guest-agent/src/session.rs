//! Owns the sessions: one host at a time, its streams, its calls, its execs.
//!
//! A session's end takes all of it along: calls are dropped, and with them every exec that was still running. The next
//! session finds nothing of the former but the machine and what programs left running behind them.

mod service;
mod streams;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cellule_protocol::mux::{MAX_STREAMS, MuxStream};
use cellule_protocol::server::Streams;
use cellule_protocol::stream::{StreamHeader, StreamKind};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

use self::streams::ExecStreams;
use crate::cgroup::Cgroups;
use crate::exec::Running;
use crate::fault::report;
use crate::machine::Machine;
use crate::port::Port;
use crate::reaper::Reaper;
use crate::wire::Wire;

/// How long a stream may take to say what it is for.
const HEADER_WITHIN: Duration = Duration::from_secs(10);
/// How long to wait before a port that failed, or gave no session, is tried again.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// What all sessions share.
#[derive(Debug)]
pub struct Agent {
    machine: Option<Machine>,
    pub(crate) reaper: Reaper,
}

/// What one session has.
#[derive(Debug, Default)]
pub(crate) struct Session {
    pub(crate) streams: ExecStreams,
    running: Mutex<HashMap<u64, Arc<Running>>>,
}

impl Agent {
    /// An agent that serves `machine`, or, without one, only runs programs where it runs itself.
    pub fn new(machine: Option<Machine>) -> Arc<Self> {
        Arc::new(Self { machine, reaper: Reaper::default() })
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
        let mut incoming = Streams::new(wire);
        // Dropped at the end, and with it whatever it still does.
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                stream = incoming.next() => {
                    let Some(stream) = stream? else { return Ok(()) };
                    // The host counts its streams; what is more than it may have is not the host's counting.
                    if tasks.len() < MAX_STREAMS {
                        tasks.spawn(Arc::clone(&self).stream(Arc::clone(&session), stream));
                    }
                }
                Some(_done) = tasks.join_next() => {}
            }
        }
    }

    async fn stream(self: Arc<Self>, session: Arc<Session>, mut stream: MuxStream) {
        // A stream that says nothing, or something unknown, is reset; the session goes on.
        let Ok(Ok(header)) = tokio::time::timeout(HEADER_WITHIN, StreamHeader::read(&mut stream)).await
        else {
            return;
        };
        match header.kind {
            StreamKind::Calls => service::serve(self, session, stream).await,
            StreamKind::Stdin | StreamKind::Stdout | StreamKind::Stderr => {
                session.streams.offer(header, stream);
            }
            // Not for an agent: dropped, that is reset.
            StreamKind::Supervisor => {}
        }
    }

    pub(crate) fn machine(&self) -> Option<&Machine> {
        self.machine.as_ref()
    }

    /// Whether programs have a root to run in; outside a guest it is the system's own.
    pub(crate) fn has_root(&self) -> bool {
        self.machine.as_ref().is_none_or(Machine::has_root)
    }

    pub(crate) fn cgroups(&self) -> Option<&Cgroups> {
        self.machine.as_ref()?.cgroups()
    }
}

impl Session {
    pub(crate) fn enter(&self, id: u64, running: &Arc<Running>) {
        self.lock().insert(id, Arc::clone(running));
    }

    pub(crate) fn leave(&self, id: u64) {
        self.lock().remove(&id);
    }

    pub(crate) fn runs(&self, id: u64) -> bool {
        self.lock().contains_key(&id)
    }

    fn find(&self, id: u64) -> Option<Arc<Running>> {
        self.lock().get(&id).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Running>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
