//! From layers to the EROFS file: two passes over the layers, then one over the file for its digest.

use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::digest::{Digest, Hasher};
use crate::directory::DirectoryLayer;
use crate::erofs::{Layout, Place, write_contents, write_metadata};
use crate::error::{Error, Fault, printable};
use crate::layer::{EntryKind, LayerReader};
use crate::limits::Limits;
use crate::source::LayerSource;
use crate::tree::{DataSource, MergeFault, PendingLayer, Tree};

/// Changes whenever the same layers would give another file. A cache of built files must have it in its
/// key.
pub const LAYOUT_VERSION: u32 = 1;

/// Told how far a build is; [`ControlFlow::Break`] cancels it.
///
/// The number is of bytes read from the layers' sources, before decompression. It never falls, and ends at
/// twice the sum of the sources' sizes, since each is read twice. Calls come whenever it grows, and without
/// that every few megabytes of decompressed or written bytes.
pub type Progress<'a> = dyn FnMut(u64) -> ControlFlow<()> + 'a;

/// The EROFS file that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The digest of the EROFS file.
    pub digest: Digest,
    /// Its size in bytes, a multiple of 4096. Long runs of zeros in it may be holes on the host.
    pub size: u64,
    /// Names in the merged tree, the root included.
    pub entries: u64,
    /// The digest of each layer's uncompressed tar, bottom first: what an image's configuration calls diff
    /// IDs.
    pub diff_ids: Vec<Digest>,
}

/// Merges `layers`, the bottom first, and writes the EROFS file to `out`, whose former contents are lost.
///
/// `out` isn't synced. After an error it holds nothing of use.
///
/// # Errors
/// [`Error::Layer`] names the layer, entry and cause; [`Error::Output`] is the host's; [`Error::Cancelled`]
/// is the callback's.
pub fn build(
    layers: &[&dyn LayerSource],
    out: &mut File,
    limits: &Limits,
    progress: &mut Progress<'_>,
) -> Result<Built, Error> {
    let mut progress = Reporter { callback: progress, done: 0, last: 0, skipped: 0 };
    let mut tree = Tree::new(limits);
    let mut read = Vec::with_capacity(layers.len());
    for (number, layer) in (0..).zip(layers) {
        read.push(merge_layer(*layer, number, &mut tree, limits, &mut progress)?);
    }
    let layout = Layout::new(&tree)?;
    let output = |source| Error::Output { source };
    write_metadata(&tree, &layout, out).map_err(output)?;
    let files = layout.files(&tree);
    drop(tree);
    for (number, (layer, first)) in (0..).zip(layers.iter().zip(&read)) {
        let wanted = files.iter().filter(|(data, place)| data.layer == number && place.size > 0);
        copy_files(*layer, wanted, first, out, limits, &mut progress)?;
    }
    let digest = digest_of(out, layout.file_size(), &mut progress)?;
    let diff_ids = read.into_iter().map(|layer| layer.diff_id).collect();
    Ok(Built { digest, size: layout.file_size(), entries: layout.names(), diff_ids })
}

/// Makes the EROFS file of the root filesystem in a directory of the host: [`build`] with one
/// [`DirectoryLayer`].
///
/// # Errors
/// As [`build`]. What can't be read in the directory is the source of a [`Fault::Read`].
pub fn build_from_directory(
    directory: &Path,
    out: &mut File,
    limits: &Limits,
    progress: &mut Progress<'_>,
) -> Result<Built, Error> {
    build(&[&DirectoryLayer::new(directory)], out, limits, progress)
}

/// What the first pass learns of a layer, and the second must find again.
struct LayerRead {
    diff_id: Digest,
    raw_bytes: u64,
}

