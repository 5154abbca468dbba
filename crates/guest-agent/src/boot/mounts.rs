//! Owns what is mounted besides the root: what the kernel's drivers need first, and what an image's programs expect.

use std::ffi::CStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::mount::{MountFlags, mount};

use crate::cgroup;
use crate::fault::{Context, Fault, report};

type Step = (&'static str, fn() -> Result<(), Fault>);

/// What a container has, in the order in which one needs the other.
pub(super) const CONTAINER: [Step; 5] =
    [("proc", proc), ("sys", sys), ("dev", dev), ("cgroup2", cgroup2), ("tmp and run", tmp_and_run)];

const DEVICE: MountFlags = MountFlags::NOSUID.union(MountFlags::NOEXEC);
const INERT: MountFlags = DEVICE.union(MountFlags::NODEV);

/// Major and minor numbers of the devices that every container has.
const NODES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];
const LINKS: [(&str, &str); 5] = [
    ("pts/ptmx", "/dev/ptmx"),
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
];

/// The initramfs's own: devices and their descriptions.
pub(super) fn for_the_kernel() -> Result<(), Fault> {
    on("/dev", "devtmpfs", MountFlags::NOSUID, c"mode=0755")?;
    on("/sys", "sysfs", INERT, c"")
}

fn proc() -> Result<(), Fault> {
    on("/proc", "proc", INERT, c"")?;
    // As Docker: ping and low ports need no privilege in a machine of one's own.
    for (name, value) in [("ping_group_range", "0 2147483647"), ("ip_unprivileged_port_start", "0")] {
        // A kernel without a network has neither.
        let _absent = fs::write(Path::new("/proc/sys/net/ipv4").join(name), value);
    }
    Ok(())
}

fn sys() -> Result<(), Fault> {
    on("/sys", "sysfs", INERT, c"")
}

/// A tmpfs with the few nodes of a container rather than all of the machine's: neither the disks nor the agent's port
/// are offered to programs.
fn dev() -> Result<(), Fault> {
    on("/dev", "tmpfs", MountFlags::NOSUID, c"mode=755,size=64k,nr_inodes=1k")?;
    for (path, major, minor) in NODES {
        mknodat(CWD, path, FileType::CharacterDevice, Mode::from_raw_mode(0o666), makedev(major, minor))
            .context(format_args!("make {path}"))?;
        // The mode above went through the umask.
        fs::set_permissions(path, Permissions::from_mode(0o666))
            .context(format_args!("open {path} to all"))?;
    }
    for (target, path) in LINKS {
        symlink(target, path).context(format_args!("link {path}"))?;
    }
    on("/dev/pts", "devpts", DEVICE, c"newinstance,ptmxmode=0666,mode=620,gid=5")?;
    on("/dev/shm", "tmpfs", INERT, c"mode=1777,size=64m")?;
    // The only one that a kernel may come without.
    if let Err(fault) = on("/dev/mqueue", "mqueue", INERT, c"") {
        report(fault);
    }
    Ok(())
}

fn cgroup2() -> Result<(), Fault> {
    on(cgroup::MOUNT_POINT, "cgroup2", INERT, c"")
}

/// Both stay the image's own: what it put there, as a database's socket directory, must stay visible.
fn tmp_and_run() -> Result<(), Fault> {
    directory("/run")?;
    if directory("/tmp")? {
        fs::set_permissions("/tmp", Permissions::from_mode(0o1777)).context("open /tmp to all")?;
    }
    Ok(())
}

fn on(target: &str, kind: &str, flags: MountFlags, options: &CStr) -> Result<(), Fault> {
    directory(target)?;
    mount(kind, target, kind, flags, options).context(format_args!("mount {kind} on {target}"))
}

/// Makes a directory where there is none; returns whether it made one. What is no directory gives way.
fn directory(path: &str) -> Result<bool, Fault> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Ok(false),
        Ok(_) => fs::remove_file(path).context(format_args!("replace {path}"))?,
        Err(_) => {
            // A link to nowhere is in the way; nothing at all is not.
            let _nothing = fs::remove_file(path);
        }
    }
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path).context(format_args!("make {path}"))?;
    Ok(true)
}
