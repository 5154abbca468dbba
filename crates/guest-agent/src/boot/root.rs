//! Owns the root filesystem: the image read-only beneath, a tmpfs or a scratch disk above, and the step into it.

use std::ffi::CString;
use std::fs::{self, File, Permissions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileExt as _, MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, mount as mount_at, mount_move};

use super::disk;
use crate::fault::{Context, Fault};
use crate::insight::diff::Sides;

const SERIAL: &str = "rootfs";
const IMAGE: &str = "/cellule/image";
const WRITABLE: &str = "/cellule/writable";
/// Where a scratch disk is, if the machine has one.
const DISK: &str = "/cellule/disk";
/// Files of the agent's own that are put over the image's, in the same tmpfs.
const FILES: &str = "/cellule/writable/files";
/// In the environment that the kernel makes of its command line: whether there is a scratch disk to wait for.
const HAS_DISK: &str = "CELLULE_DISK";
const DISK_SERIAL: &str = "scratch";
const ROOT: &str = "/cellule/root";

/// How much of the image is read ahead: its inodes lie at its beginning, those of 8000 files in a MiB.
const AHEAD: u64 = 4 << 20;
const AHEAD_PIECE: usize = 64 << 10;

/// Reads the beginning of the image into memory.
pub(crate) fn read_ahead(image: &File) -> Result<(), Fault> {
    let mut buffer = vec![0; AHEAD_PIECE];
    let mut offset = 0;
    while offset < AHEAD {
        match image.read_at(&mut buffer, offset).context("read the image ahead")? {
            0 => break,
            count => offset += count as u64,
        }
    }
    Ok(())
}

/// Directories of the root filesystem's parts, which have no names any more.
#[derive(Debug)]
pub(super) struct Parts {
    /// The agent's own files.
    pub(super) files: OwnedFd,
    pub(super) sides: Sides,
    /// The disk with the image: in the new root it has no name.
    pub(super) image: File,
}

/// Mounts the image and its writable side, and makes them `/`.
pub(super) fn mount() -> Result<Parts, Fault> {
    let disk = disk::find(SERIAL)?;
    let image = File::open(&disk).context(format_args!("open {}", disk.display()))?;
    for directory in [IMAGE, WRITABLE, ROOT] {
        make(directory)?;
    }
    mount_at(&disk, IMAGE, "erofs", MountFlags::RDONLY, None)
        .context(format_args!("mount {} as EROFS", disk.display()))?;
    // Half of memory, so that a full filesystem is the writer's error and not the machine's death.
    mount_at("tmpfs", WRITABLE, "tmpfs", MountFlags::empty(), Some(c"size=50%,mode=755"))
        .context("mount the writable side")?;
    make(FILES)?;
    let above = if std::env::var_os(HAS_DISK).is_some() { mount_disk()? } else { WRITABLE };
    let (upper, work) = (format!("{above}/upper"), format!("{above}/work"));
    // A disk may have been used before: then what the root directory is like is what became of it.
    if !Path::new(&upper).exists() {
        make(&upper)?;
        like(IMAGE, &upper).context("copy the mode of the image's root directory")?;
    }
    make(&work)?;
    let options = format!("lowerdir={IMAGE},upperdir={upper},workdir={work}");
    let options = CString::new(options).context("options of the overlay")?;
    mount_at("overlay", ROOT, "overlay", MountFlags::empty(), Some(options.as_c_str()))
        .context("mount the overlay")?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |path: &str| rustix::fs::open(path, flags, Mode::empty()).context(format_args!("open {path}"));
    let parts =
        Parts { files: open(FILES)?, sides: Sides { upper: open(&upper)?, lower: open(IMAGE)? }, image };
    // The initramfs can't be left by pivot_root, only covered.
    std::env::set_current_dir(ROOT).context("enter the overlay")?;
    mount_move(".", "/").context("move the overlay to the root")?;
    rustix::process::chroot(".").context("change the root")?;
    std::env::set_current_dir("/").context("enter the new root")?;
    Ok(parts)
}

/// Mounts the scratch disk, and gives where.
fn mount_disk() -> Result<&'static str, Fault> {
    let disk = disk::find(DISK_SERIAL)?;
    make(DISK)?;
    // Whoever formatted it left the tables of inodes to be holes, which read as zeros: they need no writing.
    mount_at(&disk, DISK, "ext4", MountFlags::NOATIME, Some(c"noinit_itable"))
        .context(format_args!("mount {} as ext4", disk.display()))?;
    Ok(DISK)
}

fn make(directory: &str) -> Result<(), Fault> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(directory)
        .context(format_args!("make {directory}"))
}

/// The overlay shows its root with the attributes of the upper side.
fn like(original: &str, copy: &str) -> std::io::Result<()> {
    let metadata = fs::metadata(original)?;
    std::os::unix::fs::chown(copy, Some(metadata.uid()), Some(metadata.gid()))?;
    fs::set_permissions(copy, Permissions::from_mode(metadata.mode() & 0o7777))
}
