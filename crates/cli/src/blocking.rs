//! Reads and writes of a descriptor that block, whoever else shares it and made it non-blocking.
//!
//! Whether a descriptor blocks belongs to what is open and not to the process: a shell's other jobs, or a parent that
//! gave us its own end of a pipe, may set `O_NONBLOCK` at any moment. To clear it would break them instead.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};

/// A descriptor whose reads and writes wait for as long as it takes.
#[derive(Debug)]
pub(crate) struct Blocking<F>(F);

impl Blocking<File> {
    /// One that shares what `descriptor` has open and outlives it.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub(crate) fn sharing(descriptor: impl AsFd) -> io::Result<Self> {
        Ok(Self(File::from(descriptor.as_fd().try_clone_to_owned()?)))
    }

    /// Writes all of a buffer on a thread for blocking work, and gives the buffer back, emptied.
    ///
    /// # Errors
    /// What the descriptor says, or that the runtime shuts down.
    pub(crate) async fn write_all_of(self: &Arc<Self>, mut bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        let this = Arc::clone(self);
        let written = tokio::task::spawn_blocking(move || {
            Blocking(&this.0).write_all(&bytes)?;
            bytes.clear();
            Ok(bytes)
        });
        written.await.map_err(io::Error::other)?
    }
}

impl<F: AsFd> Blocking<F> {
    /// Does something until it neither would block nor is interrupted.
    fn wait<T>(&mut self, flags: PollFlags, mut act: impl FnMut(&mut F) -> io::Result<T>) -> io::Result<T> {
        loop {
            match act(&mut self.0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
            // An error or a hang-up wakes it too, and what is done next meets it.
            match poll(&mut [PollFd::new(&self.0, flags)], None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl<F: AsFd + Read> Read for Blocking<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wait(PollFlags::IN, |file| file.read(buffer))
    }
}

impl<F: AsFd + Write> Write for Blocking<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.wait(PollFlags::OUT, |file| file.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.wait(PollFlags::OUT, Write::flush)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;

    const MUCH: usize = 1 << 20;

    fn non_blocking_pipe() -> (File, File) {
        let (reader, writer) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).unwrap();
        (reader.into(), writer.into())
    }

    #[test]
    fn a_non_blocking_reader_waits_for_what_comes_later() {
        let (reader, mut writer) = non_blocking_pipe();
        let late = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            writer.write_all(b"late").unwrap();
        });
        let mut text = String::new();
        Blocking::sharing(&reader).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "late");
        late.join().unwrap();
    }

    #[test]
    fn a_non_blocking_writer_waits_until_there_is_room() {
        let (reader, writer) = non_blocking_pipe();
        let slow = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            let mut all = Vec::new();
            Blocking(reader).read_to_end(&mut all).unwrap();
            all
        });
        let bytes: Vec<u8> = (0_u8..=250).cycle().take(MUCH).collect();
        Blocking(writer).write_all(&bytes).unwrap();
        assert!(slow.join().unwrap() == bytes);
    }

    #[test]
    fn a_reader_that_hangs_up_ends_a_waiting_write() {
        let (reader, writer) = non_blocking_pipe();
        let gone = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            drop(reader);
        });
        let error = Blocking(writer).write_all(&vec![0; MUCH]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        gone.join().unwrap();
    }

    #[tokio::test]
    async fn a_buffer_is_written_whole_and_comes_back_empty() {
        let (reader, writer) = non_blocking_pipe();
        let all = tokio::task::spawn_blocking(move || {
            let mut all = Vec::new();
            Blocking(reader).read_to_end(&mut all).unwrap();
            all.len()
        });
        let out = Arc::new(Blocking(writer));
        let buffer = out.write_all_of(vec![7; MUCH]).await.unwrap();
        assert!(buffer.is_empty() && buffer.capacity() >= MUCH);
        drop(out);
        assert_eq!(all.await.unwrap(), MUCH);
    }
}
