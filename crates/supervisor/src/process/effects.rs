//! Does what the state asks for. What takes time becomes a job.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cellule_engine::Machine;
use cellule_protocol::client::{ExecId, Session};
use tokio::sync::oneshot;

use super::{Done, Supervisor};
use crate::connection::Reply;
use crate::failure::{Failure, FailureKind};
use crate::life::{Answer, Effect, Input};
use crate::main_program;

/// How long programs may take to stand still before a pause.
const HOLD: Duration = Duration::from_secs(2);
/// How long a guest that goes on may take to answer.
const AWAKE: Duration = Duration::from_secs(30);

impl Supervisor {
    /// Does it, and gives the answer that is to be told with the state that follows from it.
    pub(super) fn perform(&mut self, effect: Effect) -> Option<(oneshot::Sender<Reply>, Reply)> {
        match effect {
            Effect::StartMain => self.start_main(),
            Effect::Signal { signal, all, ticket } => {
                let session = self.session.borrow().clone();
                self.jobs.push(Box::pin(async move {
                    let sent = match session {
                        Some(session) => session.signal(ExecId::MAIN, signal, all).await.unwrap_or(false),
                        None => false,
                    };
                    Done::Signalled { signal, ticket, sent }
                }));
            }
            Effect::Pause => self.pause(),
            Effect::Resume => self.resume(),
            Effect::Save { ticket, paused } => self.save(ticket, paused),
            Effect::PowerOff(grace) => {
                if let Some(session) = self.session.borrow().clone() {
                    self.jobs.push(Box::pin(async move {
                        // Whether it worked shows in the machine's end, or its absence.
                        _ = session.power_off(grace).await;
                        Done::Nothing
                    }));
                }
            }
            Effect::Kill => self.kill(),
            Effect::Deadline(within) => self.clocks.set(within),
            Effect::Shorten(within) => self.clocks.shorten(within),
            Effect::Answer(ticket, answer) => {
                let reply = match answer {
                    Answer::Done => Reply::Done,
                    Answer::MainRefused => Reply::MainRefused(self.refusal.clone()),
                    Answer::Saved => self.saves.reply(ticket),
                    Answer::Refused(refusal) => {
                        self.saves.forget(ticket);
                        Reply::Refused(refusal)
                    }
                };
                return self.tickets.remove(&ticket).map(|sender| (sender, reply));
            }
        }
        None
    }

    fn kill(&mut self) {
        if let Some(machine) = &self.machine {
            machine.kill();
        } else {
            // Whatever there is of a machine ends with its start.
            self.start = None;
            self.pending.push_back(Input::Gone { powered_off: false });
        }
    }

    fn start_main(&mut self) {
        let (session, hub) = (self.session.borrow().clone(), self.hub.clone());
        if let (Some(session), Some(main), Some(hub)) = (session, self.spec.main.clone(), hub) {
            let carried = self.carried.clone();
            self.jobs.push(Box::pin(async move {
                Done::MainStarted(match carried {
                    Some(carried) => main_program::join(session, main, hub, carried).await,
                    None => main_program::start(session, main, hub).await,
                })
            }));
        }
    }

    /// Its programs are held first, so that what is saved of it while it stands still can be another sandbox's.
    fn pause(&mut self) {
        let session = self.session.borrow().clone();
        let held = Arc::clone(&self.saves.held);
        if let (Some(machine), Some(session)) = (self.machine.clone(), session) {
            self.jobs.push(Box::pin(async move {
                // A guest whose agent does not answer stands still all the same.
                let well = matches!(tokio::time::timeout(HOLD, session.hold()).await, Ok(Ok(())));
                held.store(well, Ordering::Relaxed);
                Done::Paused(machine.pause().await.map_err(|error| Failure::control(&error)))
            }));
        }
    }

    fn resume(&mut self) {
        let session = self.session.borrow().clone();
        if let (Some(machine), Some(session)) = (self.machine.clone(), session) {
            self.jobs.push(Box::pin(async move { Done::Resumed(go_on(&*machine, &session, true).await) }));
        }
    }
}

/// Lets a guest go on that stood still, and sets its clock. One that stood `long` gets random numbers before; that call may
/// take its time, by which the clock that comes with it is late, and the next one sets it right.
pub(super) async fn go_on(machine: &dyn Machine, session: &Session, long: bool) -> Result<(), Failure> {
    let going = async {
        machine.resume().await.map_err(|error| Failure::control(&error))?;
        if long {
            session.handshake(None).await.map_err(|error| Failure::call(&error))?;
        }
        session.go_on().await.map_err(|error| Failure::call(&error))
    };
    let silent = || Failure::new(FailureKind::AgentSilent, "the guest does not go on", None);
    tokio::time::timeout(AWAKE, going).await.unwrap_or_else(|_| Err(silent()))
}
