//! What `--verbose` tells: each step with the time it took.

use std::time::{Duration, Instant};

use crate::quantity::show_duration;

/// Tells steps as they are done, or keeps quiet.
#[derive(Debug)]
pub(crate) struct Report {
    verbose: bool,
    quiet: bool,
    begun: Instant,
}

impl Report {
    pub(crate) fn new(verbose: bool, quiet: bool) -> Self {
        Self { verbose, quiet, begun: Instant::now() }
    }

    /// Does something and tells how long it took.
    pub(crate) async fn step<T>(&self, name: &str, step: impl Future<Output = T>) -> T {
        let begun = Instant::now();
        let result = step.await;
        self.tell(name, begun.elapsed());
        result
    }

    /// Tells a step that somebody else measured.
    pub(crate) fn tell(&self, name: &str, took: Duration) {
        if self.verbose {
            crate::say(&format!(
                "cellule: {:<28} {:>9}\n",
                crate::failure::printable(name),
                show_duration(took)
            ));
        }
    }

    /// Tells what everybody should know, unless they asked for quiet.
    pub(crate) fn warn(&self, text: &str) {
        if !self.quiet {
            crate::say(&format!("cellule: {}\n", crate::failure::printable(text)));
        }
    }

    /// Tells something that takes no time.
    pub(crate) fn note(&self, text: &str) {
        if self.verbose {
            crate::say(&format!("cellule: {}\n", crate::failure::printable(text)));
        }
    }

    /// Tells how long all of it took.
    pub(crate) fn total(&self) {
        self.tell("in all", self.begun.elapsed());
    }
}
