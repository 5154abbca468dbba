//! Owns one exec: from the request to run a program until its exit was told and its output drained.
//!
//! ```text
//!   request ──▶ plan ──▶ streams joined ──▶ process made ──┬──▶ started ──┬──▶ exited ──▶ drained
//!      └──────────┴────────────┴───────────────────────────┴─▶ failed     │      ▲
//!                                                                  killed ┴──────┘
//!                                        its time limit, or its owner gone: call cancelled, session ended
//! ```
//! What holds at each exit:
//! - It is told when the main process is reaped, whoever else still holds its pipes, and whether or not anyone
//!   reads its output or writes its input.
//! - What lay in the output pipes at that time is still delivered; then the streams end. What survivors write later is
//!   not, and finds a closed pipe.
//! - Survivors of a program that ended by itself live on. Those of one that was killed are killed with it.

mod failure;
mod plan;
mod pump;
mod spawn;
mod users;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use cellule_protocol::v1::exec_event::Event;
use cellule_protocol::v1::exited;
use cellule_protocol::v1::{ExecEvent, ExecRequest, Exited, Started};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::{mpsc, oneshot, watch};
use tonic::Status;

pub(crate) use self::failure::Failure;
use self::plan::Plan;
use self::spawn::Child;
use crate::cgroup::Cgroup;
use crate::fault::report;
use crate::reaper::{Ended, How, Reaper};
use crate::session::{Agent, Session};

pub(crate) type Events = mpsc::Sender<Result<ExecEvent, Status>>;

/// A process that was made and not yet reaped, with all that it started.
#[derive(Debug)]
pub(crate) struct Running {
    pid: Pid,
    cgroup: Option<Cgroup>,
}

/// Runs what `request` asks for and tells `events` of it; whoever drops the other end of those kills it.
pub(crate) async fn run(agent: Arc<Agent>, session: Arc<Session>, request: ExecRequest, events: Events) {
    let timeout = (request.timeout_ms > 0).then(|| Duration::from_millis(request.timeout_ms));
    let id = request.exec_id;
    let (ended, exit) = watch::channel(false);
    let started = tokio::select! {
        started = start(&agent, &session, request, exit) => started,
        // Nothing runs yet, and what is being made is killed when its error pipe is dropped.
        () = events.closed() => return,
    };
    match started {
        Ok((running, exit)) => {
            tell(&events, Event::Started(Started { pid: running.pid.as_raw_nonzero().get().unsigned_abs() }))
                .await;
            let running = Arc::new(running);
            session.enter(id, &running);
            let exited = watch_over(&agent.reaper, &running, exit, timeout, &events).await;
            session.leave(id);
            tell(&events, Event::Exited(exited)).await;
            ended.send_replace(true);
            if let Some(cgroups) = agent.cgroups()
                && let Some(Running { cgroup: Some(cgroup), .. }) = Arc::into_inner(running)
            {
                cgroups.discard(cgroup);
            }
        }
        Err(failure) => tell(&events, Event::Failed(failure.into_message())).await,
    }
}

async fn tell(events: &Events, event: Event) {
    let _owner_gone = events.send(Ok(ExecEvent { event: Some(event) })).await;
}

async fn start(
    agent: &Arc<Agent>,
    session: &Session,
    request: ExecRequest,
    exit: watch::Receiver<bool>,
) -> Result<(Running, oneshot::Receiver<Ended>), Failure> {
    if !agent.has_root() {
        return Err(Failure::no_root());
    }
    if session.runs(request.exec_id) {
        return Err(Failure::invalid("exec_id", "an exec with this id runs already"));
    }
    let plan = Plan::new(&request)?;
    let streams = session.streams.take(request.exec_id, request.stdin).await?;
    let cgroup = match agent.cgroups().map(crate::cgroup::Cgroups::make).transpose() {
        Ok(cgroup) => cgroup,
        Err(error) => return Err(Failure::exhausted("make a control group", &error)),
    };
    let made = spawn::spawn(&plan, &agent.reaper, cgroup.as_ref());
    let discard = |cgroup: Option<Cgroup>| {
        if let (Some(cgroups), Some(cgroup)) = (agent.cgroups(), cgroup) {
            cgroups.discard(cgroup);
        }
    };
    let child = match made {
        Ok(child) => child,
        Err(failure) => {
            discard(cgroup);
            return Err(failure);
        }
    };
    let Child { pid, ended, failed, stdin, stdout, stderr } = child;
    let running = Running { pid, cgroup };
    // Should this be cancelled here, the process must not outlive it.
    let mut guard = KillOnDrop { agent: Some(agent), running: &running };
    let failure = failed.outcome().await;
    guard.agent = None;
    drop(guard);
    if let Some(failure) = failure {
        let _reaped = ended.await;
        discard(running.cgroup);
        return Err(failure);
    }
    if let (Some(pipe), Some(stream)) = (stdin, streams.stdin) {
        tokio::spawn(pump::input(stream, pipe, exit.clone()));
    }
    tokio::spawn(pump::output(stdout, streams.stdout, exit.clone()));
    tokio::spawn(pump::output(stderr, streams.stderr, exit));
    Ok((running, ended))
}

