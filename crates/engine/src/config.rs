//! What a machine is made of. Every value here is checked where it is made, not where it is used.

use std::fmt;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::thread;

use crate::SavedMachine;

/// Most disks that a machine may have. The smallest machine has places for eight devices, three of them taken: the agent's port,
/// the balloon and the network card.
pub const MAX_DISKS: usize = 5;
/// The longest frame of the network card, in bytes: its header, and the largest packet.
pub const FRAME_MAX: usize = 14 + 65_520;
/// What virtio gives a disk to name itself with, in bytes.
const SERIAL_MAX: usize = 20;
/// Most CPUs of one machine, however many the host has.
const CPUS_MAX: u16 = 64;
const MIB: u64 = 1 << 20;

/// What a machine is made of.
#[derive(Debug)]
pub struct MachineConfig {
    /// Where the guest begins.
    pub start: Start,
    /// How many CPUs the guest sees.
    pub cpus: CpuCount,
    /// How much memory the guest's machine has, its kernel's own included.
    pub memory: MemorySize,
    /// At most [`MAX_DISKS`]. The guest tells them apart by their serials, not by their order.
    pub disks: Vec<Disk>,
    /// The network card's end of a pair of Unix sockets (`SOCK_SEQPACKET`), which gets and gives the guest's Ethernet frames,
    /// one with each message, and none longer than [`FRAME_MAX`]. The card is there in any case; with the other end closed
    /// it is one that nobody hears.
    pub network: OwnedFd,
    /// A directory that is the caller's alone (mode 0700) and exists: sockets are made in it, and removed at the
    /// machine's end.
    pub dir: PathBuf,
    /// Where the whole of the console goes, if anywhere. Its last part is kept in memory in any case.
    pub console_log: Option<ConsoleLog>,
}

/// Where a guest begins.
#[derive(Debug)]
pub enum Start {
    /// At its kernel's first instruction.
    Boot(Kernel),
    /// Where a guest was saved: then all else here must be as it was for that one.
    Restore(Box<SavedMachine>),
}

/// What a guest boots from.
#[derive(Debug)]
pub struct Kernel {
    /// An uncompressed ELF kernel for x86-64 with a PVH entry.
    pub kernel: File,
    /// A cpio archive in the "newc" form, or several one after the other.
    pub initramfs: File,
    /// What is added to the kernel's command line; may be empty.
    pub cmdline: String,
}

/// A file for what the guest writes to its console. When it is full it becomes `<path>.1`, in place of the one
/// before, and a new one begins: so at most twice `limit` is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsoleLog {
    /// The file; appended to if it exists.
    pub path: PathBuf,
    /// How many bytes it may have.
    pub limit: u64,
}

/// A value that no machine can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No CPU, or more than this host can give.
    #[error("{asked} CPUs are asked for; it can be 1 to {max} on this host")]
    Cpus {
        /// How many were asked for.
        asked: u16,
        /// The most that can be.
        max: u16,
    },
    /// Less memory than the guest's kernel boots with.
    #[error("{asked} MiB of memory are asked for; the guest needs at least {min} MiB")]
    TooLittleMemory {
        /// How much was asked for, in MiB.
        asked: u32,
        /// The least that will do, in MiB.
        min: u32,
    },
    /// More memory than the host has.
    #[error("{asked} MiB of memory are asked for; this host has {max} MiB")]
    TooMuchMemory {
        /// How much was asked for, in MiB.
        asked: u32,
        /// What the host has, in MiB.
        max: u32,
    },
    /// A disk's serial is empty, too long, has other characters than letters, digits, `-` and `_`, or is another disk's.
    #[error("`{serial}` can't be a disk's serial")]
    Serial {
        /// The serial.
        serial: String,
    },
    /// More disks than there is room for.
    #[error("{asked} disks are asked for; a machine can have {MAX_DISKS}")]
    Disks {
        /// How many were asked for.
        asked: usize,
    },
    /// The kernel's command line is too long, or not plain ASCII.
    #[error("the kernel's command line is longer than {max} bytes or not plain ASCII")]
    Cmdline {
        /// How long it may be.
        max: usize,
    },
}

/// How many CPUs a guest sees: from 1 to what the host has, since more only wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CpuCount(u16);

impl CpuCount {
    /// One CPU.
    pub const ONE: Self = Self(1);

    /// Checks a number of CPUs against this host.
    ///
    /// # Errors
    /// [`ConfigError::Cpus`].
    pub fn new(count: u16) -> Result<Self, ConfigError> {
        let host = thread::available_parallelism().map_or(1, |n| u16::try_from(n.get()).unwrap_or(CPUS_MAX));
        Self::within(count, host.min(CPUS_MAX))
    }

    fn within(count: u16, max: u16) -> Result<Self, ConfigError> {
        if (1..=max).contains(&count) {
            Ok(Self(count))
        } else {
            Err(ConfigError::Cpus { asked: count, max })
        }
    }

    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }
}

/// How much memory a guest's machine has, in whole MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemorySize(u32);

