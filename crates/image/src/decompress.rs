//! Decompression of whole files: archives of images, and tars whose plain digest is wanted.

use std::io::{self, BufReader, Cursor, Read};

use cellule_rootfs::Compression;

/// As much memory as a hostile file can make the decompressors take.
const ZSTD_WINDOW_LOG: u32 = 27;
const XZ_MEMORY: u64 = 128 << 20;

const MAGIC: u64 = 6;

/// Recognises the compression by the first bytes, which the returned reader gives again.
pub(crate) fn recognise(reader: &mut (dyn Read + Send)) -> io::Result<(Compression, impl Read + Send + '_)> {
    let mut head = Vec::new();
    reader.take(MAGIC).read_to_end(&mut head)?;
    Ok((Compression::recognise(&head), Cursor::new(head).chain(reader)))
}

/// The plain bytes of a compressed file.
pub(crate) fn decompress<'a>(
    compression: Compression,
    reader: impl Read + Send + 'a,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    let reader = BufReader::with_capacity(128 << 10, reader);
    Ok(match compression {
        Compression::None => Box::new(reader),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        Compression::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(reader)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
        Compression::Xz => {
            let stream =
                liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(reader, stream))
        }
    })
}
