//! The life of a sandbox: its states, what may be asked in each, and what is to be done then. Pure: no clock, no I/O.
//!
//! ```text
//!            the agent answers          pause asked, idle              stopped
//!   Starting ───────────────▶ Running ─────────────────▶ Pausing ────────────────▶ Paused
//!      │                       ▲  │                                                  │
//!      │                       │  │                           resume asked, or used   │
//!      │            going again│  │                           while paused for want   │
//!      │                       │  │                           of use                  │
//!      │                    Resuming ◀─────────────────────────────────────────────────┘
//!      │                          │
//!      │     Running or Paused ───save asked──▶ Saving ───saved, or not──▶ what it was before
//!      │                          │
//!      │ any of these: stop, SIGKILL, time over, owner gone, main program ended, agent lost
//!      ▼                          ▼
//!   Stopping ─── the machine is gone ──▶ Stopped, or Failed if the agent was lost
//!
//!   any but Stopping ─── the guest powered off ──▶ Stopped (Starting: Failed)
//!                    ─── the machine broke, or did not start ──▶ Failed
//! ```
//!
//! How a sandbox stops, each step with a limit after which the next is taken:
//!
//! ```text
//!   Settling ──▶ Thawing ──▶ Asking ──────────▶ Forcing ──────▶ Killing ──▶ the machine is gone
//!   (being       (paused:    (its signal to     (SIGKILL to     (the machine)
//!    saved)       resume)     the main program)  it)               ▲
//!                               │ it ended        │ it ended       │
//!                               └───────┬─────────┘                │
//!                                       ▼                          │
//!                                   PoweringOff ───────────────────┘
//!                                   (at once without a main program)
//! ```
//! Once its main program has ended, a sandbox is killed at once; one with a disk that is kept powers off, so that all that was
//! written is on it.
//!
//! A second stop, or SIGKILL, shortens it. `Stopped` and `Failed` are final. While stopping nothing fails any more: that
//! the machine is gone, however it went, is what was asked for. Each request is answered exactly once: at the latest by
//! the end.

mod alphabet;
mod asking;
mod stopping;

use std::time::Duration;

pub(crate) use self::alphabet::{Answer, Effect, Gate, Input, Request, Ticket};
use self::stopping::Stage;
use crate::state::{Refusal, State};

/// SIGKILL, everywhere on Linux.
pub(crate) const SIGKILL: i32 = 9;
/// SIGTERM, everywhere on Linux.
const SIGTERM: i32 = 15;
/// What a main program may take to end when nobody uses the sandbox any more.
const IDLE_GRACE: Duration = Duration::from_secs(10);

/// Whether it was paused for want of use, and not by a request.
type Idle = bool;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting,
    Running,
    /// `wake` if it is to go on as soon as it stands still.
    Pausing {
        idle: Idle,
        wake: bool,
    },
    Paused {
        idle: Idle,
    },
    Resuming,
    /// `paused` is whether it stood still before, and why.
    Saving {
        paused: Option<Idle>,
    },
    /// `failing` if it ends for a cause of its own.
    Stopping {
        stage: Stage,
        failing: bool,
    },
    Stopped,
    Failed,
}

/// Where the main program is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Main {
    /// There is none.
    Absent,
    Unstarted,
    Launching(Ticket),
    Running,
    /// It ended, or could not be started.
    Over,
}

/// Requests that are answered later.
#[derive(Debug, Default)]
struct Waiting {
    start: Option<Ticket>,
    pause: Vec<Ticket>,
    resume: Vec<Ticket>,
    signal: Vec<Ticket>,
    /// The first is under way while it is being saved.
    save: Vec<Ticket>,
    /// Signals to be sent once it was saved.
    later: Vec<(Ticket, i32)>,
    /// Answered by the end, whatever it is.
    end: Vec<Ticket>,
}

/// The life of one sandbox.
#[derive(Debug)]
pub(crate) struct Life {
    phase: Phase,
    main: Main,
    /// Whether it ends with its owner.
    owned: bool,
    /// Whether it has a disk that is kept, which must get what the guest has not written yet.
    keeps_disk: bool,
    /// What asks its main program to stop, unless a request says otherwise.
    stop_signal: i32,
    /// What asks it now, and how long it has.
    signal: i32,
    grace: Duration,
    waiting: Waiting,
    effects: Vec<Effect>,
}