impl MemorySize {
    /// The least that a guest boots with. Measured with Debian's cloud kernel 6.12: 72 MiB and an initramfs of 2 MB
    /// boot, 64 MiB panic, and with 56 MiB the kernel itself does not fit and the guest hangs without a word. The rest
    /// is room for a larger initramfs.
    pub const MIN: Self = Self(96);

    /// Checks an amount of memory, in MiB, against what the guest needs and what this host has.
    ///
    /// # Errors
    /// [`ConfigError::TooLittleMemory`], [`ConfigError::TooMuchMemory`].
    pub fn from_mib(mib: u32) -> Result<Self, ConfigError> {
        let info = rustix::system::sysinfo();
        let host = u64::from(info.mem_unit) * info.totalram / MIB;
        Self::within(mib, u32::try_from(host).unwrap_or(u32::MAX))
    }

    fn within(mib: u32, max: u32) -> Result<Self, ConfigError> {
        if mib < Self::MIN.0 {
            return Err(ConfigError::TooLittleMemory { asked: mib, min: Self::MIN.0 });
        }
        if mib > max {
            return Err(ConfigError::TooMuchMemory { asked: mib, max });
        }
        Ok(Self(mib))
    }

    /// The amount in MiB.
    pub fn mib(self) -> u32 {
        self.0
    }

    /// The amount in bytes.
    pub fn bytes(self) -> u64 {
        u64::from(self.0) * MIB
    }
}

impl fmt::Display for MemorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.0)
    }
}

/// A disk: a file opened by the caller. The engine's process gets the descriptor, never a path.
#[derive(Debug)]
pub struct Disk {
    pub(crate) file: File,
    pub(crate) read_only: bool,
    pub(crate) serial: String,
}

impl Disk {
    /// A disk that the guest can only read. `file` must be open for reading, and its size a multiple of 512 bytes.
    /// The guest finds `serial` in `/sys/block/*/serial`.
    ///
    /// # Errors
    /// [`ConfigError::Serial`].
    pub fn read_only(file: File, serial: &str) -> Result<Self, ConfigError> {
        Ok(Self { file, read_only: true, serial: checked_serial(serial)? })
    }

    /// A disk that the guest can write to. `file` must be open for reading and writing.
    ///
    /// # Errors
    /// [`ConfigError::Serial`].
    pub fn writable(file: File, serial: &str) -> Result<Self, ConfigError> {
        Ok(Self { file, read_only: false, serial: checked_serial(serial)? })
    }
}

fn checked_serial(serial: &str) -> Result<String, ConfigError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if (1..=SERIAL_MAX).contains(&serial.len()) && serial.bytes().all(plain) {
        Ok(serial.to_owned())
    } else {
        Err(ConfigError::Serial { serial: serial.to_owned() })
    }
}

impl MachineConfig {
    /// Checks what concerns more than one of the parts.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.disks.len() > MAX_DISKS {
            return Err(ConfigError::Disks { asked: self.disks.len() });
        }
        for (at, disk) in self.disks.iter().enumerate() {
            if self.disks[..at].iter().any(|other| other.serial == disk.serial) {
                return Err(ConfigError::Serial { serial: disk.serial.clone() });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cpu_and_too_many_cpus_are_refused() {
        assert_eq!(CpuCount::within(0, 4), Err(ConfigError::Cpus { asked: 0, max: 4 }));
        assert_eq!(CpuCount::within(5, 4), Err(ConfigError::Cpus { asked: 5, max: 4 }));
        assert_eq!(CpuCount::within(4, 4).map(CpuCount::get), Ok(4));
        assert_eq!(CpuCount::new(1), Ok(CpuCount::ONE));
    }

    #[test]
    fn sixteen_mib_are_refused_with_the_least_that_will_do() {
        let least = MemorySize::MIN.mib();
        assert_eq!(MemorySize::from_mib(16), Err(ConfigError::TooLittleMemory { asked: 16, min: least }));
        assert_eq!(MemorySize::within(least, 4096), Ok(MemorySize::MIN));
        assert_eq!(
            MemorySize::within(4097, 4096),
            Err(ConfigError::TooMuchMemory { asked: 4097, max: 4096 })
        );
    }

    #[test]
    fn a_serial_that_could_be_read_as_an_option_is_refused() {
        for bad in ["", "a,b", "a=b", "rootfs\n", "ünder", &"x".repeat(21)] {
            assert!(matches!(checked_serial(bad), Err(ConfigError::Serial { .. })), "{bad:?}");
        }
        assert_eq!(checked_serial("rootfs-0"), Ok("rootfs-0".to_owned()));
    }

    #[test]
    fn two_disks_with_one_serial_are_refused() -> std::io::Result<()> {
        let null = || File::open("/dev/null");
        let config = MachineConfig {
            start: Start::Boot(Kernel { kernel: null()?, initramfs: null()?, cmdline: String::new() }),
            cpus: CpuCount::ONE,
            memory: MemorySize::MIN,
            disks: vec![
                Disk::read_only(null()?, "a").expect("a good serial"),
                Disk::writable(null()?, "a").expect("a good serial"),
            ],
            network: null()?.into(),
            dir: PathBuf::from("/"),
            console_log: None,
        };
        assert_eq!(config.check(), Err(ConfigError::Serial { serial: "a".to_owned() }));
        Ok(())
    }
}
