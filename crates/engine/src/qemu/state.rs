//! The file through which QEMU gives away the state of processors and devices, and takes it.
//!
//! It is a file in memory that both processes share, its position included: QEMU writes where the last save ended, unless
//! that is set back.

use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;

use rustix::fs::{MemfdFlags, memfd_create};

use crate::{DEVICES_MAX, SaveError};

/// Where QEMU saves to.
#[derive(Debug)]
pub(super) struct StateFile {
    read: File,
    /// QEMU takes a descriptor only if it is open for just what it is for.
    write: File,
}

impl StateFile {
    pub(super) fn new() -> io::Result<Self> {
        let read = File::from(memfd_create("cellule-devices", MemfdFlags::CLOEXEC)?);
        let write = File::options().write(true).open(format!("/proc/self/fd/{}", read.as_raw_fd()))?;
        Ok(Self { read, write })
    }

    /// QEMU's descriptor for it.
    pub(super) fn qemus(&self) -> io::Result<OwnedFd> {
        Ok(self.write.try_clone()?.into())
    }

    /// Makes it empty, for the next save.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.write.rewind()?;
        self.write.set_len(0)
    }

    /// What was saved.
    pub(super) fn take(&mut self) -> Result<Vec<u8>, SaveError> {
        let failed = |source| SaveError::Host { what: "read the devices' state", source };
        let bytes = self.read.metadata().map_err(failed)?.len();
        match usize::try_from(bytes) {
            Ok(length) if length <= DEVICES_MAX => {
                let mut state = vec![0; length];
                self.read.read_exact_at(&mut state, 0).map_err(failed)?;
                self.clear().map_err(failed)?;
                Ok(state)
            }
            _ => Err(SaveError::TooLarge { bytes }),
        }
    }
}

/// A file in memory with a state in it, for QEMU to read from its beginning.
pub(super) fn holding(state: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create("cellule-devices", MemfdFlags::CLOEXEC)?);
    file.write_all(state)?;
    file.rewind()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_save_is_read_whole_and_alone() {
        let mut state = StateFile::new().expect("a file in memory");
        let mut qemus = File::from(state.qemus().expect("a descriptor"));
        for saved in [&b"the first, which is long"[..], b"the second"] {
            state.clear().expect("a file that can be cut");
            qemus.write_all(saved).expect("room");
            assert_eq!(state.take().expect("a state"), saved);
        }
    }

    #[test]
    fn a_state_without_end_is_not_read() {
        let mut state = StateFile::new().expect("a file in memory");
        state.write.set_len(DEVICES_MAX as u64 + 1).expect("a sparse file");
        assert!(matches!(state.take(), Err(SaveError::TooLarge { .. })));
    }
}
