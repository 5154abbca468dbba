//! How a sandbox stops: the steps, and what takes it from one to the next.

use std::time::Duration;

use super::{Effect, Life, Main, Phase};
use crate::state::Refusal;

/// How long a main program that was killed may take to be reaped, and its last output to be read.
const FORCE: Duration = Duration::from_secs(3);
/// How long a guest without processes may take to power off.
const POWER_OFF: Duration = Duration::from_secs(5);
/// The same where all that was written must be on a disk first: as much as the guest's memory holds.
const SYNC: Duration = Duration::from_secs(60);
/// How long a machine that was killed may take to be gone, after which it is given up. For a host in need.
const KILL: Duration = Duration::from_secs(10);

/// A step of stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The guest is made to run, so that it can be asked. `still` while it is on its way to stand still.
    Thawing { still: bool },
    /// It is just being saved. `still` if it stands still then.
    Settling { still: bool },
    /// The main program was sent its signal, or will be once it has started.
    Asking,
    /// The main program was killed.
    Forcing,
    /// The agent ends what is left, and powers off.
    PoweringOff,
    /// The machine was killed.
    Killing,
}

impl Life {
    /// Begins to stop, or shortens it. Zero ends the machine at once.
    pub(super) fn stop(&mut self, grace: Duration, signal: Option<i32>) {
        if let Phase::Stopping { stage, .. } = self.phase {
            if grace.is_zero() {
                self.kill_machine();
            } else if matches!(stage, Stage::Asking | Stage::Thawing { .. } | Stage::Settling { .. }) {
                self.effects.push(Effect::Shorten(grace));
            }
            return;
        }
        self.signal = signal.unwrap_or(self.stop_signal);
        self.grace = grace;
        let has_main = matches!(self.main, Main::Running | Main::Launching(_));
        // Whether there is anybody to ask, or anything to write.
        let has_any = has_main || self.keeps_disk;
        if grace.is_zero() {
            return self.kill_machine();
        }
        match self.phase {
            Phase::Running if has_main => {
                self.enter(Stage::Asking, grace);
                self.ask_main();
            }
            Phase::Running => self.power_off(grace),
            Phase::Pausing { .. } if has_any => self.enter(Stage::Thawing { still: false }, grace),
            Phase::Paused { .. } if has_any => {
                self.enter(Stage::Thawing { still: true }, grace);
                self.effects.push(Effect::Resume);
            }
            Phase::Resuming if has_any => self.enter(Stage::Thawing { still: true }, grace),
            Phase::Saving { paused } if has_any || paused.is_none() => {
                let limit = if self.keeps_disk { grace.max(SYNC) } else { grace };
                self.enter(Stage::Settling { still: paused.is_some() }, limit);
            }
            // Nobody in there who could be asked.
            _ => self.kill_machine(),
        }
    }

    /// Ends it, now that its main program has.
    pub(super) fn end(&mut self) {
        match self.phase {
            _ if !self.keeps_disk => self.kill_machine(),
            // Nobody is asked any more.
            Phase::Running => self.power_off(Duration::ZERO),
            _ => self.stop(SYNC, None),
        }
    }

    /// Ends the main program by SIGKILL where that can be done at once, else the machine.
    pub(super) fn kill(&mut self) {
        match self.phase {
            Phase::Running | Phase::Stopping { stage: Stage::Asking, .. } if self.main == Main::Running => {
                self.force();
            }
            _ => self.kill_machine(),
        }
    }

    /// Ends the machine.
    pub(super) fn kill_machine(&mut self) {
        if self.stage() != Some(Stage::Killing) {
            self.enter(Stage::Killing, KILL);
            self.effects.push(Effect::Kill);
        }
    }

    pub(super) fn agent_lost(&mut self) {
        if self.stage().is_none() {
            self.phase = Phase::Stopping { stage: Stage::PoweringOff, failing: true };
        }
        self.kill_machine();
        self.refuse_all(Refusal::Ended);
    }

    pub(super) fn deadline(&mut self) {
        match self.stage() {
            Some(Stage::Asking) if self.main == Main::Running => self.force(),
            Some(Stage::Killing) => self.gone(false),
            Some(_) => self.kill_machine(),
            // Of a stop that is none any more.
            None => {}
        }
    }

    pub(super) fn main_started_while_stopping(&mut self) {
        if self.stage() == Some(Stage::Asking) {
            self.ask_main();
        }
    }

    pub(super) fn main_ended_while_stopping(&mut self) {
        if matches!(self.stage(), Some(Stage::Asking | Stage::Forcing | Stage::Thawing { still: true })) {
            self.power_off(Duration::ZERO);
        }
    }

    pub(super) fn saved_while_stopping(&mut self) {
        match self.stage() {
            Some(Stage::Settling { still: true }) => {
                self.advance(Stage::Thawing { still: true });
                self.effects.push(Effect::Resume);
            }
            Some(Stage::Settling { still: false }) => self.ask_at_last(),
            _ => {}
        }
    }

    pub(super) fn paused_while_stopping(&mut self) {
        if self.stage() == Some(Stage::Thawing { still: false }) {
            self.advance(Stage::Thawing { still: true });
            self.effects.push(Effect::Resume);
        }
    }

    pub(super) fn resumed_while_stopping(&mut self) {
        if matches!(self.stage(), Some(Stage::Thawing { .. })) {
            self.ask_at_last();
        }
    }

    /// The guest runs now. The deadline stays: the time that it took was the program's.
    fn ask_at_last(&mut self) {
        self.advance(Stage::Asking);
        match self.main {
            Main::Running | Main::Launching(_) => self.ask_main(),
            Main::Over => self.power_off(Duration::ZERO),
            Main::Absent | Main::Unstarted => self.power_off(self.grace),
        }
    }

    fn stage(&self) -> Option<Stage> {
        match self.phase {
            Phase::Stopping { stage, .. } => Some(stage),
            _ => None,
        }
    }

    fn ask_main(&mut self) {
        // One that is just being started is asked once it runs.
        if self.main == Main::Running {
            self.effects.push(Effect::Signal { signal: self.signal, all: false, ticket: None });
        }
    }

    fn force(&mut self) {
        self.enter(Stage::Forcing, FORCE);
        self.effects.push(Effect::Signal { signal: super::SIGKILL, all: true, ticket: None });
    }

    fn power_off(&mut self, grace: Duration) {
        self.enter(Stage::PoweringOff, grace + if self.keeps_disk { SYNC } else { POWER_OFF });
        self.effects.push(Effect::PowerOff(grace));
    }

    fn enter(&mut self, stage: Stage, limit: Duration) {
        self.advance(stage);
        self.effects.push(Effect::Deadline(limit));
        self.refuse_all(Refusal::Stopping);
    }

    fn advance(&mut self, stage: Stage) {
        let failing = matches!(self.phase, Phase::Stopping { failing: true, .. });
        self.phase = Phase::Stopping { stage, failing };
    }
}
