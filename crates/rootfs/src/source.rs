//! Where a layer's bytes come from.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::compression::Compression;
use crate::error::Fault;

/// The raw bytes of one layer blob: a tar, plain or compressed with gzip, zstd or xz (recognised by magic).
///
/// A build opens it twice, and each time must get the same bytes; it refuses the layer when the tars differ.
pub trait LayerSource: Send + Sync {
    /// Opens the blob at its first byte.
    ///
    /// # Errors
    /// The host's reason why it can't be opened.
    fn open(&self) -> io::Result<Box<dyn Read + Send>>;

    /// Names the layer in messages, such as by its digest or path.
    fn describe(&self) -> String;
}

/// A layer blob in a file of the host.
#[derive(Debug, Clone)]
pub struct FileLayer {
    path: PathBuf,
}

impl FileLayer {
    /// The layer blob at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

impl LayerSource for FileLayer {
    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(File::open(&self.path)?))
    }

    fn describe(&self) -> String {
        self.path.display().to_string()
    }
}

/// A layer blob in memory.
#[derive(Clone)]
pub struct BytesLayer {
    name: String,
    bytes: Arc<[u8]>,
}

impl BytesLayer {
    /// The layer blob `bytes`, called `name` in messages.
    pub fn new(name: impl Into<String>, bytes: impl Into<Arc<[u8]>>) -> Self {
        Self { name: name.into(), bytes: bytes.into() }
    }
}

impl fmt::Debug for BytesLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BytesLayer").field("name", &self.name).field("len", &self.bytes.len()).finish()
    }
}

impl LayerSource for BytesLayer {
    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(Cursor::new(Arc::clone(&self.bytes))))
    }

    fn describe(&self) -> String {
        self.name.clone()
    }
}

const RAW_BUFFER: usize = 128 << 10;

/// The decompressed bytes of one opened layer.
pub(crate) struct Uncompressed {
    reader: Box<dyn Read + Send>,
    compression: Compression,
    raw: Arc<Raw>,
}

/// What happened on the raw side, below the decompressor.
#[derive(Default)]
struct Raw {
    bytes: AtomicU64,
    failed: AtomicBool,
}

struct RawReader {
    reader: Box<dyn Read + Send>,
    raw: Arc<Raw>,
}

impl Read for RawReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.reader.read(buffer) {
                Ok(n) => {
                    self.raw.bytes.fetch_add(n as u64, Ordering::Relaxed);
                    return Ok(n);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    self.raw.failed.store(true, Ordering::Relaxed);
                    return Err(e);
                }
            }
        }
    }
}

impl Uncompressed {
    pub(crate) fn open(source: &dyn LayerSource) -> Result<Self, Fault> {
        let raw = Arc::new(Raw::default());
        let reader = RawReader { reader: source.open().map_err(Fault::Open)?, raw: Arc::clone(&raw) };
        let mut reader = BufReader::with_capacity(RAW_BUFFER, reader);
        let mut head = Vec::new();
        // A pipe may give fewer bytes at a time than a magic has.
        (&mut reader).take(6).read_to_end(&mut head).map_err(Fault::Read)?;
        let compression = Compression::recognise(&head);
        let reader = compression.decompress(Cursor::new(head).chain(reader)).map_err(Fault::Read)?;
        Ok(Self { reader, compression, raw })
    }

    /// Raw bytes taken from the source so far.
    pub(crate) fn raw_bytes(&self) -> u64 {
        self.raw.bytes.load(Ordering::Relaxed)
    }

    /// Reads some bytes; 0 is the end of the whole stream.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Fault> {
        self.reader.read(buffer).map_err(|source| match self.compression {
            Compression::None => Fault::Read(source),
            _ if self.raw.failed.load(Ordering::Relaxed) => Fault::Read(source),
            compression => Fault::Decompress { compression, source },
        })
    }
}