/// The first pass over one layer.
fn merge_layer(
    source: &dyn LayerSource,
    number: u32,
    tree: &mut Tree,
    limits: &Limits,
    progress: &mut Reporter<'_, '_>,
) -> Result<LayerRead, Error> {
    let mut reader = LayerReader::open(source, limits)?;
    let mut pending = PendingLayer::new(number);
    while let Some(entry) = reader.next_entry()? {
        tree.add(&mut pending, entry).map_err(|fault| reader.locate(fault))?;
        progress.at(reader.raw_bytes())?;
        while reader.next_data()?.is_some() {
            progress.at(reader.raw_bytes())?;
        }
    }
    let raw_bytes = reader.raw_bytes();
    let merged = tree.merge(pending, &mut || progress.report(raw_bytes));
    let merged = merged.map_err(|MergeFault { path, offset, fault }| Error::Layer {
        layer: source.describe(),
        path: Some(printable(&path)),
        offset,
        source: fault,
    })?;
    if merged.is_break() {
        return Err(Error::Cancelled);
    }
    finish(reader, progress)
}

/// The second pass over one layer: writes the contents of the files in `wanted`, which come in the layer's
/// order.
fn copy_files<'f>(
    source: &dyn LayerSource,
    wanted: impl Iterator<Item = &'f (DataSource, Place)>,
    first: &LayerRead,
    out: &File,
    limits: &Limits,
    progress: &mut Reporter<'_, '_>,
) -> Result<(), Error> {
    let mut wanted = wanted.peekable();
    if wanted.peek().is_none() {
        return progress.finished(first.raw_bytes);
    }
    let mut reader = LayerReader::open(source, limits)?;
    while let Some(entry) = reader.next_entry()? {
        progress.at(reader.raw_bytes())?;
        let Some((_, place)) = wanted.next_if(|(data, _)| data.ordinal == entry.ordinal) else {
            while reader.next_data()?.is_some() {
                progress.at(reader.raw_bytes())?;
            }
            continue;
        };
        if entry.kind != (EntryKind::File { size: place.size }) {
            return Err(reader.locate(Fault::Changed));
        }
        while let Some((offset, bytes)) = reader.next_data()? {
            write_contents(place, offset, bytes, out).map_err(|source| Error::Output { source })?;
            progress.at(reader.raw_bytes())?;
        }
    }
    let changed = reader.locate(Fault::Changed);
    let second = finish(reader, progress)?;
    if second.diff_id == first.diff_id { Ok(()) } else { Err(changed) }
}

/// Reads what is left of a layer behind its archive.
fn finish(mut reader: LayerReader<'_>, progress: &mut Reporter<'_, '_>) -> Result<LayerRead, Error> {
    while reader.drain()? {
        progress.at(reader.raw_bytes())?;
    }
    let raw_bytes = reader.raw_bytes();
    progress.finished(raw_bytes)?;
    Ok(LayerRead { diff_id: reader.finish(), raw_bytes })
}

fn digest_of(file: &File, size: u64, progress: &mut Reporter<'_, '_>) -> Result<Digest, Error> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    let mut offset = 0;
    while offset < size {
        let count = usize::try_from(size - offset).unwrap_or(usize::MAX).min(buffer.len());
        file.read_exact_at(&mut buffer[..count], offset).map_err(|source| Error::Output { source })?;
        hasher.update(&buffer[..count]);
        offset += count as u64;
        progress.at(0)?;
    }
    Ok(hasher.finish())
}

/// Without any progress the callback is still asked whether to go on: after so many entries or buffers.
const MOST_SKIPPED: u32 = 64;

/// Adds the layers' bytes up for the callback.
struct Reporter<'a, 'b> {
    callback: &'a mut Progress<'b>,
    /// Bytes of the readings that are over.
    done: u64,
    /// What the callback was told last, and how often it was spared the same since.
    last: u64,
    skipped: u32,
}

impl Reporter<'_, '_> {
    /// So many bytes of the present reading.
    fn at(&mut self, raw_bytes: u64) -> Result<(), Error> {
        match self.report(raw_bytes) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Cancelled),
        }
    }

    fn report(&mut self, raw_bytes: u64) -> ControlFlow<()> {
        let bytes = self.done + raw_bytes;
        self.skipped += 1;
        if bytes == self.last && self.skipped < MOST_SKIPPED {
            return ControlFlow::Continue(());
        }
        (self.last, self.skipped) = (bytes, 0);
        (self.callback)(bytes)
    }

    /// The present reading is over.
    fn finished(&mut self, raw_bytes: u64) -> Result<(), Error> {
        self.done += raw_bytes;
        self.at(0)
    }
}