struct KillOnDrop<'a> {
    agent: Option<&'a Arc<Agent>>,
    running: &'a Running,
}

impl Drop for KillOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(agent) = self.agent {
            self.running.kill(&agent.reaper);
        }
    }
}

/// Waits for the exit, and brings it about when the time is over or the owner gone.
async fn watch_over(
    reaper: &Reaper,
    running: &Running,
    mut exit: oneshot::Receiver<Ended>,
    timeout: Option<Duration>,
    events: &Events,
) -> Exited {
    let time_is_over = async {
        match timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    let mut killed_for_time = false;
    let ended = tokio::select! {
        // An exit that came first is an exit, whatever came with it.
        biased;
        ended = &mut exit => ended,
        () = time_is_over => {
            killed_for_time = true;
            running.kill(reaper);
            exit.await
        }
        () = events.closed() => {
            running.kill(reaper);
            exit.await
        }
    };
    let Ok(ended) = ended else {
        // The reaper drops no watch before its process ended.
        report("a process ended and nobody was told how");
        return Exited { how: Some(exited::How::Signal(Signal::KILL.as_raw())), ..Exited::default() };
    };
    let how = match ended.how {
        How::Code(code) => exited::How::Code(code),
        How::Signal(signal) => exited::How::Signal(signal),
    };
    Exited {
        how: Some(how),
        core_dumped: ended.core_dumped,
        // It may have exited by itself in the same moment.
        timed_out: killed_for_time && ended.how == How::Signal(Signal::KILL.as_raw()),
        oom_killed: ended.how != How::Code(0) && running.cgroup.as_ref().is_some_and(Cgroup::oom_killed),
        max_rss_bytes: ended.max_rss_bytes,
        user_us: ended.user_us,
        system_us: ended.system_us,
    }
}

impl Running {
    /// Kills all of it.
    pub(crate) fn kill(&self, reaper: &Reaper) {
        let killed = match &self.cgroup {
            Some(cgroup) => cgroup.kill().map(|()| true),
            None => reaper.signal(self.pid, Signal::KILL, true),
        };
        if let Err(error) = killed {
            report(format_args!("cannot kill the processes of {}: {error}", self.pid));
        }
    }

    /// Signals the main process; `false` if it is gone.
    pub(crate) fn signal(&self, reaper: &Reaper, signal: Signal) -> io::Result<bool> {
        reaper.signal(self.pid, signal, false)
    }

    /// Signals all of it; `false` if its main process is gone.
    pub(crate) fn signal_all(&self, reaper: &Reaper, signal: Signal) -> io::Result<bool> {
        let Some(cgroup) = &self.cgroup else { return reaper.signal(self.pid, signal, true) };
        if signal == Signal::KILL {
            cgroup.kill()?;
            return Ok(true);
        }
        // A process that was listed may be gone and its number another's by now; a descriptor of whoever has that
        // number tells, if the number is still listed once we hold it.
        let held: Vec<_> = cgroup
            .processes()?
            .into_iter()
            .filter_map(|pid| Some((pid, pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?)))
            .collect();
        let still = cgroup.processes()?;
        for (_, descriptor) in held.iter().filter(|(pid, _)| still.contains(pid)) {
            let _gone = pidfd_send_signal(descriptor, signal);
        }
        Ok(true)
    }
}
