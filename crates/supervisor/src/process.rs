//! The supervisor's process: owns one sandbox from the launch of its machine until nothing of it runs.
//!
//! One task owns the state. It never waits for any one thing: what takes time is a job, whose end is one more thing that
//! happens. Connections only hand it [`Ask`]s and watch what it publishes.
//!
//! ```text
//!   connections ── asks ──▶ ┌──────────────┐ ── effects ──▶ jobs: start, pause, resume, signal, power off, …
//!   jobs ────── done ─────▶ │ Life (pure)  │
//!   clocks ── deadlines ──▶ └──────────────┘ ── changes ──▶ recorder: state.json, then watchers and answers
//! ```

mod begin;
mod clocks;
mod effects;
mod end;
mod idle;
mod memory;
mod network;
mod publish;
mod saving;
mod teller;

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cellule_engine::{ExitReason, Machine};
use cellule_network::Network;
use cellule_protocol::client::{ExitStatus, Session};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use self::begin::Connections;
pub use self::begin::supervise;
pub(crate) use self::begin::supervise_start;
use self::clocks::Clocks;
pub(crate) use self::network::Change as NetworkChange;
use self::saving::{Saved, Saves};
use self::teller::Teller;
use crate::activity::Activity;
use crate::connection::{Ask, Reply};
use crate::directory::{DirectoryError, LOGS, SandboxDir};
use crate::failure::Failure;
use crate::hub::Hub;
use crate::journal::Action;
use crate::life::{Gate, Input, Life, Request, Ticket};
use crate::machine::{self, Progress, Started};
use crate::main_program::{NotStarted, Running};
use crate::record::{Record, now_ns};
use crate::recorder::Recorder;
use crate::saved::SavedMain;
use crate::spec::SandboxSpec;
use crate::state::State;
use crate::status::{MainStatus, Status, process_records};

/// A job that is done.
enum Done {
    Paused(Result<(), Failure>),
    Resumed(Result<(), Failure>),
    Saved(Ticket, Saved),
    Signalled {
        signal: i32,
        ticket: Option<Ticket>,
        sent: bool,
    },
    MainStarted(Result<Running, NotStarted>),
    MainEnded(Result<ExitStatus, Failure>),
    MachineGone(ExitReason),
    AgentLost(Failure),
    /// Whether nothing but the main program runs in the guest.
    Looked {
        idle: bool,
    },
    AskedForMemory(memory::Asked),
    NetworkChanged(network::Changed),
    /// What a guest has that went on from where it was saved, in bytes.
    Memory(u64),
    /// Nothing that matters.
    Nothing,
}

type Job = BoxFuture<'static, Done>;

/// Something that the owner of the state takes note of.
enum Happened {
    Asked(Ask),
    Done(Done),
    Progress(Progress),
    Started(Box<Result<Started, Failure>>),
    Deadline,
    Expired,
    LookIfIdle,
    Told,
}

struct Supervisor {
    spec: Arc<SandboxSpec>,
    dir: SandboxDir,
    path: PathBuf,
    teller: Teller,
    life: Life,
    clocks: Clocks,
    recorder: Recorder,
    /// As of now; watchers see it once it is on the disk.
    status: Status,
    record: Record,
    /// Why it ends, where that is nobody's request.
    cause: Option<String>,
    /// Whether nothing of it is kept.
    remove: bool,
    asked_to_stop: bool,
    tickets: HashMap<Ticket, oneshot::Sender<Reply>>,
    next_ticket: Ticket,
    saves: Saves,
    changing: Changing,
    /// The main program that the machine came with, which it was saved with.
    carried: Option<SavedMain>,
    /// Why the main program could not be started.
    refusal: Vec<u8>,
    /// What happened while something else was taken note of.
    pending: VecDeque<Input>,
    start: Option<BoxFuture<'static, Result<Started, Failure>>>,
    jobs: FuturesUnordered<Job>,
    logging: Option<JoinHandle<()>>,
    machine: Option<Arc<dyn Machine>>,
    gate: watch::Sender<Gate>,
    session: watch::Sender<Option<Session>>,
    network: watch::Sender<Option<Arc<Network>>>,
    asks: mpsc::WeakSender<Ask>,
    inbox: mpsc::Receiver<Ask>,
    phases: mpsc::UnboundedReceiver<Progress>,
    hub: Option<Hub>,
    activity: Activity,
    connections: Connections,
}

/// What is just being changed: one change of a kind at a time.
#[derive(Debug, Default)]
struct Changing {
    memory: bool,
    network: bool,
}

