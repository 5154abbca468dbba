//! Unpacks the compressed forms that kernels, modules and packages come in, never to more than a limit.

use std::io::{self, Read};

/// The window a zstd frame may ask for, as a power of two: kernels are packed with up to 128 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// What the xz decoder may allocate: its largest preset needs 65 MiB, the kernel's own script asks for 32 MiB more.
const XZ_MEMORY_LIMIT: u64 = 160 << 20;
/// A block of the legacy LZ4 form never unpacks to more.
const LZ4_BLOCK: usize = 8 << 20;

/// Why something could not be unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecompressError {
    /// The data does not unpack.
    #[error("the {format} data is damaged")]
    Damaged {
        /// The name of the form.
        format: &'static str,
        /// What the decoder said.
        source: io::Error,
    },
    /// The data unpacks to more than is accepted.
    #[error("the {format} data unpacks to more than {limit} bytes")]
    TooLarge {
        /// The name of the form.
        format: &'static str,
        /// The most that is accepted, in bytes.
        limit: u64,
    },
}

/// A compressed form, told by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Gzip,
    Xz,
    Zstd,
    /// LZ4 as `lz4 -l` writes it and the kernel reads it: blocks with their length, and no end mark.
    Lz4Legacy,
}

impl Format {
    /// Recognises the form of some data by its magic bytes.
    pub(crate) fn detect(data: &[u8]) -> Option<Self> {
        const MAGIC: [(&[u8], Format); 4] = [
            (b"\x1f\x8b", Format::Gzip),
            (b"\xfd7zXZ\0", Format::Xz),
            (b"\x28\xb5\x2f\xfd", Format::Zstd),
            (b"\x02\x21\x4c\x18", Format::Lz4Legacy),
        ];
        MAGIC.into_iter().find(|(magic, _)| data.starts_with(magic)).map(|(_, format)| format)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Lz4Legacy => "lz4",
        }
    }

    /// Unpacks all of `data`, to at most `limit` bytes. What follows the first stream or frame is not looked at.
    pub(crate) fn unpack(self, data: &[u8], limit: u64) -> Result<Vec<u8>, DecompressError> {
        let damaged = |source| DecompressError::Damaged { format: self.name(), source };
        let too_large = || DecompressError::TooLarge { format: self.name(), limit };
        let mut unpacked = Vec::new();
        if self == Self::Lz4Legacy {
            unpack_lz4(data, limit, &mut unpacked).map_err(damaged)?;
        } else {
            self.reader(data)
                .and_then(|reader| reader.take(limit.saturating_add(1)).read_to_end(&mut unpacked))
                .map_err(damaged)?;
        }
        if unpacked.len() as u64 > limit { Err(too_large()) } else { Ok(unpacked) }
    }

    /// Unpacks while it is read; for streams that have no end in memory.
    pub(crate) fn reader<'a>(self, data: impl io::BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Self::Gzip => Box::new(flate2::bufread::GzDecoder::new(data)),
            Self::Xz => {
                let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY_LIMIT, 0)?;
                Box::new(liblzma::bufread::XzDecoder::new_stream(data, stream))
            }
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(data)?.single_frame();
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Box::new(decoder)
            }
            Self::Lz4Legacy => return Err(io::ErrorKind::Unsupported.into()),
        })
    }
}

/// Unpacks block by block; stops as soon as `limit` is passed.
fn unpack_lz4(data: &[u8], limit: u64, unpacked: &mut Vec<u8>) -> io::Result<()> {
    let mut rest = data.get(4..).ok_or(io::ErrorKind::UnexpectedEof)?;
    let mut block = vec![0; LZ4_BLOCK];
    while !rest.is_empty() && unpacked.len() as u64 <= limit {
        let (length, tail) = rest.split_first_chunk::<4>().ok_or(io::ErrorKind::UnexpectedEof)?;
        let length = u32::from_le_bytes(*length) as usize;
        let packed = tail.get(..length).ok_or(io::ErrorKind::UnexpectedEof)?;
        let size = lz4_flex::block::decompress_into(packed, &mut block).map_err(io::Error::other)?;
        unpacked.extend_from_slice(&block[..size]);
        rest = &tail[length..];
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;

    use super::*;

    /// Packs for tests; the forms' own test data would say less than real encoders.
    pub(crate) fn pack(format: Format, data: &[u8]) -> Vec<u8> {
        match format {
            Format::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap()
            }
            Format::Xz => {
                let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap()
            }
            Format::Zstd => zstd::stream::encode_all(data, 1).unwrap(),
            Format::Lz4Legacy => {
                let mut packed = b"\x02\x21\x4c\x18".to_vec();
                for block in data.chunks(LZ4_BLOCK) {
                    let block = lz4_flex::block::compress(block);
                    packed.extend(u32::try_from(block.len()).unwrap().to_le_bytes());
                    packed.extend(block);
                }
                packed
            }
        }
    }

    pub(crate) const ALL: [Format; 4] = [Format::Gzip, Format::Xz, Format::Zstd, Format::Lz4Legacy];

    #[test]
    fn every_form_is_recognised_and_unpacked() {
        let data: Vec<u8> = (0..9000_u32).flat_map(|i| [i.to_le_bytes()[0]; 1000]).collect();
        for format in ALL {
            let packed = pack(format, &data);
            assert_eq!(Format::detect(&packed), Some(format));
            assert!(format.unpack(&packed, data.len() as u64).unwrap() == data, "{format:?}");
        }
    }

    #[test]
    fn a_bomb_is_refused_at_the_limit() {
        for format in ALL {
            let bomb = pack(format, &vec![0; 20_000_000]);
            let error = format.unpack(&bomb, 1000).unwrap_err();
            assert!(matches!(error, DecompressError::TooLarge { limit: 1000, .. }), "{format:?}: {error}");
        }
    }

    #[test]
    fn cut_data_is_damaged() {
        for format in ALL {
            let data: Vec<u8> = (0..100_000_u32).map(|i| i.wrapping_mul(i).to_le_bytes()[1]).collect();
            let packed = pack(format, &data);
            let error = format.unpack(&packed[..packed.len() - 20], 1 << 20).unwrap_err();
            assert!(matches!(error, DecompressError::Damaged { .. }), "{format:?}: {error}");
        }
    }

    #[test]
    fn unknown_data_has_no_form() {
        assert_eq!(Format::detect(b"BZh9"), None);
        assert_eq!(Format::detect(b""), None);
    }
}
