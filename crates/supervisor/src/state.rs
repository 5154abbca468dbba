//! The states of a sandbox and what may be asked of each. Pure: no clock, no I/O.
//!
//! ```text
//!               the agent answers            stop asked | owner gone
//!   Starting ────────────────────▶ Running ──────────────────────────▶ Stopping
//!    │    │                         │   │                                 │
//!    │    │ stop asked | owner gone │   │ the guest powers off            │ the machine is gone
//!    │    └───────────▶ Stopping    │   └──────────▶ Stopped ◀────────────┘
//!    │                              │
//!    └──────────── a cause ─────────┴──────────▶ Failed
//! ```
//!
//! `Stopped` and `Failed` are final. While stopping nothing fails any more: that the machine is gone, however it went,
//! is what was asked for.

/// Where a sandbox is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// The machine boots; the agent was not heard yet.
    Starting,
    /// The agent answers.
    Running,
    /// The machine is being ended.
    Stopping,
    /// The machine is gone, as it should be.
    Stopped,
    /// The machine is gone, and nobody asked it to be.
    Failed,
}

/// What happens to a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// The agent answered.
    AgentReady,
    /// Somebody who may do so asked for its end.
    StopAsked,
    /// The process that it belongs to is gone.
    OwnerGone,
    /// The machine ended because the guest powered it off.
    PoweredOff,
    /// The machine ended otherwise, or never began, or the agent was not heard in time.
    Broke,
}

/// What a client asks of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Request {
    /// A stream to the agent.
    Agent,
    /// The end.
    Stop,
}

/// When a request that is not refused is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Admission {
    /// At once.
    Now,
    /// As soon as the agent answers; if it never does, the request is refused then.
    WhenRunning,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// It is being ended.
    #[error("the sandbox is stopping")]
    Stopping,
    /// It is gone.
    #[error("the sandbox has ended")]
    Ended,
}

impl State {
    /// Whether nothing happens any more.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Stopped | Self::Failed)
    }

    /// The state after an event. An event that means nothing here changes nothing.
    #[must_use]
    pub fn after(self, event: Event) -> Self {
        match (self, event) {
            (Self::Starting, Event::AgentReady) => Self::Running,
            (Self::Starting | Self::Running, Event::StopAsked | Event::OwnerGone) => Self::Stopping,
            (Self::Running | Self::Stopping, Event::PoweredOff) | (Self::Stopping, Event::Broke) => {
                Self::Stopped
            }
            // A guest that powers off before its agent answered never did what it was started for.
            (Self::Starting, Event::PoweredOff | Event::Broke) | (Self::Running, Event::Broke) => {
                Self::Failed
            }
            _ => self,
        }
    }

    /// Whether a request is served, and when.
    ///
    /// # Errors
    /// It is not, for this reason.
    pub fn admit(self, request: Request) -> Result<Admission, Refusal> {
        match (self, request) {
            (Self::Starting, Request::Agent) => Ok(Admission::WhenRunning),
            (Self::Running, _) | (Self::Starting | Self::Stopping, Request::Stop) => Ok(Admission::Now),
            (Self::Stopping, Request::Agent) => Err(Refusal::Stopping),
            (Self::Stopped | Self::Failed, _) => Err(Refusal::Ended),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EVENTS: [Event; 5] =
        [Event::AgentReady, Event::StopAsked, Event::OwnerGone, Event::PoweredOff, Event::Broke];

    fn events() -> impl Strategy<Value = Vec<Event>> {
        prop::collection::vec(prop::sample::select(&EVENTS[..]), 0..20)
    }

    fn states(events: &[Event]) -> Vec<State> {
        let mut all = vec![State::Starting];
        for event in events {
            all.push(all[all.len() - 1].after(*event));
        }
        all
    }

    proptest! {
        #[test]
        fn a_final_state_is_never_left(events in events()) {
            let all = states(&events);
            for pair in all.windows(2) {
                prop_assert!(!pair[0].is_final() || pair[0] == pair[1]);
            }
        }

        #[test]
        fn the_machines_end_is_always_final(events in events(), end in prop::sample::select(vec![Event::PoweredOff, Event::Broke])) {
            let state = states(&events)[events.len()].after(end);
            prop_assert!(state.is_final());
        }

        #[test]
        fn what_was_asked_to_stop_never_fails_or_runs_again(events in events()) {
            let mut state = State::Stopping;
            for event in events {
                state = state.after(event);
                prop_assert!(matches!(state, State::Stopping | State::Stopped));
            }
        }

        #[test]
        fn the_agent_is_reached_only_while_it_runs(events in events()) {
            let state = states(&events)[events.len()];
            prop_assert_eq!(state.admit(Request::Agent) == Ok(Admission::Now), state == State::Running);
            prop_assert_eq!(state.admit(Request::Stop).is_err(), state.is_final());
        }
    }
}
