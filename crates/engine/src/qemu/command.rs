//! QEMU's command line: the whole machine, and nothing that it doesn't need.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::process::{Limits, Spec};
use crate::{Disk, MachineConfig};

/// The name of the port in the guest, as `/sys/class/virtio-ports/*/name` shows it.
pub(super) const PORT_NAME: &str = "cellule.agent";
/// QEMU's own name for what is behind the port.
pub(super) const PORT_CHARDEV: &str = "agent";
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
}

/// What is to be started for a machine. `cmdline` is the guest kernel's.
pub(super) fn spec(
    program: PathBuf,
    machine: MachineConfig,
    channels: Channels,
    cmdline: &str,
) -> io::Result<Spec> {
    let limits = limits(&machine)?;
    let mut descriptors = Descriptors::default();
    let Channels { control, console, agent } = channels;
    let (control, console, agent) =
        (descriptors.add(control), descriptors.add(console), descriptors.add(agent));
    let (kernel, initramfs) = (descriptors.add(machine.kernel), descriptors.add(machine.initramfs));

    let mut arguments = Arguments::default();
    arguments
        // For people who look at the host's processes.
        .option("-name", &name(&machine.dir))
        // Nothing that is not named here.
        .flag("-nodefaults")
        .flag("-no-user-config")
        .option("-display", "none")
        // Its own system call filter. None of what it denies is needed, several translating threads included.
        .option("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")
        // A guest's reset, and so its panic, ends QEMU.
        .flag("-no-reboot")
        // Without `rtc` the kernel waits twice for a second for a clock; without `pit` and `pic` it finds no timer.
        // ACPI describes the devices: Debian's kernels take no description from the command line.
        .option(
            "-machine",
            "microvm,acpi=on,rtc=on,pit=on,pic=on,isa-serial=on,x-option-roms=off,mem-merge=off,dump-guest-core=off",
        )
        .option("-accel", &format!("tcg,thread=multi,tb-size={TRANSLATIONS}"))
        // x86-64-v2. AVX and xsave would make each of the guest's context switches dearer to emulate, and a model
        // with a name stays the same whatever the host and QEMU's version. RDRAND seeds the guest's random numbers.
        .option("-cpu", "Nehalem-v1,+rdrand,+arat")
        .option("-smp", &format!("cpus={}", machine.cpus.get()))
        .option("-m", &format!("size={}M", machine.memory.mib()))
        .option("-kernel", &format!("/proc/self/fd/{kernel}"))
        .option("-initrd", &format!("/proc/self/fd/{initramfs}"))
        .option("-append", cmdline)
        // Stopped until its control channel is heard, so that no event is missed.
        .flag("-S")
        .option("-chardev", &format!("socket,id=control,fd={control}"))
        .option("-mon", "chardev=control,mode=control")
        .option("-chardev", &format!("socket,id=console,fd={console}"))
        .option("-serial", "chardev:console")
        .option("-chardev", &format!("socket,id={PORT_CHARDEV},fd={agent},server=on,wait=off"))
        .option("-device", "virtio-serial-device,id=ports,max_ports=2")
        .option("-device", &format!("virtserialport,bus=ports.0,nr=1,chardev={PORT_CHARDEV},name={PORT_NAME}"));
    for (at, disk) in machine.disks.into_iter().enumerate() {
        let read_only = if disk.read_only { "on" } else { "off" };
        let file = descriptors.add(if disk.read_only { readable_only(disk.file)? } else { disk.file });
        arguments
            .option("-add-fd", &format!("fd={file},set={at}"))
            // The file is the caller's to lock; QEMU has no path to open it by once more.
            .option(
                "-blockdev",
                &format!(
                    "driver=raw,node-name=disk{at},read-only={read_only},auto-read-only=off,discard=unmap,\
                     file.driver=file,file.filename=/dev/fdset/{at},file.locking=off"
                ),
            )
            .option(
                "-device",
                &format!("virtio-blk-device,drive=disk{at},queue-size={QUEUE},serial={}", disk.serial),
            );
    }
    Ok(Spec { program, arguments: arguments.0, descriptors: descriptors.0, limits })
}

/// A machine is named after its directory, as far as that is a name: in QEMU's options a comma means more.
fn name(dir: &Path) -> String {
    let plain = |c: &char| c.is_ascii_alphanumeric() || *c == '-' || *c == '_';
    dir.file_name().unwrap_or_default().to_string_lossy().chars().filter(plain).collect()
}

/// Limits that no guest makes QEMU reach, whatever it does with the devices it has; since QEMU ends when it does.
fn limits(machine: &MachineConfig) -> io::Result<Limits> {
    let threads = THREADS + u64::from(machine.cpus.get());
    let requests = QUEUE * machine.disks.len() as u64;
    let data =
        machine.memory.bytes() + (TRANSLATIONS << 20) + threads * STACK + requests * REQUEST + OVERHEAD_DATA;
    Ok(Limits {
        data,
        address_space: data + OVERHEAD_ADDRESS_SPACE,
        stack: STACK,
        file_size: largest_written(&machine.disks)?,
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

/// The size of the largest file that the guest may write to: no disk grows, and QEMU writes no file of its own.
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
        let machine = MachineConfig {
            kernel: null()?,
            initramfs: null()?,
            cpus: CpuCount::ONE,
            memory: MemorySize::MIN,
            disks,
            dir: PathBuf::from("/"),
            cmdline: String::new(),
            console_log: None,
        };
        let channels = Channels { control: end()?, console: end()?, agent: end()? };
        spec(PathBuf::from("qemu"), machine, channels, "quiet, or not")
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
        assert_eq!(spec.descriptors.len(), 6);
        for descriptor in &spec.descriptors {
            let number = descriptor.as_raw_fd();
            assert!(
                line.contains(&format!("fd={number}")) || line.contains(&format!("/fd/{number} ")),
                "{number} in {line}"
            );
        }
        Ok(())
    }

    #[test]
    fn without_a_writable_disk_no_file_may_be_written() -> io::Result<()> {
        let file = tempfile::tempfile()?;
        file.set_len(4096)?;
        let disk = |read_only| -> io::Result<Vec<Disk>> {
            let file = file.try_clone()?;
            let made = if read_only { Disk::read_only(file, "d") } else { Disk::writable(file, "d") };
            Ok(vec![made.expect("a good serial")])
        };
        assert_eq!(spec_with(disk(true)?)?.limits.file_size, 0);
        assert_eq!(spec_with(disk(false)?)?.limits.file_size, 4096);
        Ok(())
    }
}
