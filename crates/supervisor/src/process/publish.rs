//! Makes known what the state is now: at the gate, on the disk, to watchers and whoever waits for an answer.

use tokio::sync::oneshot;

use super::Supervisor;
use crate::connection::Reply;
use crate::journal::Action;
use crate::record::{Record, now_ns};
use crate::recorder::Change;
use crate::state::State;

impl Supervisor {
    pub(super) fn changed(&mut self, before: State) {
        let now = self.life.state();
        self.gate.send_if_modified(|gate| {
            let changed = *gate != self.life.gate();
            *gate = self.life.gate();
            changed
        });
        if now == before {
            return;
        }
        self.record.changed_ns = now_ns();
        match (before, now) {
            (_, State::Paused) => self.tell(Action::Pause, None),
            (State::Resuming, State::Running) => self.tell(Action::Unpause, None),
            _ => {}
        }
    }

    /// Has the state as it is now put on the disk and told, with these answers.
    pub(super) fn publish(&mut self, answers: Vec<(oneshot::Sender<Reply>, Reply)>) {
        self.status.state = self.life.state();
        let (record, status) = (self.recorded(), self.status.clone());
        self.recorder.push(Change { record, status, answers });
    }

    pub(super) fn recorded(&self) -> Record {
        Record {
            state: self.status.state,
            cause: self.cause.clone(),
            main: self.status.main.as_ref().map(Into::into),
            start: self.status.start.clone(),
            phases: self.status.phases.iter().map(Into::into).collect(),
            ..self.record.clone()
        }
    }

    pub(super) fn tell(&self, action: Action, attributes: impl IntoIterator<Item = (&'static str, String)>) {
        self.teller.tell(action, attributes.into_iter().collect());
    }
}
