//! QEMU's command line: the whole machine, and nothing that it doesn't need.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::process::{Limits, Spec};
use crate::{CpuCount, DEVICES_MAX, Disk, MemorySize};

/// The name of the port in the guest, as `/sys/class/virtio-ports/*/name` shows it.
pub(super) const PORT_NAME: &str = "cellule.agent";
/// QEMU's own name for what is behind the port.
pub(super) const PORT_CHARDEV: &str = "agent";
/// What QEMU writes the state of processors and devices to.
pub(super) const STATE_FILE: &str = "/dev/fdset/16";
const STATE_SET: u32 = 16;
/// The machine. Without `rtc` the kernel waits twice for a second for a clock; without `pit` and `pic` it finds no timer.
/// ACPI describes the devices: Debian's kernels take no description from the command line.
const MACHINE: &str =
    "microvm,acpi=on,rtc=on,pit=on,pic=on,isa-serial=on,x-option-roms=off,mem-merge=off,dump-guest-core=off";
/// What the guest gives memory back through: what it has freed by itself, and what it is asked for (see `filter`). A page
/// that comes back has the base's bytes: without `page-poison` a kernel that counts on zeros there reports none.
const BALLOON: &str = "virtio-balloon-device,id=balloon,free-page-reporting=on,page-poison=off";
/// The network card, with little for a guest to set up: no control queue, so that each frame is let through and an address is
/// set by writing it; no state of its link. What a frame's other end would have to finish (checksums, segments) there is no
/// word for on the socket. Frames are as large as IP has them, each costing about the same, and come in as many of the
/// guest's buffers as it takes.
const CARD: &str = "virtio-net-device,netdev=net,mac=02:00:00:00:00:02,host_mtu=65520,mrg_rxbuf=on,status=off,ctrl_vq=off,\
     ctrl_rx=off,ctrl_rx_extra=off,ctrl_vlan=off,ctrl_mac_addr=off,ctrl_guest_offloads=off,guest_announce=off,mq=off";
/// The processor: x86-64-v2. AVX and xsave would make each of the guest's context switches dearer to emulate, and a model
/// with a name stays the same whatever the host and QEMU's version. RDRAND seeds the guest's random numbers.
const CPU: &str = "Nehalem-v1,+rdrand,+arat";
/// The cache of translated code, in MiB: it only takes the memory that it fills, some 40 MiB in a boot, and starts
/// anew when it is full.
const TRANSLATIONS: u64 = 128;
/// How many requests of one disk can be in the air. Each takes a stack of [`REQUEST`] bytes in QEMU.
const QUEUE: u64 = 64;
const REQUEST: u64 = 5 << 18;
/// The stack of a thread. QEMU has up to [`THREADS`] for disks, and one for each CPU.
const STACK: u64 = 2 << 20;
const THREADS: u64 = 64;
/// What QEMU needs beside all that: 100 MiB of private memory measured, and 220 MiB of address space for its
/// libraries and the mapped kernel, once more in reserve for heaps of threads.
const OVERHEAD_DATA: u64 = 192 << 20;
const OVERHEAD_ADDRESS_SPACE: u64 = 768 << 20;
/// Open descriptors at a time.
const FILES: u64 = 128;

/// The ends of the channels that QEMU gets.
#[derive(Debug)]
pub(super) struct Channels {
    /// Connected; QMP.
    pub(super) control: OwnedFd,
    /// Connected; the first serial port.
    pub(super) console: OwnedFd,
    /// Listening; the agent's port.
    pub(super) agent: OwnedFd,
    /// The card's frames.
    pub(super) network: OwnedFd,
    /// A file open for writing: see [`STATE_FILE`].
    pub(super) state: OwnedFd,
}

/// What the machine has.
#[derive(Debug)]
pub(super) struct Hardware {
    pub(super) cpus: CpuCount,
    pub(super) memory: MemorySize,
    /// What the memory holds at first: a file as long as it, which QEMU maps privately.
    pub(super) base: File,
    pub(super) disks: Vec<Disk>,
    pub(super) dir: PathBuf,
}

/// Where the guest begins.
#[derive(Debug)]
pub(super) enum Begin {
    Boot {
        kernel: File,
        initramfs: File,
        cmdline: String,
    },
    /// At what it will be told to load.
    Restore {
        devices: OwnedFd,
    },
}

impl Begin {
    /// The number of the descriptor that the devices' state is read from.
    pub(super) fn incoming(&self) -> Option<i32> {
        match self {
            Self::Boot { .. } => None,
            Self::Restore { devices } => Some(devices.as_raw_fd()),
        }
    }
}

/// What the machine and the processor are called, for machines that are saved.
pub(super) fn describe() -> String {
    format!("{MACHINE} {BALLOON} {CARD} {CPU}")
}

