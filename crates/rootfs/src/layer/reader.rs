//! Reads the tar of one layer: decompressed, hashed, and with faults that say where in the layer they are.
//!
//! All bytes to the end of the stream are hashed, since a layer's diff ID covers them all.

use super::Entry;
use super::tar::{Data, Stream, TarReader, Unclosed};
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Fault};
use crate::limits::Limits;
use crate::source::{LayerSource, Uncompressed};

/// Reads one layer from its start to its end.
pub(crate) struct LayerReader<'a> {
    source: &'a dyn LayerSource,
    tar: TarReader<Hashed>,
}

/// The uncompressed bytes of a layer, and the digest of those that were read.
struct Hashed {
    stream: Uncompressed,
    hasher: Hasher,
}

impl Stream for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Fault> {
        let count = self.stream.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

impl<'a> LayerReader<'a> {
    pub(crate) fn open(source: &'a dyn LayerSource, limits: &Limits) -> Result<Self, Error> {
        let stream = Uncompressed::open(source).map_err(|fault| Error::Layer {
            layer: source.describe(),
            path: None,
            offset: 0,
            source: fault,
        })?;
        let stream = Hashed { stream, hasher: Hasher::new() };
        Ok(Self { source, tar: TarReader::new(stream, limits, Unclosed::Accepted) })
    }

    /// Bytes taken from the source so far, before decompression.
    pub(crate) fn raw_bytes(&self) -> u64 {
        self.tar.stream().stream.raw_bytes()
    }

    /// The next entry, once the contents of the last one are taken.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, Error> {
        self.tar.next_entry().map_err(|fault| self.locate(fault))
    }

    /// The next piece of the current entry's contents, without its holes; none at their end.
    pub(crate) fn next_data(&mut self) -> Result<Option<Data<'_>>, Error> {
        match self.tar.next_piece() {
            Ok(piece) => Ok(piece.map(|piece| self.tar.bytes(piece))),
            Err(fault) => Err(self.locate(fault)),
        }
    }

    /// Takes what follows the archive's end, one buffer a call. False: that was all.
    pub(crate) fn drain(&mut self) -> Result<bool, Error> {
        self.tar.drain().map(|count| count > 0).map_err(|fault| self.locate(fault))
    }

    /// The digest of all bytes; meaningful after the last [`drain`](Self::drain).
    pub(crate) fn finish(self) -> Digest {
        self.tar.into_stream().hasher.finish()
    }

    /// Says where in the layer a fault is.
    pub(crate) fn locate(&self, fault: Fault) -> Error {
        let (path, offset) = self.tar.position();
        Error::Layer { layer: self.source.describe(), path, offset, source: fault }
    }
}
