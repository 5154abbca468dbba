//! What executes a virtual machine: the [`Engine`] trait and its drivers.
//!
//! An engine takes a kernel, an initramfs, disks, CPUs and memory, and gives a running [`Machine`]: byte
//! streams to the program inside, a console, pause and resume, and the reason of its end. It must never know
//! of images, of the agent's protocol, or of sandboxes; and its callers must never ask which engine it is.
//!
//! ```text
//!              launch                      the guest, the engine or the caller ends it
//!   (nothing) ───────▶ Running ─────────────────────────────────────────────▶ Exited(reason)
//!                      │    ▲                                                      ▲
//!                pause ▼    │ resume                                               │
//!                      Paused ─────────────────────────────────────────────────────┘
//!                       │  ▲
//!                       └──┘ save ──▶ a SavedMachine, from which any number can be launched
//! ```
//! A launch that fails leaves nothing behind; nor does a machine that exited or was dropped.
//!
//! Drivers: [`qemu`], which emulates the processor (TCG) and so needs no KVM, no module and no root.

mod choice;
mod config;
mod console;
mod engine;
mod error;
mod exit;
mod kernel;
pub mod kvm;
pub mod qemu;
mod saved;
mod stream;

pub use choice::{ChoiceError, EngineChoice};
pub use config::{
    ConfigError, ConsoleLog, CpuCount, Disk, FRAME_MAX, Kernel, MAX_DISKS, MachineConfig, MemorySize, Start,
};
pub use engine::{Engine, EngineInfo, HostProcess, Machine, MachineState, ProcessRole};
pub use error::{ConnectError, ControlError, EngineProblem, LaunchError, SaveError};
pub use exit::ExitReason;
pub use kernel::KernelProblem;
pub use saved::{DEVICES_MAX, InvalidPages, Mismatch, Origin, PAGE, PageRange, Pages, SavedMachine};
pub use stream::AgentStream;