/// What is to be started for a machine.
pub(super) fn spec(
    program: PathBuf,
    hardware: Hardware,
    begin: Begin,
    channels: Channels,
) -> io::Result<Spec> {
    let limits = limits(&hardware)?;
    // What a boot begins with are zeros, which holes are too.
    let shares_memory = begin.incoming().is_some();
    let mut descriptors = Descriptors::default();
    let Channels { control, console, agent, network, state } = channels;
    let (control, console, agent) =
        (descriptors.add(control), descriptors.add(console), descriptors.add(agent));
    let network = descriptors.add(network);
    let (state, base) = (descriptors.add(state), descriptors.add(hardware.base));
    let size = hardware.memory.mib();

    let mut arguments = Arguments::default();
    arguments
        // For people who look at the host's processes.
        .option("-name", &name(&hardware.dir))
        // Nothing that is not named here.
        .flag("-nodefaults")
        .flag("-no-user-config")
        .option("-display", "none")
        // Its own system call filter. None of what it denies is needed, several translating threads included.
        .option("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")
        // A guest's reset, and so its panic, ends QEMU.
        .flag("-no-reboot")
        .option("-machine", &format!("{MACHINE},memory-backend=ram"))
        .option("-accel", &format!("tcg,thread=multi,tb-size={TRANSLATIONS}"))
        .option("-cpu", CPU)
        .option("-smp", &format!("cpus={}", hardware.cpus.get()))
        .option("-m", &format!("size={size}M"))
        // Private, so that the kernel keeps what the guest changes apart from what it shares with others.
        .option(
            "-object",
            &format!("memory-backend-file,id=ram,size={size}M,mem-path=/proc/self/fd/{base},share=off"),
        )
        .option("-add-fd", &format!("fd={state},set={STATE_SET}"));
    match begin {
        Begin::Boot { kernel, initramfs, cmdline } => {
            let (kernel, initramfs) = (descriptors.add(kernel), descriptors.add(initramfs));
            arguments
                .option("-kernel", &format!("/proc/self/fd/{kernel}"))
                .option("-initrd", &format!("/proc/self/fd/{initramfs}"))
                .option("-append", &cmdline)
                // Stopped until its control channel is heard, so that no event is missed.
                .flag("-S");
        }
        Begin::Restore { devices } => {
            // Its number is told over the control channel.
            descriptors.add(devices);
            // The state of devices alone has no section for the configuration.
            arguments.option("-incoming", "defer").option("-global", "migration.send-configuration=off");
        }
    }
    arguments
        .option("-chardev", &format!("socket,id=control,fd={control}"))
        .option("-mon", "chardev=control,mode=control")
        .option("-chardev", &format!("socket,id=console,fd={console}"))
        .option("-serial", "chardev:console")
        .option("-chardev", &format!("socket,id={PORT_CHARDEV},fd={agent},server=on,wait=off"))
        .option("-device", "virtio-serial-device,id=ports,max_ports=2")
        .option(
            "-device",
            &format!("virtserialport,bus=ports.0,nr=1,chardev={PORT_CHARDEV},name={PORT_NAME}"),
        )
        .option("-device", BALLOON)
        // Not `stream`, which loses its place in a frame that it has half written when the machine stops, and aborts.
        .option("-netdev", &format!("dgram,id=net,local.type=fd,local.str={network}"))
        .option("-device", CARD);
    for (at, disk) in hardware.disks.into_iter().enumerate() {
        let read_only = if disk.read_only { "on" } else { "off" };
        let file = descriptors.add(if disk.read_only { readable_only(disk.file)? } else { disk.file });
        arguments
            .option("-add-fd", &format!("fd={file},set={at}"))
            // The file is the caller's to lock; QEMU has no path to open it by once more.
            .option(
                "-blockdev",
                &format!(
                    "driver=raw,node-name=disk{at},read-only={read_only},auto-read-only=off,discard=ignore,\
                     file.driver=file,file.filename=/dev/fdset/{at},file.locking=off"
                ),
            )
            .option(
                "-device",
                &format!(
                    // A host's full disk is the guest's error, and not a reason to stop it. No holes: see `filter`.
                    "virtio-blk-device,drive=disk{at},queue-size={QUEUE},serial={},discard=off,write-zeroes=off,\
                     werror=report,rerror=report",
                    disk.serial
                ),
            );
    }
    Ok(Spec { program, arguments: arguments.0, descriptors: descriptors.0, limits, shares_memory })
}

/// A machine is named after its directory, as far as that is a name: in QEMU's options a comma means more.
fn name(dir: &Path) -> String {
    let plain = |c: &char| c.is_ascii_alphanumeric() || *c == '-' || *c == '_';
    dir.file_name().unwrap_or_default().to_string_lossy().chars().filter(plain).collect()
}

