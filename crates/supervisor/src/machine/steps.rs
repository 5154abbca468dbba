//! What is told of the steps of a start: ours, and those that a guest says of its boot, within bounds.

use std::time::{Duration, Instant};

use cellule_engine::{HostProcess, Machine};
use cellule_protocol::v1;
use tokio::sync::mpsc;

use crate::status::Phase;

/// How many steps of its boot a guest may tell, and how long its words may be.
const GUEST_STEPS: usize = 64;
const GUEST_WORDS: usize = 512;

/// A step of the start that is done.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) phase: Phase,
    /// The machine's processes, with the step that made them.
    pub(crate) processes: Option<Vec<HostProcess>>,
}

/// Tells the steps of a start as they are done.
#[derive(Debug, Clone)]
pub(crate) struct Steps(mpsc::UnboundedSender<Progress>);

impl Steps {
    pub(crate) fn new(to: mpsc::UnboundedSender<Progress>) -> Self {
        Self(to)
    }

    pub(crate) fn tell(&self, name: &str, begun: Instant) {
        self.send(name, begun.elapsed(), false, None);
    }

    pub(super) fn launched(&self, name: &str, begun: Instant, machine: &dyn Machine) {
        self.send(name, begun.elapsed(), false, Some(machine.processes()));
    }

    /// What the guest says of its boot.
    pub(crate) fn guests(&self, answer: &v1::HandshakeResponse) {
        for step in answer.boot_steps.iter().take(GUEST_STEPS) {
            self.send(&cut(&step.name), Duration::from_micros(step.took_us), true, None);
        }
    }

    fn send(&self, name: &str, took: Duration, in_guest: bool, processes: Option<Vec<HostProcess>>) {
        let phase = Phase { name: name.to_owned(), took, in_guest };
        // Nobody needs to hear it.
        drop(self.0.send(Progress { phase, processes }));
    }
}

/// The guest's words, cut to a bounded length.
pub(super) fn cut(text: &str) -> String {
    text.chars().take(GUEST_WORDS).collect()
}