impl Supervisor {
    async fn live(mut self, accepting: JoinHandle<()>) -> Result<(), DirectoryError> {
        self.publish(Vec::new());
        while !self.life.state().is_final() {
            let happened = self.next().await;
            self.note(happened);
        }
        accepting.abort();
        self.end().await
    }

    async fn fail_at_once(mut self, failure: Failure) -> Result<(), DirectoryError> {
        self.start = None;
        self.status.failure = Some(failure);
        self.take(Input::Gone { powered_off: false });
        self.end().await
    }

    /// Waits for the next thing that happens. Each of them has its limit, or is somebody's wish.
    async fn next(&mut self) -> Happened {
        let look_in = self.look_in();
        tokio::select! {
            Some(ask) = self.inbox.recv() => Happened::Asked(ask),
            Some(done) = self.jobs.next(), if !self.jobs.is_empty() => Happened::Done(done),
            Some(progress) = self.phases.recv() => Happened::Progress(progress),
            started = poll_start(&mut self.start) => Happened::Started(Box::new(started)),
            () = self.clocks.deadline() => Happened::Deadline,
            () = self.clocks.expiry() => Happened::Expired,
            () = sleep_for(look_in) => Happened::LookIfIdle,
            () = self.recorder.advance() => Happened::Told,
        }
    }

    fn note(&mut self, happened: Happened) {
        match happened {
            Happened::Asked(ask) => self.asked(ask),
            Happened::Done(done) => self.done(done),
            Happened::Progress(progress) => self.progressed(progress),
            Happened::Started(started) => {
                self.start = None;
                // Its last steps may still lie there.
                while let Ok(progress) = self.phases.try_recv() {
                    self.progressed(progress);
                }
                match *started {
                    Ok(started) => self.started(started),
                    Err(failure) => {
                        self.blame(failure);
                        self.take(Input::Gone { powered_off: false });
                    }
                }
            }
            Happened::Deadline => {
                self.clocks.passed();
                self.take(Input::Deadline);
            }
            Happened::Expired => {
                self.clocks.expired();
                self.remove = true;
                self.cause.get_or_insert_with(|| "its time is over".to_owned());
                self.take(Input::Expired);
            }
            Happened::LookIfIdle => self.look_if_idle(),
            Happened::Told => {}
        }
    }

    fn asked(&mut self, ask: Ask) {
        match ask {
            Ask::Request { request, remove, reply } => {
                let ticket = self.ticket(reply);
                if let Request::Stop { .. } = request {
                    self.remove |= remove;
                    // One that is ending already ends for another reason.
                    self.asked_to_stop |= self.life.state() != State::Stopping;
                }
                if request == Request::Release {
                    self.record.kept = true;
                    if let Some(hub) = &self.hub {
                        hub.release();
                    }
                }
                self.activity.touch();
                self.take(Input::Ask(ticket, request));
            }
            Ask::Save { request, reply } => {
                let ticket = self.ticket(reply);
                self.saves.asked.insert(ticket, request);
                self.activity.touch();
                self.take(Input::Ask(ticket, Request::Save));
            }
            Ask::SetMemory { target, reply } => self.set_memory(target, reply),
            Ask::ChangeNetwork { change, reply } => self.change_network(change, reply),
            Ask::Used => self.take(Input::Used),
            Ask::OwnerGone => {
                if self.life.is_owned() && !self.life.state().is_final() {
                    self.cause.get_or_insert_with(|| "the process that it belonged to is gone".to_owned());
                }
                self.take(Input::OwnerGone);
            }
        }
    }

    fn ticket(&mut self, reply: oneshot::Sender<Reply>) -> Ticket {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.tickets.insert(ticket, reply);
        ticket
    }

    fn started(&mut self, started: Started) {
        let Started { machine, session, start, base, disk, network, main } = started;
        self.record.ports = network.ports;
        self.watch_visits(&network.network);
        self.network.send_replace(Some(network.network));
        (self.saves.base, self.saves.disk) = (base, disk);
        self.carried = main;
        self.status.start = Some(start);
        let waiting = Arc::clone(&machine);
        self.jobs.push(Box::pin(async move { Done::MachineGone(waiting.wait().await) }));
        let (watching, of) = (session.clone(), Arc::clone(&machine));
        self.jobs.push(Box::pin(async move {
            let lost = watching.ended().await;
            Done::AgentLost(machine::better_reason(&*of, Failure::lost(&lost)).await)
        }));
        self.logging = Some(tokio::spawn(crate::agent_log::keep(session.clone(), self.path.join(LOGS))));
        if self.spec.saved.is_some() {
            self.look_for_memory(Arc::clone(&machine));
        }
        self.machine = Some(machine);
        self.session.send_replace(Some(session));
        self.record.kept = true;
        self.activity.touch();
        if self.spec.main.is_none() {
            self.tell(Action::Start, None);
        }
        self.take(Input::AgentReady);
    }

