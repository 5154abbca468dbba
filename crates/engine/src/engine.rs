//! The two traits that every driver implements.

use std::fmt::Debug;
use std::path::PathBuf;

use async_trait::async_trait;

use crate::{AgentStream, ConnectError, ControlError, EngineProblem, ExitReason, LaunchError, MachineConfig};

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

    /// Starts a machine, its guest running from the kernel's first instruction. Must be called within a tokio
    /// runtime; the machine's events are handled by tasks of that runtime.
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
    /// before that program runs: what is written waits for it. One stream is open at a time, and each is a
    /// session of its own: the guest sees the end of the former before the next begins.
    ///
    /// The guest's side of this contract:
    /// - at the end of file, or a hang-up, it closes the port, waits some 20 ms, and opens it again, until it finds
    ///   the host there (`poll` without `POLLHUP`);
    /// - it opens the port with `O_NONBLOCK`: a write that blocks while the host is away would do so until the next
    ///   session, which waits for the end of this one;
    /// - it speaks first in each session, so that nothing of ours is on its way while it closes the former one.
    async fn connect(&self) -> Result<AgentStream, ConnectError>;

    /// Stops all of the guest's processors. Its clock stands still as well. Pausing twice is no error.
    async fn pause(&self) -> Result<(), ControlError>;

    /// Lets a paused guest go on. Resuming a running one is no error.
    async fn resume(&self) -> Result<(), ControlError>;

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
