//! Downloads of layers: streamed to the store, verified on the way, resumed where they broke off.
//!
//! ```text
//! in the store ─────────────────────────────────────────────► ready
//! made by another process ──► wait ─────────────────────────► ready, or take over what it left
//! ours ──► GET, from where we are ──► all here ──► digest ──► ready
//!            ▲        │ cut, stall, 5xx, 429          │ wrong, and pieced together: once more from the start
//!            └─ wait ─┘                               └ wrong: failed, nothing is left
//! ```

use reqwest::{Method, Response, StatusCode, header};
use tokio::time::{Instant, timeout_at};

use super::{
    Registry, RegistryError,
    retry::{Again, Failure},
};
use crate::{
    Error, Event, Result, Store,
    error::blocking,
    manifest::Descriptor,
    store::{BlobWriter, Claim, Found},
};

/// How much is gathered before it is written.
const BUFFER: usize = 1 << 20;

/// A layer to be downloaded, and which of the image's it is, from 1.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) blob: Descriptor,
    pub(crate) number: usize,
    pub(crate) of: usize,
}

impl Registry {
    /// Sees to it that the store has the layer.
    pub(crate) async fn fetch_layer(&self, store: &Store, layer: Layer) -> Result<()> {
        let cached = self.fetch_blob(store, &layer).await?;
        self.options.progress.event(Event::LayerReady { number: layer.number, of: layer.of, cached });
        Ok(())
    }

    /// Returns whether it was there already.
    async fn fetch_blob(&self, store: &Store, layer: &Layer) -> Result<bool> {
        let Descriptor { digest, size, .. } = layer.blob;
        let lookup = store.clone();
        if blocking(move || lookup.find_blob(&digest, size)).await? == Found::Yes {
            return Ok(true);
        }
        let (target, name) = (store.blob_path(&digest), format!("blob-{}", digest.hex()));
        let wait = self.options.lock_wait;
        let partial = match store.claim(&target, &name, wait, &*self.options.progress).await? {
            Claim::Done => return Ok(true),
            Claim::Mine(partial) => partial,
        };
        let writer = blocking(move || BlobWriter::resume(partial, size)).await?;
        let mut sink = Sink { registry: self, layer, writer: Some(writer), buffer: Vec::new() };
        // Of what a dead process left, or of several answers; such a layer may be wrong although each answer was right.
        let mut pieced = sink.received() > 0;
        let mut restarted = false;
        let mut attempts = self.attempts();
        loop {
            while sink.received() < size {
                let before = sink.received();
                pieced |= before > 0;
                if let Err(failure) = self.receive(&mut sink).await {
                    // Also where it is our own disk that failed, and the sink with it.
                    if failure.again == Again::Never {
                        return Err(*failure.error);
                    }
                    // What has come counts, also where the rest is to follow.
                    sink.flush().await?;
                    // Less would be a trickle, and no reason for more patience.
                    if sink.received() >= before + self.options.network.stall_bytes {
                        attempts.reset();
                    }
                    attempts.after(failure).await?;
                }
            }
            sink.flush().await?;
            let actual = sink.digest();
            if actual == Some(digest) {
                sink.commit().await?;
                return Ok(false);
            }
            if !pieced || restarted {
                let what = format!("layer {} of {}", layer.number, self.name);
                return Err(Error::DigestMismatch {
                    what,
                    expected: digest,
                    actual: actual.unwrap_or(digest),
                });
            }
            (pieced, restarted) = (false, true);
            sink.restart().await?;
        }
    }

    /// Makes one request for what is missing, and takes what comes.
    async fn receive(&self, sink: &mut Sink<'_>) -> Result<(), Failure> {
        let size = sink.layer.blob.size;
        let what = format!("layer {}", sink.layer.blob.digest);
        let from = sink.received();
        let path = format!("blobs/{}", sink.layer.blob.digest);
        let mut response = self.send(Method::GET, &path, &what, (from > 0).then_some(from)).await?;
        if from > 0 && !continues_at(&response, from) {
            sink.restart().await?;
            if response.status() == StatusCode::PARTIAL_CONTENT {
                return Err(Failure::passing(
                    self.protocol("it sent another range than it was asked for".into()),
                ));
            }
        }
        let lies =
            |actual, at_least| Error::SizeMismatch { what: what.clone(), expected: size, actual, at_least };
        if let Some(length) = response.content_length()
            && let Some(total) = length.checked_add(sink.received())
            && total != size
        {
            return Err(lies(total, false).into());
        }
        let network = &self.options.network;
        let (mut window, mut arrived) = (Instant::now(), 0);
        loop {
            let chunk =
                timeout_at(window + network.stall, response.chunk()).await.map_err(|_| self.stalled())?;
            let Some(chunk) = chunk.map_err(|source| self.interrupted(source))? else { break };
            arrived += chunk.len() as u64;
            if arrived >= network.stall_bytes {
                (window, arrived) = (Instant::now(), 0);
            }
            if sink.received() + chunk.len() as u64 > size {
                return Err(lies(sink.received() + chunk.len() as u64, true).into());
            }
            sink.push(&chunk).await?;
        }
        let received = sink.received();
        if received < size {
            let registry = self.name.clone();
            return Err(Failure::passing(RegistryError::Truncated { registry, what, received, size }));
        }
        Ok(())
    }
}

/// Whether the answer is what follows the first `from` bytes.
fn continues_at(response: &Response, from: u64) -> bool {
    let range = response.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let start = range.and_then(|range| range.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok());
    response.status() == StatusCode::PARTIAL_CONTENT && start == Some(from)
}

/// Takes the bytes of one layer. Writing is done where it may block; the writer goes there and comes back.
struct Sink<'a> {
    registry: &'a Registry,
    layer: &'a Layer,
    /// Absent only while it is being written to, and after a failure.
    writer: Option<BlobWriter>,
    buffer: Vec<u8>,
}

impl Sink<'_> {
    fn received(&self) -> u64 {
        self.writer.as_ref().map_or(0, BlobWriter::written) + self.buffer.len() as u64
    }

    fn digest(&self) -> Option<crate::Digest> {
        self.writer.as_ref().map(BlobWriter::digest)
    }

    async fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        self.buffer = self
            .with_writer(move |writer| {
                writer.write(&buffer)?;
                buffer.clear();
                Ok(buffer)
            })
            .await?;
        let (number, of) = (self.layer.number, self.layer.of);
        let (bytes, size) = (self.received(), self.layer.blob.size);
        self.registry.options.progress.event(Event::Layer { number, of, bytes, size });
        Ok(())
    }

    async fn restart(&mut self) -> Result<()> {
        self.buffer.clear();
        self.with_writer(BlobWriter::restart).await
    }

    async fn commit(mut self) -> Result<()> {
        let writer = self.writer.take().ok_or(Error::Cancelled)?;
        blocking(move || writer.commit()).await
    }

    async fn with_writer<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut BlobWriter) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let mut writer = self.writer.take().ok_or(Error::Cancelled)?;
        let (writer, value) = blocking(move || {
            let value = work(&mut writer)?;
            Ok((writer, value))
        })
        .await?;
        self.writer = Some(writer);
        Ok(value)
    }
}
