//! Owns the moving of bytes between a stream and whatever holds them on a disk.
//!
//! Two buffers take turns: while one is on its way over the stream, a thread fills or empties the other. They are large, so
//! that the change of threads is small beside what it moves, and they are all that a transfer holds.

use cellule_protocol::mux::{MuxStream, WRITE_SIZE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::failure::Failure;
use super::workers::{Aside, Workers};

/// What a frame of the stream carries at most.
const FRAME: usize = WRITE_SIZE - 12;
/// Whole frames.
const CHUNK: usize = 2 * FRAME;

/// Where bytes come from.
pub(super) trait Source: Send + 'static {
    /// Fills the buffer. Less than all of it is the end.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Failure>;
}

/// Where bytes go.
pub(super) trait Sink: Send + 'static {
    /// Takes all of the bytes.
    fn take(&mut self, bytes: &[u8]) -> Result<(), Failure>;
}

/// Sends all that `source` has, and ends the stream. Returns how many bytes that were.
pub(super) async fn send(
    workers: &Workers,
    source: impl Source,
    mut stream: MuxStream,
) -> Result<u64, Failure> {
    let mut sent = 0;
    let (mut source, mut ready, mut count) = fill(workers, source, vec![0; CHUNK]).await?;
    let mut spare = Vec::new();
    loop {
        let write = async {
            stream.write_all(&ready[..count]).await.map_err(|_| Failure::cancelled())?;
            Ok(())
        };
        sent += count as u64;
        if count < CHUNK {
            write.await?;
            break;
        }
        spare.resize(CHUNK, 0);
        let (filled, ()) = tokio::try_join!(fill(workers, source, spare), write)?;
        spare = std::mem::replace(&mut ready, filled.1);
        (source, count) = (filled.0, filled.2);
    }
    stream.shutdown().await.map_err(|_| Failure::cancelled())?;
    Ok(sent)
}

/// Gives all that comes to `sink`, and that back when the stream has ended. A stream that is cut is a failure.
pub(super) async fn receive<S: Sink>(
    workers: &Workers,
    sink: S,
    stream: &mut MuxStream,
) -> Result<S, Failure> {
    let mut sink = Aside::new(sink);
    let mut came = vec![0; CHUNK];
    let mut spare = Vec::new();
    let mut count = gather(stream, &mut came).await?;
    while count > 0 {
        let last = count < CHUNK;
        let next = async {
            if last {
                return Ok((Vec::new(), 0));
            }
            spare.resize(CHUNK, 0);
            let mut buffer = std::mem::take(&mut spare);
            let count = gather(stream, &mut buffer).await?;
            Ok((buffer, count))
        };
        let ((emptied, back), (filled, more)) =
            tokio::try_join!(empty(workers, &mut sink, came, count), next)?;
        sink = back;
        (spare, came, count) = (emptied, filled, more);
    }
    sink.take().ok_or_else(Failure::cancelled)
}

async fn fill<S: Source>(
    workers: &Workers,
    mut source: S,
    mut buffer: Vec<u8>,
) -> Result<(S, Vec<u8>, usize), Failure> {
    let step = move || {
        let count = source.fill(&mut buffer)?;
        Ok((source, buffer, count))
    };
    workers.step(step).await
}

async fn empty<S: Sink>(
    workers: &Workers,
    sink: &mut Aside<S>,
    buffer: Vec<u8>,
    count: usize,
) -> Result<(Vec<u8>, Aside<S>), Failure> {
    let mut taken = sink.take().ok_or_else(Failure::cancelled)?;
    let step = move || {
        taken.take(&buffer[..count])?;
        Ok((buffer, Aside::new(taken)))
    };
    workers.step(step).await
}

/// Fills the buffer from the stream. Less than all of it is the stream's end.
async fn gather(stream: &mut MuxStream, buffer: &mut [u8]) -> Result<usize, Failure> {
    let mut count = 0;
    while count < buffer.len() {
        let more = stream.read(&mut buffer[count..]).await.map_err(|_| Failure::cut())?;
        if more == 0 {
            // This side has not closed its half: a stream that is closed for both was cut.
            return if stream.is_reset() { Err(Failure::cut()) } else { Ok(count) };
        }
        count += more;
    }
    Ok(count)
}
