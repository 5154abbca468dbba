//! Bytes between this process's own standard streams and something that is read or written without blocking.

use std::fs::File;
use std::io::{self, Read as _};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::blocking::Blocking;

/// What is moved at a time.
const CHUNK: usize = 256 << 10;

/// Which end failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FlowError {
    /// Reading from where the bytes come from.
    #[error("cannot read")]
    Read(#[source] io::Error),
    /// Writing to where they go.
    #[error("cannot write")]
    Write(#[source] io::Error),
}

/// Writes all that comes to standard output. A reader that has hung up wants no more of it: false.
///
/// # Errors
/// Either end fails.
pub(crate) async fn to_stdout(mut from: impl AsyncRead + Unpin) -> Result<bool, FlowError> {
    let to = Arc::new(Blocking::sharing(io::stdout()).map_err(FlowError::Write)?);
    let mut buffer = Vec::with_capacity(CHUNK);
    loop {
        if from.read_buf(&mut buffer).await.map_err(FlowError::Read)? == 0 {
            return Ok(true);
        }
        match to.write_all_of(buffer).await {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(false),
            other => buffer = other.map_err(FlowError::Write)?,
        }
    }
}

/// Passes on all of standard input. It is not shut down: that is for whoever knows that all of it came.
///
/// # Errors
/// Either end fails.
pub(crate) async fn from_stdin(mut to: impl AsyncWrite + Unpin) -> Result<(), FlowError> {
    let mut from = Blocking::sharing(io::stdin()).map_err(FlowError::Read)?;
    let mut buffer = vec![0; CHUNK];
    loop {
        // A thread of its own: a terminal's input may never come.
        let read = tokio::task::spawn_blocking(move || {
            let count = from.read(&mut buffer)?;
            Ok((from, buffer, count))
        });
        let count;
        (from, buffer, count) = read
            .await
            .map_err(io::Error::other)
            .and_then(|read: io::Result<(Blocking<File>, Vec<u8>, usize)>| read)
            .map_err(FlowError::Read)?;
        if count == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..count]).await.map_err(FlowError::Write)?;
    }
}
