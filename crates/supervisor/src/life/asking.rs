//! What clients ask, and what each state answers.

use super::stopping::Stage;
use super::{Answer, Effect, Life, Main, Phase, Request, SIGKILL, Ticket};
use crate::state::Refusal;

impl Life {
    pub(super) fn ask(&mut self, ticket: Ticket, request: Request) {
        let asked = match request {
            Request::StartMain => self.ask_start(ticket),
            Request::Release => {
                self.owned = false;
                Ok(Some(Answer::Done))
            }
            Request::Kill(signal) => self.ask_kill(ticket, signal),
            Request::Stop { grace, signal } => {
                self.waiting.end.push(ticket);
                self.stop(grace, signal);
                Ok(None)
            }
            Request::Pause => self.ask_pause(ticket),
            Request::Resume => self.ask_resume(ticket),
            Request::Save => self.ask_save(ticket),
        };
        match asked {
            Ok(Some(answer)) => self.answer(ticket, answer),
            Ok(None) => {}
            Err(refusal) => self.answer(ticket, Answer::Refused(refusal)),
        }
    }

    fn ask_start(&mut self, ticket: Ticket) -> Result<Option<Answer>, Refusal> {
        match self.main {
            Main::Absent => return Err(Refusal::NoMain),
            Main::Unstarted if self.waiting.start.is_none() => {}
            _ => return Err(Refusal::MainStarted),
        }
        match self.phase {
            Phase::Starting | Phase::Saving { paused: None } => self.waiting.start = Some(ticket),
            Phase::Running => self.launch(ticket),
            Phase::Pausing { .. } | Phase::Paused { .. } | Phase::Saving { paused: Some(_) } => {
                return Err(Refusal::Paused);
            }
            Phase::Resuming => return Err(Refusal::Resuming),
            Phase::Stopping { .. } | Phase::Stopped | Phase::Failed => return Err(Refusal::Stopping),
        }
        Ok(None)
    }

    pub(super) fn launch(&mut self, ticket: Ticket) {
        self.main = Main::Launching(ticket);
        self.effects.push(Effect::StartMain);
    }

    fn ask_kill(&mut self, ticket: Ticket, signal: i32) -> Result<Option<Answer>, Refusal> {
        if signal == SIGKILL {
            self.waiting.end.push(ticket);
            self.kill();
            return Ok(None);
        }
        match (self.main, self.phase) {
            (Main::Absent, _) => Err(Refusal::NoMain),
            (_, Phase::Starting) => Err(Refusal::Starting),
            (_, Phase::Pausing { .. } | Phase::Paused { .. } | Phase::Saving { paused: Some(_) }) => {
                Err(Refusal::Paused)
            }
            (_, Phase::Resuming) => Err(Refusal::Resuming),
            // A guest that stands still hears nothing.
            (Main::Running, Phase::Saving { paused: None }) => {
                self.waiting.later.push((ticket, signal));
                Ok(None)
            }
            (Main::Running, Phase::Running | Phase::Stopping { stage: Stage::Asking, .. }) => {
                self.waiting.signal.push(ticket);
                self.effects.push(Effect::Signal { signal, all: false, ticket: Some(ticket) });
                Ok(None)
            }
            (_, Phase::Running | Phase::Saving { paused: None }) => Err(Refusal::MainNotRunning),
            (_, Phase::Stopping { .. } | Phase::Stopped | Phase::Failed) => Err(Refusal::Stopping),
        }
    }

    fn ask_pause(&mut self, ticket: Ticket) -> Result<Option<Answer>, Refusal> {
        match &mut self.phase {
            Phase::Running => {
                self.waiting.pause.push(ticket);
                self.pause(false);
                Ok(None)
            }
            // Paused for want of use, it would go on when used. Now it is to stay.
            Phase::Paused { idle } if *idle => {
                *idle = false;
                Ok(Some(Answer::Done))
            }
            Phase::Pausing { idle, wake } if *idle && !*wake => {
                *idle = false;
                self.waiting.pause.push(ticket);
                Ok(None)
            }
            _ => self.must_run().map(|()| None),
        }
    }

    /// It waits for one that was asked for before, and for a main program that is just being started.
    fn ask_save(&mut self, ticket: Ticket) -> Result<Option<Answer>, Refusal> {
        match self.phase {
            Phase::Running | Phase::Paused { .. } | Phase::Saving { .. } => {}
            Phase::Starting => return Err(Refusal::Starting),
            Phase::Pausing { .. } => return Err(Refusal::Pausing),
            Phase::Resuming => return Err(Refusal::Resuming),
            Phase::Stopping { .. } | Phase::Stopped | Phase::Failed => return Err(Refusal::Stopping),
        }
        self.waiting.save.push(ticket);
        self.save_next();
        Ok(None)
    }

    /// Whether the guest can be asked for memory now. It changes no state, and nothing waits for it.
    pub(crate) fn ask_memory(&self) -> Result<(), Refusal> {
        self.must_run()
    }

    /// Refuses what only a guest that runs can do.
    fn must_run(&self) -> Result<(), Refusal> {
        match self.phase {
            Phase::Running => Ok(()),
            Phase::Starting => Err(Refusal::Starting),
            Phase::Pausing { .. } | Phase::Paused { .. } | Phase::Saving { paused: Some(_) } => {
                Err(Refusal::Paused)
            }
            Phase::Resuming => Err(Refusal::Resuming),
            Phase::Saving { paused: None } => Err(Refusal::Saving),
            Phase::Stopping { .. } | Phase::Stopped | Phase::Failed => Err(Refusal::Stopping),
        }
    }

    pub(super) fn pause(&mut self, idle: bool) {
        self.phase = Phase::Pausing { idle, wake: false };
        self.effects.push(Effect::Pause);
    }

    fn ask_resume(&mut self, ticket: Ticket) -> Result<Option<Answer>, Refusal> {
        match &mut self.phase {
            Phase::Starting | Phase::Running | Phase::Saving { paused: None } => {
                return Err(Refusal::NotPaused);
            }
            Phase::Saving { paused: Some(_) } => return Err(Refusal::Saving),
            Phase::Pausing { wake, .. } => *wake = true,
            Phase::Paused { .. } => self.resume(),
            Phase::Resuming => {}
            Phase::Stopping { .. } | Phase::Stopped | Phase::Failed => return Err(Refusal::Stopping),
        }
        self.waiting.resume.push(ticket);
        Ok(None)
    }

    pub(super) fn resume(&mut self) {
        self.phase = Phase::Resuming;
        self.effects.push(Effect::Resume);
    }
}
