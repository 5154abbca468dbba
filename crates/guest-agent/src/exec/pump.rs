//! Owns the moving of bytes between an exec's pipes and its streams.
//!
//! Nothing is queued here: one buffer per direction, and whoever reads slower than the other writes makes it wait.

use std::io;

use cellule_protocol::mux::{MuxStream, WRITE_SIZE};
use rustix::io::Errno;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::watch;

/// Fills one frame.
const BUFFER: usize = WRITE_SIZE;

/// Moves what the host writes to the program, until either is done or the program has ended.
pub(super) async fn input(mut stream: MuxStream, mut pipe: Sender, mut exit: watch::Receiver<bool>) {
    let moving = async {
        let mut buffer = vec![0; BUFFER];
        loop {
            let count = stream.read(&mut buffer).await?;
            if count == 0 {
                return Ok::<_, io::Error>(());
            }
            pipe.write_all(&buffer[..count]).await?;
        }
    };
    tokio::select! {
        // A program that closed its input, or a session that ended: either way the pipe and the stream are dropped.
        _either_done = moving => {}
        _ended = exit.wait_for(|ended| *ended) => {}
    }
}

/// Moves what the program writes to the host, until the last writer closed the pipe; or, once the program has ended,
/// until what lay in the pipe then is moved.
pub(super) async fn output(pipe: Receiver, mut stream: MuxStream, mut exit: watch::Receiver<bool>) {
    // A reader that is gone closes the pipe, as in a shell.
    let _reader_gone = move_output(pipe, &mut stream, &mut exit).await;
    let _session_over = stream.shutdown().await;
}

async fn move_output(
    mut pipe: Receiver,
    stream: &mut MuxStream,
    exit: &mut watch::Receiver<bool>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = tokio::select! {
            read = pipe.read(&mut buffer) => read?,
            _ended = exit.wait_for(|ended| *ended) => break,
        };
        if count == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..count]).await?;
    }
    let mut left = usize::try_from(rustix::io::ioctl_fionread(&pipe)?).unwrap_or(usize::MAX);
    while left > 0 {
        let len = left.min(buffer.len());
        let count = match rustix::io::read(&pipe, &mut buffer[..len]) {
            Ok(0) | Err(Errno::AGAIN) => return Ok(()),
            Err(Errno::INTR) => continue,
            read => read?,
        };
        left -= count;
        stream.write_all(&buffer[..count]).await?;
    }
    Ok(())
}