impl Life {
    pub(crate) fn new(has_main: bool, stop_signal: Option<i32>) -> Self {
        let stop_signal = stop_signal.unwrap_or(SIGTERM);
        Self {
            phase: Phase::Starting,
            main: if has_main { Main::Unstarted } else { Main::Absent },
            owned: true,
            keeps_disk: false,
            stop_signal,
            signal: stop_signal,
            grace: Duration::ZERO,
            waiting: Waiting::default(),
            effects: Vec::new(),
        }
    }

    /// The same of a sandbox with a disk that is kept.
    pub(crate) fn keeping_disk(self, keeps_disk: bool) -> Self {
        Self { keeps_disk, ..self }
    }

    /// The state, as everyone sees it.
    pub(crate) fn state(&self) -> State {
        match self.phase {
            Phase::Starting => State::Starting,
            Phase::Running => State::Running,
            Phase::Pausing { .. } => State::Pausing,
            Phase::Paused { .. } => State::Paused,
            Phase::Resuming => State::Resuming,
            Phase::Saving { .. } => State::Saving,
            Phase::Stopping { .. } => State::Stopping,
            Phase::Stopped => State::Stopped,
            Phase::Failed => State::Failed,
        }
    }

    /// Whether a stream to the agent is opened now.
    pub(crate) fn gate(&self) -> Gate {
        match self.phase {
            Phase::Running => Gate::Open,
            Phase::Starting | Phase::Resuming | Phase::Saving { .. } | Phase::Pausing { wake: true, .. } => {
                Gate::Wait
            }
            Phase::Pausing { idle: true, .. } | Phase::Paused { idle: true } => Gate::Wake,
            _ => Gate::Closed,
        }
    }

    /// Whether the sandbox still belongs to the process that started it.
    pub(crate) fn is_owned(&self) -> bool {
        self.owned
    }

    /// Whether the main program runs, as far as is known.
    pub(crate) fn main_runs(&self) -> bool {
        self.main == Main::Running
    }

