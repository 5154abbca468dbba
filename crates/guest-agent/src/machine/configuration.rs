//! Owns how the image's processes see the machine: its name, what tells it from others, files of /etc, and what is writable.
//!
//! Applying a configuration again changes what differs and no more, for every session brings one.

use std::collections::HashSet;
use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use cellule_protocol::network::{INTERFACE, Mac};
use cellule_protocol::v1::{Configuration, Tmpfs};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, mount, mount_remount, move_mount, open_tree};

use super::trust::{self, Trusted};
use crate::fault::{Context, Fault};
use crate::interface;

/// What earlier sessions applied.
#[derive(Debug, Default)]
pub(super) struct Configured {
    mounted: HashSet<PathBuf>,
    read_only: bool,
    trusted: Trusted,
}

impl Configured {
    /// Where something was put over the root filesystem.
    pub(super) fn mounted(&self) -> impl Iterator<Item = &Path> {
        self.mounted.iter().map(PathBuf::as_path)
    }
}

/// Applies each part, and tells of each whether it went well.
pub(super) fn apply(
    wanted: &Configuration,
    configured: &mut Configured,
    files: Option<&OwnedFd>,
    mut note: impl FnMut(Result<(), Fault>),
) {
    let hostname = wanted.hostname.as_bytes();
    if !hostname.is_empty() {
        note(
            rustix::system::sethostname(hostname)
                .context(format_args!("set the host name {:?}", wanted.hostname)),
        );
    }
    if let Ok(mac) = Mac::try_from(wanted.mac.as_slice()) {
        // Each further time is another copy's.
        note(interface::set_mac(INTERFACE, mac));
    } else if !wanted.mac.is_empty() {
        note(Err(Fault::new(format!("a hardware address has six bytes and not {}", wanted.mac.len()))));
    }
    // Without a root filesystem there is nothing to put files into, and the boot has said so.
    let Some(files) = files else { return };
    let line = |text: &[u8]| if text.is_empty() { Vec::new() } else { [text, b"\n"].concat() };
    let over = [
        ("hostname", "/etc/hostname", line(hostname)),
        ("hosts", "/etc/hosts", wanted.hosts.clone()),
        ("resolv.conf", "/etc/resolv.conf", wanted.resolv_conf.clone()),
        ("machine-id", "/etc/machine-id", line(wanted.machine_id.as_bytes())),
        ("boot-id", "/proc/sys/kernel/random/boot_id", line(wanted.boot_id.as_bytes())),
    ];
    // All that needs directories or files made comes before the root may refuse them. A root that refuses them already is
    // opened only if there is something to make, for programs may be running.
    let files_over = over.iter().filter(|(.., contents)| !contents.is_empty());
    let files_over = files_over.map(|(_, target, _)| PathBuf::from(target));
    let tmpfs = wanted.tmpfs.iter().map(|tmpfs| PathBuf::from(OsStr::from_bytes(&tmpfs.path)));
    let trusted = trust::files(&wanted.authorities);
    let something_to_make =
        files_over.chain(tmpfs).chain(trusted).any(|path| !configured.mounted.contains(&path));
    if configured.read_only && (something_to_make || !wanted.read_only) {
        note(set_read_only(false));
        configured.read_only = false;
    }
    for (name, target, contents) in over.into_iter().filter(|(.., contents)| !contents.is_empty()) {
        let result = replace(files, name, Path::new(target), &contents, configured);
        note(result.context(format_args!("provide {target}")));
    }
    // A copy of a machine whose sandbox had some may have none.
    if !wanted.authorities.is_empty() || trust::is_provided(configured.mounted()) {
        let mut trusted = std::mem::take(&mut configured.trusted);
        let provided = trust::provide(files, &wanted.authorities, &mut trusted, configured);
        configured.trusted = trusted;
        note(provided.context("provide certificates of authorities"));
    }
    for tmpfs in &wanted.tmpfs {
        let result = mount_tmpfs(tmpfs, configured);
        note(result.context(format_args!("mount a tmpfs on {}", String::from_utf8_lossy(&tmpfs.path))));
    }
    if wanted.read_only && !configured.read_only {
        for path in ["/tmp", "/run"] {
            note(keep_writable(path, configured).context(format_args!("keep {path} writable")));
        }
        let result = set_read_only(true);
        configured.read_only = result.is_ok();
        note(result);
    }
}

