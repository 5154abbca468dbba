//! What goes into a sandbox's life and what comes out of it.

use std::time::Duration;

use crate::state::Refusal;

/// Which request an answer belongs to.
pub(crate) type Ticket = u64;

/// What a client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// Start the main program, as soon as the agent answers.
    StartMain,
    /// Live on without the owner.
    Release,
    /// Send the main program a signal.
    Kill(i32),
    /// End, by this signal or the usual one, within this time.
    Stop { grace: Duration, signal: Option<i32> },
    /// Stand still.
    Pause,
    /// Go on.
    Resume,
    /// Be saved.
    Save,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    /// A client asks something.
    Ask(Ticket, Request),
    /// Somebody uses a sandbox that may be paused for want of use.
    Used,
    /// The agent answered.
    AgentReady,
    /// The agent was heard, and is gone while the machine is not.
    AgentLost,
    /// The main program runs.
    MainStarted,
    /// The main program could not be started.
    MainRefused,
    /// The main program has ended, and all of its output has been read.
    MainEnded,
    /// A signal was sent, or not: what [`Effect::Signal`] asked for.
    Signalled(Ticket, bool),
    /// The guest's processors stand still.
    Paused,
    /// The guest goes on, its clock set.
    Resumed,
    /// It was saved, or could not be, and is again as it was.
    Saved(Ticket),
    /// The machine is gone, or never came to be. Told even of one that was killed.
    Gone { powered_off: bool },
    /// The process that the sandbox belongs to is gone.
    OwnerGone,
    /// Its time is over.
    Expired,
    /// Nobody used it for as long as was set.
    Idle { pause: bool },
    /// The time that [`Effect::Deadline`] gave is over.
    Deadline,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Start the main program.
    StartMain,
    /// Send the main program a signal, and all of its processes if `all` is set.
    Signal { signal: i32, all: bool, ticket: Option<Ticket> },
    /// Stop the guest's processors.
    Pause,
    /// Set them going again, and the guest's clock right.
    Resume,
    /// Save it: one that runs stands still meanwhile.
    Save { ticket: Ticket, paused: bool },
    /// Have the agent end all processes, within this time, and power off.
    PowerOff(Duration),
    /// End the machine, or its start, at once.
    Kill,
    /// Tell when this time is over, and not what was set before.
    Deadline(Duration),
    /// The deadline is in this time at the latest.
    Shorten(Duration),
    /// Answer a request.
    Answer(Ticket, Answer),
}

/// What is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is done.
    Done,
    /// The main program could not be started.
    MainRefused,
    /// It was saved, or could not be.
    Saved,
    /// It is not done, for this reason.
    Refused(Refusal),
}

/// Whether a stream to the agent is opened now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    /// At once.
    Open,
    /// Not yet: what is going on ends, one way or the other.
    Wait,
    /// Once the sandbox, paused for want of use, was told that it is used.
    Wake,
    /// Not at all.
    Closed,
}