    /// Takes what happened, and gives what is to be done, in this order.
    pub(crate) fn on(&mut self, input: Input) -> Vec<Effect> {
        if !self.state().is_final() {
            self.take(input);
        } else if let Input::Ask(ticket, request) = input {
            // That it ended is all that these wanted.
            let wanted = matches!(request, Request::Stop { .. } | Request::Kill(SIGKILL));
            self.answer(ticket, if wanted { Answer::Done } else { Answer::Refused(Refusal::Ended) });
        }
        std::mem::take(&mut self.effects)
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Ask(ticket, request) => self.ask(ticket, request),
            Input::Used => self.used(),
            Input::AgentReady => self.agent_ready(),
            Input::AgentLost => self.agent_lost(),
            Input::MainStarted => self.main_started(),
            Input::MainRefused => self.main_refused(),
            Input::MainEnded => self.main_ended(),
            Input::Signalled(ticket, sent) => self.signalled(ticket, sent),
            Input::Paused => self.paused(),
            Input::Resumed => self.resumed(),
            Input::Saved(ticket) => self.saved(ticket),
            Input::Gone { powered_off } => self.gone(powered_off),
            Input::OwnerGone if self.owned => self.kill_machine(),
            Input::OwnerGone => {}
            Input::Expired => self.kill_machine(),
            Input::Idle { pause } => self.idle(pause),
            Input::Deadline => self.deadline(),
        }
    }

    fn used(&mut self) {
        match &mut self.phase {
            Phase::Pausing { idle: true, wake } => *wake = true,
            Phase::Paused { idle: true } => self.resume(),
            _ => {}
        }
    }

    fn idle(&mut self, pause: bool) {
        if self.phase != Phase::Running {
            return;
        }
        if pause { self.pause(true) } else { self.stop(IDLE_GRACE, None) }
    }

    fn agent_ready(&mut self) {
        if self.phase == Phase::Starting {
            self.run();
        }
    }

    /// Runs, and begins what waited for that.
    fn run(&mut self) {
        self.phase = Phase::Running;
        for (ticket, signal) in std::mem::take(&mut self.waiting.later) {
            self.waiting.signal.push(ticket);
            self.effects.push(Effect::Signal { signal, all: false, ticket: Some(ticket) });
        }
        if let Some(ticket) = self.waiting.start.take() {
            self.launch(ticket);
        }
        self.save_next();
    }

    fn main_started(&mut self) {
        let Main::Launching(ticket) = self.main else { return };
        self.main = Main::Running;
        self.answer(ticket, Answer::Done);
        self.main_started_while_stopping();
        self.save_next();
    }

    fn main_refused(&mut self) {
        let Main::Launching(ticket) = self.main else { return };
        self.main = Main::Over;
        self.answer(ticket, Answer::MainRefused);
        self.main_ended_while_stopping();
        self.save_next();
    }

    fn main_ended(&mut self) {
        if self.main != Main::Running {
            return;
        }
        self.main = Main::Over;
        if matches!(self.phase, Phase::Stopping { .. }) {
            self.main_ended_while_stopping();
        } else {
            self.end();
        }
    }

    fn signalled(&mut self, ticket: Ticket, sent: bool) {
        let Some(at) = self.waiting.signal.iter().position(|waiting| *waiting == ticket) else { return };
        self.waiting.signal.swap_remove(at);
        self.answer(ticket, if sent { Answer::Done } else { Answer::Refused(Refusal::MainNotRunning) });
    }

    fn paused(&mut self) {
        match self.phase {
            Phase::Pausing { idle, wake } => {
                self.phase = Phase::Paused { idle };
                self.answer_all(|waiting| &mut waiting.pause, Answer::Done);
                if wake {
                    self.resume();
                } else {
                    self.save_next();
                }
            }
            Phase::Stopping { .. } => self.paused_while_stopping(),
            _ => {}
        }
    }

    fn resumed(&mut self) {
        match self.phase {
            Phase::Resuming => {
                self.answer_all(|waiting| &mut waiting.resume, Answer::Done);
                self.run();
            }
            Phase::Stopping { .. } => self.resumed_while_stopping(),
            _ => {}
        }
    }

    /// Begins to save it for whoever waits for that longest, if it can be saved now. One whose main program is just being
    /// started is half of something.
    fn save_next(&mut self) {
        let Some(&ticket) = self.waiting.save.first() else { return };
        let launching = matches!(self.main, Main::Launching(_));
        let paused = match self.phase {
            Phase::Running if !launching => None,
            Phase::Paused { idle } if !launching => Some(idle),
            // It goes no further, as long as it stands still.
            Phase::Paused { .. } => {
                return self.answer_all(|waiting| &mut waiting.save, Answer::Refused(Refusal::Starting));
            }
            _ => return,
        };
        self.phase = Phase::Saving { paused };
        self.effects.push(Effect::Save { ticket, paused: paused.is_some() });
    }

    fn saved(&mut self, ticket: Ticket) {
        if self.waiting.save.first() == Some(&ticket) {
            self.waiting.save.remove(0);
            self.answer(ticket, Answer::Saved);
        }
        match self.phase {
            Phase::Saving { paused: None } => self.run(),
            Phase::Saving { paused: Some(idle) } => {
                self.phase = Phase::Paused { idle };
                self.save_next();
            }
            Phase::Stopping { .. } => self.saved_while_stopping(),
            _ => {}
        }
    }

    fn gone(&mut self, powered_off: bool) {
        self.phase = match self.phase {
            Phase::Stopping { failing: false, .. } => Phase::Stopped,
            // A guest that powers off before its agent answered never did what it was started for.
            Phase::Starting | Phase::Stopping { failing: true, .. } => Phase::Failed,
            _ if powered_off => Phase::Stopped,
            _ => Phase::Failed,
        };
        if let Main::Launching(ticket) = self.main {
            self.answer(ticket, Answer::Refused(Refusal::Ended));
        }
        self.main = Main::Over;
        self.answer_all(|waiting| &mut waiting.end, Answer::Done);
        self.refuse_all(Refusal::Ended);
    }

    /// Refuses whatever waits for something other than the end.
    fn refuse_all(&mut self, refusal: Refusal) {
        if let Some(ticket) = self.waiting.start.take() {
            self.answer(ticket, Answer::Refused(refusal));
        }
        self.answer_all(|waiting| &mut waiting.pause, Answer::Refused(refusal));
        self.answer_all(|waiting| &mut waiting.resume, Answer::Refused(refusal));
        self.answer_all(|waiting| &mut waiting.save, Answer::Refused(refusal));
        for (ticket, _) in std::mem::take(&mut self.waiting.later) {
            self.answer(ticket, Answer::Refused(refusal));
        }
        if refusal == Refusal::Ended {
            self.answer_all(|waiting| &mut waiting.signal, Answer::Refused(refusal));
        }
    }

    fn answer_all(&mut self, which: impl FnOnce(&mut Waiting) -> &mut Vec<Ticket>, answer: Answer) {
        for ticket in std::mem::take(which(&mut self.waiting)) {
            self.answer(ticket, answer);
        }
    }

    fn answer(&mut self, ticket: Ticket, answer: Answer) {
        self.effects.push(Effect::Answer(ticket, answer));
    }
}

#[cfg(test)]
mod tests;