/// Limits that no guest makes QEMU reach, whatever it does with the devices it has; since QEMU ends when it does.
fn limits(hardware: &Hardware) -> io::Result<Limits> {
    let threads = THREADS + u64::from(hardware.cpus.get());
    let requests = QUEUE * hardware.disks.len() as u64;
    let data =
        hardware.memory.bytes() + (TRANSLATIONS << 20) + threads * STACK + requests * REQUEST + OVERHEAD_DATA;
    Ok(Limits {
        data,
        address_space: data + OVERHEAD_ADDRESS_SPACE,
        stack: STACK,
        file_size: largest_written(&hardware.disks)?.max(DEVICES_MAX as u64),
        files: FILES,
    })
}

/// QEMU takes a descriptor for a disk only if it is open for just what the disk is for. So should it be.
fn readable_only(file: File) -> io::Result<File> {
    match rustix::fs::fcntl_getfl(&file)? & OFlags::RWMODE {
        OFlags::RDONLY => Ok(file),
        _ => File::open(format!("/proc/self/fd/{}", file.as_raw_fd())),
    }
}

/// The size of the largest disk that the guest may write to: none grows.
fn largest_written(disks: &[Disk]) -> io::Result<u64> {
    let mut largest = 0;
    for disk in disks.iter().filter(|disk| !disk.read_only) {
        largest = largest.max(disk.file.metadata()?.len());
    }
    Ok(largest)
}

/// Descriptors for the process, which keep their numbers there.
#[derive(Default)]
struct Descriptors(Vec<OwnedFd>);

impl Descriptors {
    fn add(&mut self, descriptor: impl Into<OwnedFd>) -> i32 {
        let descriptor = descriptor.into();
        let number = descriptor.as_raw_fd();
        self.0.push(descriptor);
        number
    }
}

#[derive(Default)]
struct Arguments(Vec<String>);

impl Arguments {
    fn flag(&mut self, flag: &str) -> &mut Self {
        self.0.push(flag.to_owned());
        self
    }

    fn option(&mut self, name: &str, value: &str) -> &mut Self {
        self.flag(name).flag(value)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::{CpuCount, MemorySize};

    fn spec_with(disks: Vec<Disk>) -> io::Result<Spec> {
        let null = || File::open("/dev/null");
        let end = || UnixStream::pair().map(|(end, _)| OwnedFd::from(end));
        let hardware = Hardware {
            cpus: CpuCount::ONE,
            memory: MemorySize::MIN,
            base: null()?,
            disks,
            dir: PathBuf::from("/"),
        };
        let begin = Begin::Boot { kernel: null()?, initramfs: null()?, cmdline: "quiet, or not".to_owned() };
        let channels =
            Channels { control: end()?, console: end()?, agent: end()?, network: end()?, state: end()? };
        spec(PathBuf::from("qemu"), hardware, begin, channels)
    }

    #[test]
    fn no_path_of_the_host_is_given_to_qemu() -> io::Result<()> {
        let spec =
            spec_with(vec![Disk::read_only(File::open("/dev/null")?, "root").expect("a good serial")])?;
        for argument in &spec.arguments {
            for part in argument.split(['=', ',']).filter(|part| part.starts_with('/')) {
                assert!(part.starts_with("/proc/self/fd/") || part.starts_with("/dev/fdset/"), "{argument}");
            }
        }
        Ok(())
    }

    #[test]
    fn every_descriptor_that_is_named_is_given() -> io::Result<()> {
        let spec =
            spec_with(vec![Disk::read_only(File::open("/dev/null")?, "root").expect("a good serial")])?;
        let line = spec.arguments.join(" ");
        assert_eq!(spec.descriptors.len(), 9);
        for descriptor in &spec.descriptors {
            let number = descriptor.as_raw_fd();
            assert!(
                line.contains(&format!("fd={number}"))
                    || line.contains(&format!(".str={number} "))
                    || line.contains(&format!("/fd/{number} "))
                    || line.contains(&format!("/fd/{number},")),
                "{number} in {line}"
            );
        }
        Ok(())
    }

    #[test]
    fn no_file_may_be_written_that_is_larger_than_a_disk_or_the_devices_state() -> io::Result<()> {
        let file = tempfile::tempfile()?;
        let large = 4 * DEVICES_MAX as u64;
        file.set_len(large)?;
        let disk = |read_only| -> io::Result<Vec<Disk>> {
            let file = file.try_clone()?;
            let made = if read_only { Disk::read_only(file, "d") } else { Disk::writable(file, "d") };
            Ok(vec![made.expect("a good serial")])
        };
        assert_eq!(spec_with(disk(true)?)?.limits.file_size, DEVICES_MAX as u64);
        assert_eq!(spec_with(disk(false)?)?.limits.file_size, large);
        Ok(())
    }
}