/// Writes a file of the agent's and puts it over the image's, by a mount: it works whatever the image has there, and
/// stays writable where the root is not, as in a container.
///
/// It is the same file for as long as the machine is, copies of the machine included, so that it can be watched; and no
/// moment sees it empty.
pub(super) fn replace(
    files: &OwnedFd,
    name: &str,
    target: &Path,
    contents: &[u8],
    configured: &mut Configured,
) -> Result<(), Fault> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::openat(files, name, flags, Mode::from_raw_mode(0o644)).context("open")?;
    let mut file = File::from(file);
    file.write_all(contents).context("write")?;
    file.set_len(contents.len() as u64).context("cut")?;
    if configured.mounted.contains(target) {
        return Ok(());
    }
    let plain = fs::symlink_metadata(target).is_ok_and(|found| found.is_file());
    if !plain {
        fs::DirBuilder::new().recursive(true).mode(0o755).create("/etc").context("make /etc")?;
        let _nothing = fs::remove_file(target);
        File::create_new(target).context("make a place for it")?;
    }
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(files.as_fd(), name, clone).context("clone")?;
    move_mount(tree.as_fd(), "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).context("mount")?;
    configured.mounted.insert(target.to_owned());
    Ok(())
}

fn set_read_only(read_only: bool) -> Result<(), Fault> {
    let flags = if read_only { MountFlags::RDONLY } else { MountFlags::empty() };
    mount_remount("/", flags | MountFlags::BIND, "")
        .context("change whether the root filesystem is read-only")
}

/// A read-only root gets a tmpfs where programs must write, unless the image itself has something there to read.
fn keep_writable(path: &str, configured: &mut Configured) -> Result<(), Fault> {
    let path = Path::new(path);
    let empty = fs::read_dir(path).context("list")?.next().is_none();
    if !empty || configured.mounted.contains(path) {
        return Ok(());
    }
    let mode = if path == Path::new("/tmp") { c"mode=1777" } else { c"mode=755" };
    mount("tmpfs", path, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, mode).context("mount")?;
    configured.mounted.insert(path.to_owned());
    Ok(())
}

fn mount_tmpfs(wanted: &Tmpfs, configured: &mut Configured) -> Result<(), Fault> {
    let path = PathBuf::from(OsStr::from_bytes(&wanted.path));
    if !path.is_absolute() || path == Path::new("/") {
        return Err(Fault::new("not an absolute path beneath the root"));
    }
    if configured.mounted.contains(&path) {
        return Ok(());
    }
    let (flags, data) = options(&wanted.options);
    let data = CString::new(data).context("its options")?;
    match fs::DirBuilder::new().recursive(true).mode(0o755).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(error).context("make the directory");
        }
        _ => {}
    }
    mount("tmpfs", &path, "tmpfs", flags, data.as_c_str()).context("mount")?;
    configured.mounted.insert(path);
    Ok(())
}

/// Splits the options of mount(8) into flags and the rest, which the kernel takes or refuses.
fn options(text: &str) -> (MountFlags, String) {
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let mut data = Vec::new();
    for option in text.split(',').filter(|option| !option.is_empty()) {
        match option {
            "rw" => flags.remove(MountFlags::RDONLY),
            "ro" => flags.insert(MountFlags::RDONLY),
            "suid" => flags.remove(MountFlags::NOSUID),
            "nosuid" => flags.insert(MountFlags::NOSUID),
            "dev" => flags.remove(MountFlags::NODEV),
            "nodev" => flags.insert(MountFlags::NODEV),
            "exec" => flags.remove(MountFlags::NOEXEC),
            "noexec" => flags.insert(MountFlags::NOEXEC),
            other => data.push(other),
        }
    }
    if !data.iter().any(|option| option.starts_with("mode=")) {
        data.push("mode=1777");
    }
    (flags, data.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_mount_become_flags_and_the_rest_is_left_to_the_kernel() {
        let (flags, data) = options("rw,exec,size=64m");
        assert_eq!(flags, MountFlags::NOSUID | MountFlags::NODEV);
        assert_eq!(data, "size=64m,mode=1777");
    }

    #[test]
    fn a_given_mode_is_kept() {
        assert_eq!(options("mode=700").1, "mode=700");
    }
}
