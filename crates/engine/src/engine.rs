//! The two traits that every driver implements.

use std::fmt::Debug;
use std::fs::File;
use std::path::PathBuf;

use async_trait::async_trait;

use crate::{
    AgentStream, ConnectError, ControlError, EngineProblem, ExitReason, LaunchError, MachineConfig,
    MemorySize, Origin, SaveError, SavedMachine,
};

/// What can execute a virtual machine on this host.
#[async_trait]
pub trait Engine: Debug + Send + Sync {
    /// The name that users see and give: `qemu`.
    fn name(&self) -> &'static str;

    /// Whether the guest's processor is emulated in software: many times slower than the host's own, and what
    /// holds the guest is the emulator, not the processor.
    fn emulates_cpu(&self) -> bool;

    /// Looks whether a machine could be launched here, without launching one. Takes tens of milliseconds.
    async fn check(&self) -> Result<EngineInfo, EngineProblem>;

    /// What machines that are saved here are saved as, and so which saved machines can go on here.
    async fn origin(&self) -> Result<Origin, EngineProblem>;

    /// Starts a machine, its guest running from the kernel's first instruction, or on from where it was saved. Must be called
    /// within a tokio runtime; the machine's events are handled by tasks of that runtime.
    async fn launch(&self, config: MachineConfig) -> Result<Box<dyn Machine>, LaunchError>;
}

/// What [`Engine::check`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineInfo {
    /// The program that will run.
    pub program: PathBuf,
    /// Its version, as it names it: `7.2.22`.
    pub version: String,
}

/// A machine that was launched. Dropping it kills and reaps whatever still runs.
///
/// All methods take `&self`, so that one task can wait for the end while others work with the machine.
#[async_trait]
pub trait Machine: Debug + Send + Sync {
    /// Opens the byte stream to the program in the guest that holds the port `cellule.agent`. May be called
    /// before that program runs: what is written waits for it. One stream is open at a time.
    ///
    /// Nothing separates a stream from the one before, or from the one that was open when the guest was saved: the guest may
    /// not have noticed that one's end, and either side may still get bytes of it. Whoever speaks over a stream finds its
    /// beginning by itself, such as behind a greeting that is never said twice. In return no time passes between two streams.
    ///
    /// A guest opens the port with `O_NONBLOCK`: a write that blocks while no host is there would do so until the next one.
    /// It may have the first bytes of a host before it sees that one is there, and finds no host to write to then: it waits
    /// for one before it reads, or before it takes its answer for unheard.
    async fn connect(&self) -> Result<AgentStream, ConnectError>;

    /// Stops all of the guest's processors. Its clock stands still as well. Pausing twice is no error.
    async fn pause(&self) -> Result<(), ControlError>;

    /// Lets a paused guest go on. Resuming a running one is no error.
    async fn resume(&self) -> Result<(), ControlError>;

    /// Saves a paused machine, which stays as it is. `memory` is a file of the caller's, which gets the pages that differ from
    /// what the machine's memory was at first: an empty one, or one with all of that memory, which has all of the machine's
    /// then. What disks hold is the caller's to keep too.
    ///
    /// A guest that is restored finds its port without a host, whether or not a stream was open when it was saved.
    async fn save(&self, memory: File) -> Result<SavedMachine, SaveError>;

    /// Copies into `memory` what a [`save`](Self::save) into it would have to now, while the guest runs. The save copies all of
    /// it again, for nobody knows what changes until then; but into a file that has the room for it already.
    async fn save_ahead(&self, memory: File) -> Result<(), SaveError>;

    /// Asks the guest to keep no more than `target` of its machine's memory, or lets it have that much again. It does so as
    /// fast as it can, and no further than it has memory to spare: [`memory`](Self::memory) tells. Copies of the machine go
    /// on with what was asked. What the guest frees by itself it gives back unasked.
    async fn set_memory(&self, target: MemorySize) -> Result<(), ControlError>;

    /// How many bytes of its machine's memory the guest has at present.
    async fn memory(&self) -> Result<u64, ControlError>;

    /// What the machine does now.
    fn state(&self) -> MachineState;

    /// Ends the machine at once, without asking the guest. The end is seen through [`Machine::wait`].
    fn kill(&self);

    /// Waits for the machine's end and says its reason: always the same, however often it is called. By then
    /// no process of the machine is left.
    async fn wait(&self) -> ExitReason;

    /// The last of what the guest wrote to its console: at most 64 KiB.
    fn console(&self) -> Vec<u8>;

    /// The host processes that execute this machine, for the accounting of memory. Empty after the end.
    fn processes(&self) -> Vec<HostProcess>;
}

/// What a machine does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MachineState {
    /// The guest's processors run.
    Running,
    /// They are stopped.
    Paused,
    /// It ended.
    Exited(ExitReason),
}

/// A process that executes (part of) a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostProcess {
    /// Its process id.
    pub pid: u32,
    /// What it does for the machine.
    pub role: ProcessRole,
}

/// What a host process does for a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessRole {
    /// Holds the guest's memory and runs its processors and devices.
    Vmm,
}
