//! The 512-byte header of a tar entry.

use super::ArchiveError;

/// Tar's unit: headers are one block, contents are padded to whole ones.
pub(super) const BLOCK: usize = 512;

/// A header whose checksum is right.
#[derive(Debug)]
pub(super) struct Header(Box<[u8; BLOCK]>);

impl Header {
    pub(super) fn new(block: &[u8; BLOCK]) -> Result<Self, ArchiveError> {
        let stated = octal(&block[148..156]).ok_or(ArchiveError::Checksum)?;
        let sum = |value: fn(u8) -> i64| {
            let bytes = block.iter().enumerate();
            // The checksum's own field counts as blanks.
            bytes.map(|(at, byte)| value(if (148..156).contains(&at) { b' ' } else { *byte })).sum::<i64>()
        };
        // Some old writers summed signed bytes.
        let sums = [sum(i64::from), sum(|byte| i64::from(byte.cast_signed()))];
        if sums.iter().any(|sum| u64::try_from(*sum) == Ok(stated)) {
            Ok(Self(Box::new(*block)))
        } else {
            Err(ArchiveError::Checksum)
        }
    }

    pub(super) fn kind(&self) -> u8 {
        self.0[156]
    }

    /// From the fields for it, of which POSIX has a second; where GNU has other things.
    pub(super) fn name(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let prefix = if &self.0[257..263] == b"ustar\0" { text(&self.0[345..500]) } else { &[] };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    pub(super) fn link_name(&self) -> Vec<u8> {
        text(&self.0[157..257]).to_vec()
    }

    /// The twelve permission bits.
    pub(super) fn mode(&self) -> Result<u32, ArchiveError> {
        let mode = self.unsigned(100..108, "mode")?;
        // Some writers put the kind there as well.
        Ok(u32::try_from(mode & 0o7777).unwrap_or(0))
    }

    pub(super) fn uid(&self) -> Result<u32, ArchiveError> {
        self.small(108..116, "uid")
    }

    pub(super) fn gid(&self) -> Result<u32, ArchiveError> {
        self.small(116..124, "gid")
    }

    pub(super) fn size(&self) -> Result<u64, ArchiveError> {
        self.unsigned(124..136, "size")
    }

    pub(super) fn modified(&self) -> Result<i64, ArchiveError> {
        let seconds = number(&self.0[136..148]).and_then(|seconds| seconds.try_into().ok());
        seconds.ok_or(ArchiveError::Number("mtime"))
    }

    pub(super) fn major(&self) -> Result<u32, ArchiveError> {
        self.small(329..337, "devmajor")
    }

    pub(super) fn minor(&self) -> Result<u32, ArchiveError> {
        self.small(337..345, "devminor")
    }

    /// The part of GNU's header that begins the map of a sparse file: four extents, whether more follow, the size.
    pub(super) fn sparse(&self) -> (&[u8], bool, Result<u64, ArchiveError>) {
        (&self.0[386..482], self.0[482] != 0, self.unsigned(483..495, "realsize"))
    }

    fn small(&self, field: std::ops::Range<usize>, name: &'static str) -> Result<u32, ArchiveError> {
        self.unsigned(field, name)?.try_into().map_err(|_| ArchiveError::Number(name))
    }

    fn unsigned(&self, field: std::ops::Range<usize>, name: &'static str) -> Result<u64, ArchiveError> {
        number(&self.0[field]).and_then(|n| n.try_into().ok()).ok_or(ArchiveError::Number(name))
    }
}

/// The bytes before the first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A numeric field: octal digits, or GNU's base-256 where the first bit is set.
pub(super) fn number(field: &[u8]) -> Option<i128> {
    match field {
        [first, rest @ ..] if first & 0x80 != 0 => {
            // Two's complement of all bits but the first, whose neighbour is the sign.
            let sign = if first & 0x40 == 0 { 0 } else { -1 };
            let head = (sign << 6) | i128::from(first & 0x3f);
            rest.iter().try_fold(head, |n, byte| Some(n.checked_mul(256)? + i128::from(*byte)))
        }
        _ => octal(field).map(i128::from),
    }
}

/// Octal digits between optional blanks, up to a blank or NUL. An empty field is 0.
fn octal(field: &[u8]) -> Option<u64> {
    let digits = field.trim_ascii_start();
    let end = digits.iter().position(|byte| matches!(byte, 0 | b' ')).unwrap_or(digits.len());
    digits[..end].iter().try_fold(0_u64, |n, digit| match digit {
        b'0'..=b'7' => n.checked_mul(8)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}