    fn progressed(&mut self, Progress { phase, processes }: Progress) {
        self.status.phases.push(phase);
        if let Some(processes) = processes {
            self.status.set_engine_processes(&processes);
            self.record.engine_pids = process_records(&self.status.processes);
        }
        self.publish(Vec::new());
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Paused(Ok(())) => self.take(Input::Paused),
            Done::Resumed(Ok(())) => {
                self.activity.touch();
                self.take(Input::Resumed);
            }
            Done::Paused(Err(failure)) | Done::Resumed(Err(failure)) | Done::AgentLost(failure) => {
                self.blame(failure);
                self.take(Input::AgentLost);
            }
            Done::Saved(ticket, saved) => self.saved(ticket, saved),
            Done::MainEnded(Err(failure)) => self.main_lost(failure),
            Done::Signalled { signal, ticket, sent } => {
                if sent {
                    self.tell(Action::Kill, Some(("signal", signal.to_string())));
                }
                if let Some(ticket) = ticket {
                    self.take(Input::Signalled(ticket, sent));
                }
            }
            Done::MainStarted(started) => self.main_started(started),
            Done::MainEnded(Ok(exit)) => {
                if let Some(main) = &mut self.status.main {
                    main.exit = Some(exit);
                }
                if exit.oom_killed {
                    self.tell(Action::Oom, None);
                }
                self.take(Input::MainEnded);
            }
            Done::MachineGone(reason) => {
                if let Some(machine) = &self.machine {
                    let failure = machine::ended(&**machine, &reason);
                    self.blame(failure);
                }
                self.take(Input::Gone { powered_off: reason == ExitReason::PoweredOff });
            }
            Done::Looked { idle } => self.looked(idle),
            Done::AskedForMemory(asked) => self.asked_for_memory(asked),
            Done::NetworkChanged(changed) => self.network_changed(changed),
            Done::Memory(bytes) => self.has_memory(bytes),
            Done::Nothing => {}
        }
    }

    fn main_started(&mut self, started: Result<Running, NotStarted>) {
        match started {
            Ok(Running { pid, ended }) => {
                let started_ns = self.carried.take().map_or_else(now_ns, |main| main.started_ns);
                self.status.main = Some(MainStatus { pid, started_ns, exit: None });
                self.jobs.push(Box::pin(async move { Done::MainEnded(ended.await) }));
                self.tell(Action::Start, None);
                self.take(Input::MainStarted);
            }
            Err(NotStarted::Refused(failure)) => {
                self.cause = Some(format!("its main program could not be started: {failure}"));
                self.refusal = crate::status::wire::start_failure_to_wire(&failure);
                self.take(Input::MainRefused);
            }
            Err(NotStarted::Lost(failure)) => self.main_lost(failure),
        }
    }

    /// What is heard of the main program breaks off, which is often the first sign of a machine that ends: its own reason
    /// is the better one, and follows at once.
    fn main_lost(&mut self, failure: Failure) {
        if let Some(machine) = self.machine.clone() {
            self.jobs.push(Box::pin(async move {
                Done::AgentLost(machine::better_reason(&*machine, failure).await)
            }));
        } else {
            self.blame(failure);
            self.take(Input::AgentLost);
        }
    }

    /// Notes why it ends, unless that is what was asked for, or a reason is known already.
    fn blame(&mut self, failure: Failure) {
        if !self.life.state().is_final()
            && self.life.state() != State::Stopping
            && self.status.failure.is_none()
        {
            self.cause = Some(failure.line());
            self.status.failure = Some(failure);
        }
    }

    /// Takes what happened to the state, and does what is to be done.
    fn take(&mut self, input: Input) {
        self.pending.push_back(input);
        let mut answers = Vec::new();
        while let Some(input) = self.pending.pop_front() {
            let before = self.life.state();
            let effects = self.life.on(input);
            self.changed(before);
            for effect in effects {
                answers.extend(self.perform(effect));
            }
        }
        self.publish(answers);
    }
}

async fn poll_start(
    start: &mut Option<BoxFuture<'static, Result<Started, Failure>>>,
) -> Result<Started, Failure> {
    match start {
        Some(start) => start.await,
        None => std::future::pending().await,
    }
}

async fn sleep_for(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
