//! What a sandbox's main program is to be.

use std::time::Duration;

use cellule_supervisor::MainStdin;

use super::Builder;
use crate::{Rlimit, TerminalSize};

/// What is asked of the main program.
#[derive(Debug, Clone, Default)]
pub(super) struct Main {
    pub(super) entrypoint: Option<String>,
    pub(super) arguments: Vec<String>,
    pub(super) terminal: Option<TerminalSize>,
    pub(super) stdin: Option<MainStdin>,
    pub(super) timeout: Option<Duration>,
    pub(super) rlimits: Vec<Rlimit>,
}

impl Builder {
    /// Gives the sandbox a main program: what the image runs, with these arguments instead of its own if there are any.
    /// The sandbox ends when that program does.
    pub fn main<A: Into<String>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.main_mut().arguments = arguments.into_iter().map(Into::into).collect();
        self
    }

    /// Runs this main program instead of the image's entrypoint. An empty one takes the entrypoint away.
    pub fn entrypoint(mut self, program: impl Into<String>) -> Self {
        self.main_mut().entrypoint = Some(program.into());
        self
    }

    /// Gives the main program a terminal of this size.
    pub fn terminal(mut self, size: TerminalSize) -> Self {
        self.main_mut().terminal = Some(size);
        self
    }

    /// What the main program reads; by default nothing.
    pub fn stdin(mut self, stdin: MainStdin) -> Self {
        self.main_mut().stdin = Some(stdin);
        self
    }

    /// Kills the main program, and all it started, after this time.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.main_mut().timeout = Some(limit);
        self
    }

    /// Limits a resource of the main program's.
    pub fn rlimit(mut self, limit: Rlimit) -> Self {
        self.main_mut().rlimits.push(limit);
        self
    }

    fn main_mut(&mut self) -> &mut Main {
        self.main.get_or_insert_default()
    }
}
