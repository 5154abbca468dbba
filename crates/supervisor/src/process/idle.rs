//! Looks whether anybody uses the sandbox, and stops or pauses it if that is asked for.

use std::time::Duration;

use super::{Done, Supervisor};
use crate::life::Input;
use crate::spec::IdleAction;
use crate::state::State;

impl Supervisor {
    pub(super) fn look_in(&self) -> Option<Duration> {
        let watched = self.life.state() == State::Running && !self.life.is_owned();
        self.clocks.look_in(watched, self.activity.idle_for())
    }

    /// Nobody seems to use it. Whether anything but the main program runs in it, the guest knows.
    pub(super) fn look_if_idle(&mut self) {
        let Some(session) = self.session.borrow().clone() else { return };
        self.clocks.look();
        let allowed = u32::from(self.life.main_runs());
        self.jobs.push(Box::pin(async move {
            let idle = session.status().await.is_ok_and(|status| status.running_execs <= allowed);
            Done::Looked { idle }
        }));
    }

    pub(super) fn looked(&mut self, idle: bool) {
        self.clocks.looked(!idle);
        if !idle {
            return self.activity.touch();
        }
        let Some(rule) = self.spec.idle else { return };
        // It may have been used while the guest was asked.
        if self.activity.idle_for() >= Duration::from_millis(rule.after_ms) && !self.life.is_owned() {
            let pause = rule.action == IdleAction::Pause;
            if !pause && self.life.state() == State::Running {
                self.cause = Some("nobody used it".to_owned());
            }
            self.take(Input::Idle { pause });
        }
    }
}
