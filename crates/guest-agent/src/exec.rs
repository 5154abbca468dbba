//! Owns the execs: from the request to run a program until its exit was told and its output drained.
//!
//! ```text
//!   request ──▶ plan ──▶ streams joined ──▶ files written ──▶ process made ──┬──▶ started ──┬──▶ exited ──▶ drained
//!      └──────────┴────────────┴───────────────────┴─────────────────────────┴─▶ failed     │  ▲   │
//!                                                                                    killed ┴──┘   └─▶ next of its chain
//!             its time limit, or, unless it is detached, its owner gone: call cancelled, session ended
//! ```
//! What a program writes goes from its pipes, or its terminal, into a [`ring`] for each stream; what a host reads comes from
//! there, for the owner as for whoever [attaches](attach).
//!
//! What holds at each exit:
//! - It is told when the main process is reaped, whoever else still holds its pipes, and whether or not anyone
//!   reads its output or writes its input.
//! - What lay in the output pipes at that time is still delivered; then the streams end. What survivors write later is
//!   not, and finds a closed pipe.
//! - Survivors of a program that ended by itself live on. Those of one that was killed are killed with it.
//! - An exec of several programs exits once, as the last of them that ran. One that can't start is told as a shell does.

mod attach;
pub(crate) mod calls;
mod channel;
mod failure;
mod limits;
mod plan;
mod pump;
mod registry;
mod ring;
mod running;
mod spawn;
mod staging;
mod stdio;
pub(crate) mod users;

use std::sync::Arc;
use std::time::Duration;

use cellule_protocol::v1::exec_event::Event;
use cellule_protocol::v1::exited;
use cellule_protocol::v1::{ExecEvent, ExecRequest, Exited, Started};
use rustix::process::Signal;
use tokio::sync::{mpsc, oneshot, watch};
use tonic::Status;

pub(crate) use self::failure::Failure;
use self::plan::Plan;
pub(crate) use self::registry::Registry;
use self::running::Exec;
use self::running::Made;
use self::stdio::Theirs;
pub(crate) use self::users::names as user_names;
use crate::cgroup::Cgroup;
use crate::fault::report;
use crate::reaper::{Ended, How};
use crate::session::{Agent, Session, Wanted};

/// Where a call hears of its exec.
pub(crate) type Events = mpsc::Sender<Result<ExecEvent, Status>>;

/// An exec whose first program runs, and what is needed to watch over it.
struct Live {
    exec: Arc<Exec>,
    first: oneshot::Receiver<Ended>,
    plan: Plan,
    stdio: Theirs,
    last_words: watch::Sender<Option<Arc<[u8]>>>,
}

