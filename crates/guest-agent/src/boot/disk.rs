//! Owns finding a disk by its serial number.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::fault::{Context, Fault};

const BLOCK: &str = "/sys/block";
/// How long a disk may take to appear once its driver is loaded.
const APPEARS_WITHIN: Duration = Duration::from_secs(5);
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(1);

/// The device node of the virtio disk with `serial`.
pub(super) fn find(serial: &str) -> Result<PathBuf, Fault> {
    let deadline = Instant::now() + APPEARS_WITHIN;
    loop {
        let seen = virtio_disks()?;
        if let Some((name, _)) = seen.iter().find(|(_, found)| found == serial) {
            return Ok(Path::new("/dev").join(name));
        }
        if Instant::now() > deadline {
            let seen: Vec<_> = seen.into_iter().map(|(name, found)| format!("{name} ({found:?})")).collect();
            let seen = if seen.is_empty() { "none".to_owned() } else { seen.join(", ") };
            return Err(Fault::new(format!("no virtio disk with serial {serial:?}; there are: {seen}")));
        }
        std::thread::sleep(LOOK_AGAIN_AFTER);
    }
}

fn virtio_disks() -> Result<Vec<(String, String)>, Fault> {
    let mut disks: Vec<_> = fs::read_dir(BLOCK)
        .context(format_args!("list {BLOCK}"))?
        .flatten()
        .filter_map(|disk| disk.file_name().into_string().ok())
        .filter(|name| name.starts_with("vd"))
        .map(|name| {
            let serial = fs::read_to_string(Path::new(BLOCK).join(&name).join("serial")).unwrap_or_default();
            (name, serial.trim_end().to_owned())
        })
        .collect();
    disks.sort();
    Ok(disks)
}
