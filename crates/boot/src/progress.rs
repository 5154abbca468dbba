//! What a setup is doing, for whoever shows it.

/// One step of making a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Another setup has the lock.
    WaitingForLock,
    /// apt fetches fresh package lists, since the host's do not serve.
    UpdatingPackageLists,
    /// A package is on its way; bytes are counted.
    Downloading,
    /// The kernel and its modules are taken from where they lie.
    Unpacking,
    /// The base image is made.
    MakingBase,
    /// The bundle is put together.
    Composing,
}

/// A report on a step. `done` and `total` are bytes; both are 0 and `None` where a step has none to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The step.
    pub phase: Phase,
    /// Bytes so far.
    pub done: u64,
    /// Bytes in all, where known.
    pub total: Option<u64>,
}

/// Gets each report, on the thread that runs the setup. It should return at once.
pub type OnProgress<'a> = &'a dyn Fn(Progress);

impl Progress {
    /// The beginning of a step.
    pub(crate) fn begin(phase: Phase) -> Self {
        Self { phase, done: 0, total: None }
    }
}