/// Runs what `request` asks for and tells `events` of it; whoever drops the other end of those kills it, unless it is
/// detached.
pub(crate) async fn run(agent: Arc<Agent>, session: Arc<Session>, request: ExecRequest, events: Events) {
    let timeout = (request.timeout_ms > 0).then(|| Duration::from_millis(request.timeout_ms));
    let started = tokio::select! {
        started = start(&agent, &session, request, &events) => started,
        // Nothing runs yet, and what is being made is killed when its error pipe is dropped.
        () = events.closed() => return,
    };
    drop(session);
    match started {
        Ok(live) => {
            tell(&events, Event::Started(Started { pid: live.exec.pid() })).await;
            let exec = Arc::clone(&live.exec);
            let exited = watch_over(&agent, live, timeout, &events).await;
            agent.execs.ended(&exec);
            tell(&events, Event::Exited(exited)).await;
            // Nobody waits for this.
            exec.give_back(agent.cgroups());
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
    events: &Events,
) -> Result<Live, Failure> {
    if !agent.has_root() {
        return Err(Failure::no_root());
    }
    let place = agent.execs.reserve(request.exec_id)?;
    let plan = Plan::new(&request, agent.open_files())?;
    let streams = if request.detached {
        None
    } else {
        let stdout = !request.discard_output;
        let wanted = Wanted { stdin: request.stdin, stdout, stderr: stdout && request.terminal.is_none() };
        Some(session.streams.take(request.exec_id, wanted).await?)
    };
    staging::write(&request.files, &plan.identity)?;
    let (theirs, ours) = stdio::make(&plan)?;
    let cgroup = match agent.cgroups().map(crate::cgroup::Cgroups::make).transpose() {
        Ok(cgroup) => cgroup,
        Err(error) => return Err(Failure::exhausted("make a control group", &error)),
    };
    let first = spawn::spawn(&plan, &plan.links[0], &theirs, &agent.reaper, cgroup.as_ref());
    let child = match first {
        Ok(child) => child,
        Err(failure) => {
            discard(agent, cgroup);
            return Err(failure);
        }
    };
    let terminal = ours.stdout.clone().filter(|_| plan.terminal.is_some());
    let made = Made { pid: child.pid, cgroup, stdin: ours.stdin, terminal };
    let exec = Arc::new(Exec::new(&request, made, &agent.execs.budget));
    if let Some(failure) = child.failed {
        let _reaped = child.ended.await;
        exec.end(Exited::default());
        exec.give_back(agent.cgroups());
        return Err(failure);
    }
    let (last_words, end) = watch::channel(None);
    if let Some(streams) = streams {
        attach::owner(&exec, streams, events);
    }
    // The terminal's one output takes messages too.
    for (pipe, ring, takes_messages) in
        [(ours.stdout, Some(&exec.stdout), exec.stderr.is_none()), (ours.stderr, exec.stderr.as_ref(), true)]
    {
        match (pipe, ring) {
            (Some(pipe), Some(ring)) => {
                tokio::spawn(pump::output(pipe, Arc::clone(ring), end.clone(), takes_messages));
            }
            (None, Some(ring)) => ring.close(),
            (_, None) => {}
        }
    }
    place.enter(&exec);
    Ok(Live { exec, first: child.ended, plan, stdio: theirs, last_words })
}

fn discard(agent: &Agent, cgroup: Option<Cgroup>) {
    if let (Some(cgroups), Some(cgroup)) = (agent.cgroups(), cgroup) {
        cgroups.discard(cgroup);
    }
}

/// How an exec's programs went so far.
#[derive(Debug, Default)]
struct Tally {
    how: Option<exited::How>,
    core_dumped: bool,
    max_rss_bytes: u64,
    user_us: u64,
    system_us: u64,
    last_words: Vec<u8>,
}

/// Waits for the exit, and brings it about when the time is over or the owner gone. Returns when it is known to all.
async fn watch_over(agent: &Arc<Agent>, live: Live, timeout: Option<Duration>, events: &Events) -> Exited {
    let Live { exec, first, plan, stdio, last_words } = live;
    let time_is_over = async {
        match timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    let owner_is_gone = async {
        events.closed().await;
        // Whoever detached it before has let it go.
        if exec.is_detached() {
            std::future::pending::<()>().await;
        }
    };
    let mut tally = Tally::default();
    let mut killed_for_time = false;
    {
        let mut all = std::pin::pin!(run_all(agent, &exec, first, plan, stdio, &mut tally));
        tokio::select! {
            // An exit that came first is an exit, whatever came with it.
            biased;
            () = &mut all => {}
            () = time_is_over => {
                killed_for_time = true;
                exec.kill(&agent.reaper);
                all.await;
            }
            () = owner_is_gone => {
                exec.kill(&agent.reaper);
                all.await;
            }
        }
    }
    let killed = tally.how == Some(exited::How::Signal(Signal::KILL.as_raw()));
    let exited = exec.with_cgroup(|cgroup| Exited {
        how: tally.how,
        core_dumped: tally.core_dumped,
        // It may have exited by itself in the same moment.
        timed_out: killed_for_time && killed,
        oom_killed: tally.how != Some(exited::How::Code(0)) && cgroup.is_some_and(Cgroup::oom_killed),
        max_rss_bytes: tally.max_rss_bytes,
        user_us: tally.user_us,
        system_us: tally.system_us,
        memory_peak_bytes: cgroup.map_or(0, Cgroup::memory_peak),
        cpu_us: cgroup.map_or(0, Cgroup::cpu_us),
    });
    last_words.send_replace(Some(tally.last_words.into()));
    exec.end(exited);
    exited
}

/// Waits for the first program, and runs those after it for as long as each ends well.
async fn run_all(
    agent: &Arc<Agent>,
    exec: &Exec,
    first: oneshot::Receiver<Ended>,
    plan: Plan,
    stdio: Theirs,
    tally: &mut Tally,
) {
    let mut ended = first;
    let mut stdio = Some(stdio);
    for at in 1..=plan.links.len() {
        if at == plan.links.len() {
            // Nobody but programs holds these from now on, so that their closing shows.
            stdio = None;
        }
        tally.add(ended.await.ok());
        let (Some(link), Some(stdio)) = (plan.links.get(at), &stdio) else { return };
        if tally.how != Some(exited::How::Code(0)) {
            return;
        }
        if !exec.may_go_on() {
            // Killed between two of them: no end of a chain that went well.
            tally.how = Some(exited::How::Signal(Signal::KILL.as_raw()));
            return;
        }
        let made = exec.with_cgroup(|cgroup| spawn::spawn(&plan, link, stdio, &agent.reaper, cgroup));
        let started = match made {
            Ok(child) => {
                exec.set_main(child.pid);
                match child.failed {
                    None => Ok(child.ended),
                    Some(failure) => {
                        let _reaped = child.ended.await;
                        Err(failure)
                    }
                }
            }
            Err(failure) => Err(failure),
        };
        match started {
            Ok(next) => ended = next,
            Err(failure) => return tally.add_failure(&failure, plan.terminal.is_some()),
        }
    }
}

impl Tally {
    fn add(&mut self, ended: Option<Ended>) {
        let Some(ended) = ended else {
            // The reaper drops no watch before its process ended.
            report("a process ended and nobody was told how");
            self.how = Some(exited::How::Signal(Signal::KILL.as_raw()));
            return;
        };
        self.how = Some(match ended.how {
            How::Code(code) => exited::How::Code(code),
            How::Signal(signal) => exited::How::Signal(signal),
        });
        self.core_dumped = ended.core_dumped;
        self.max_rss_bytes = self.max_rss_bytes.max(ended.max_rss_bytes);
        self.user_us += ended.user_us;
        self.system_us += ended.system_us;
    }

    fn add_failure(&mut self, failure: &Failure, terminal: bool) {
        let (code, message) = failure.as_of_a_shell();
        self.how = Some(exited::How::Code(code));
        self.last_words = format!("{message}{}", if terminal { "\r\n" } else { "\n" }).into_bytes();
    }
}
