//! Copies of files that are mostly holes.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{Mode, OFlags, SeekFrom, copy_file_range, ioctl_ficlone, open, seek};
use rustix::io::Errno;

/// Makes `to`, an empty file, the same as `from`: as another name for the same blocks where the file system can, else by copying
/// what is no hole.
///
/// # Errors
/// One cannot be read, or the other not be written.
pub fn copy(from: &File, to: &File) -> io::Result<()> {
    if ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    let length = from.metadata()?.len();
    to.set_len(length)?;
    let mut at = 0;
    while let Some(data) = seek_to(from, SeekFrom::Data(at))? {
        let end = seek_to(from, SeekFrom::Hole(data))?.unwrap_or(length);
        copy_range(from, to, data, end)?;
        at = end;
    }
    Ok(())
}

/// Whether copies of a file in a directory are other names for the same blocks.
pub fn shares_blocks(from: &File, dir: &Path) -> bool {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let trial = open(dir, flags, Mode::RUSR | Mode::WUSR);
    trial.is_ok_and(|trial| ioctl_ficlone(&trial, from).is_ok())
}

/// The place that is looked for; none if there is nothing more.
pub(crate) fn seek_to(file: &File, what: SeekFrom) -> io::Result<Option<u64>> {
    match seek(file, what) {
        Ok(at) => Ok(Some(at)),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn copy_range(from: &File, to: &File, start: u64, end: u64) -> io::Result<()> {
    let (mut read, mut written) = (start, start);
    while read < end {
        let left = usize::try_from(end - read).unwrap_or(usize::MAX);
        match copy_file_range(from, Some(&mut read), to, Some(&mut written), left) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(Errno::INTR) => {}
            // Between file systems that have no way of their own for it.
            Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {
                return copy_bytes(from, to, read, end);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn copy_bytes(from: &File, to: &File, start: u64, end: u64) -> io::Result<()> {
    use std::os::unix::fs::FileExt as _;
    let mut buffer = vec![0; 1 << 20];
    let mut at = start;
    while at < end {
        let wanted = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        let count = from.read_at(&mut buffer[..wanted], at)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        to.write_all_at(&buffer[..count], at)?;
        at += count as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};

    use super::*;

    fn scattered() -> File {
        let file = tempfile::tempfile().expect("a temporary file");
        file.set_len(64 << 20).expect("a length");
        for place in [0, 5 << 20, (64 << 20) - 4096] {
            file.write_all_at(&[3; 4096], place).expect("a write");
        }
        file
    }

    fn byte(file: &File, at: u64) -> u8 {
        let mut byte = [9];
        file.read_exact_at(&mut byte, at).expect("a read");
        byte[0]
    }

    #[test]
    fn a_copy_has_the_same_bytes_and_the_same_holes() {
        let (from, to) = (scattered(), tempfile::tempfile().expect("a temporary file"));
        copy(&from, &to).expect("a copy");
        let found = to.metadata().expect("a file");
        assert_eq!(found.len(), 64 << 20);
        assert!(found.blocks() * 512 < 1 << 20, "{} bytes on disk", found.blocks() * 512);
        let places = [0, 4096, 5 << 20, (5 << 20) + 4096, (64 << 20) - 1];
        assert_eq!(places.map(|at| byte(&to, at)), [3, 0, 3, 0, 3]);
    }

    #[test]
    fn bytes_are_copied_where_the_kernel_does_not() {
        let (from, to) = (scattered(), tempfile::tempfile().expect("a temporary file"));
        copy_bytes(&from, &to, 5 << 20, (5 << 20) + 4096).expect("a copy");
        assert_eq!(byte(&to, 5 << 20), 3);
        let short = copy_bytes(&from, &to, 63 << 20, 65 << 20).expect_err("a file that ends");
        assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);
    }
}
