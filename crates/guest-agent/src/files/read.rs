//! Owns the sending of one regular file, or a range of it.

use std::os::fd::OwnedFd;

use cellule_protocol::v1::FileInfo;
use rustix::fs::{Advice, CWD, Mode, OFlags, SeekFrom, fadvise, openat, seek};
use rustix::io::Errno;
use tonic::Code;

use super::failure::{At, Failure, quote};
use super::meta::Meta;
use super::path::{GuestPath, HARMLESS};
use super::pump::Source;

/// A file that is being read.
#[derive(Debug)]
pub(super) struct Reading {
    file: OwnedFd,
    path: GuestPath,
    left: u64,
}

impl Reading {
    /// Opens `length` bytes of the file from `offset` on, or as much of them as there is.
    pub(super) fn open(path: GuestPath, offset: u64, length: u64) -> Result<(Self, FileInfo), Failure> {
        // Looked at first: to open a device can do things.
        let before = Meta::of_path(path.as_c_str(), true).at("read", path.as_bytes())?;
        refuse_other_kinds("read", &path, &before)?;
        let file = openat(CWD, path.as_c_str(), OFlags::RDONLY | HARMLESS, Mode::empty())
            .at("read", path.as_bytes())?;
        let meta = Meta::of(&file).at("read", path.as_bytes())?;
        refuse_other_kinds("read", &path, &meta)?;
        // Advice: a file system that takes none reads as well.
        let _advised = fadvise(&file, 0, None, Advice::Sequential);
        let mut left = length;
        if offset > i64::MAX.unsigned_abs() {
            left = 0;
        } else if offset > 0 {
            seek(&file, SeekFrom::Start(offset)).at("read", path.as_bytes())?;
        }
        Ok((Self { file, path, left }, meta.info(Vec::new())))
    }
}

impl Source for Reading {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = read_full(&self.file, &mut buffer[..wanted]).at("read", self.path.as_bytes())?;
        self.left -= count as u64;
        Ok(count)
    }
}

/// Reads until the buffer is full or the file at its end. Files of the kernel's that would have more later, such as its
/// log, are at their end too.
pub(super) fn read_full(file: &OwnedFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    let mut count = 0;
    while count < buffer.len() {
        match rustix::io::read(file, &mut buffer[count..]) {
            Ok(0) | Err(Errno::AGAIN) => break,
            Ok(more) => count += more,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(count)
}

/// Refuses what is no regular file, in words.
pub(super) fn refuse_other_kinds(doing: &str, path: &GuestPath, meta: &Meta) -> Result<(), Failure> {
    match meta.no_file() {
        None => Ok(()),
        Some(why) if meta.is_directory() => Err(Failure::because(doing, path.as_bytes(), Errno::ISDIR, why)),
        Some(why) => {
            let message = format!("{doing} {}: {why}", quote(path.as_bytes()));
            Err(Failure::new(Code::InvalidArgument, message))
        }
    }
}
