//! The 512-byte header of a tar entry.

use crate::error::Fault;

/// Tar's unit: headers are one block, contents are padded to whole ones.
pub(crate) const BLOCK: usize = 512;

/// A header whose checksum is right.
pub(super) struct Header(pub(super) [u8; BLOCK]);

impl Header {
    pub(super) fn new(block: &[u8; BLOCK]) -> Result<Self, Fault> {
        let stated = octal(&block[148..156]).ok_or(Fault::Checksum)?;
        let sum = |byte: fn(u8) -> i64| -> i64 {
            let all: i64 = block.iter().map(|b| byte(*b)).sum();
            let field: i64 = block[148..156].iter().map(|b| byte(*b)).sum();
            all - field + 8 * i64::from(b' ')
        };
        // Some old writers summed signed bytes.
        let sums = [sum(i64::from), sum(|b| i64::from(b.cast_signed()))];
        if sums.iter().any(|sum| u64::try_from(*sum) == Ok(stated)) {
            Ok(Self(*block))
        } else {
            Err(Fault::Checksum)
        }
    }

    pub(super) fn entry_type(&self) -> u8 {
        self.0[156]
    }

    /// The path, from the prefix and name fields.
    pub(super) fn path(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let prefix = if self.is_ustar() { text(&self.0[345..500]) } else { &[] };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    pub(super) fn link_name(&self) -> Vec<u8> {
        text(&self.0[157..257]).to_vec()
    }

    pub(super) fn mode(&self) -> Result<u64, Fault> {
        self.unsigned(100..108, "mode")
    }

    pub(super) fn uid(&self) -> Result<u64, Fault> {
        self.unsigned(108..116, "uid")
    }

    pub(super) fn gid(&self) -> Result<u64, Fault> {
        self.unsigned(116..124, "gid")
    }

    pub(super) fn size(&self) -> Result<u64, Fault> {
        self.unsigned(124..136, "size")
    }

    pub(super) fn mtime(&self) -> Result<i64, Fault> {
        number(&self.0[136..148]).and_then(|n| n.try_into().ok()).ok_or(Fault::Number { field: "mtime" })
    }

    pub(super) fn device(&self) -> Result<(u64, u64), Fault> {
        Ok((self.unsigned(329..337, "devmajor")?, self.unsigned(337..345, "devminor")?))
    }

    fn unsigned(&self, field: std::ops::Range<usize>, name: &'static str) -> Result<u64, Fault> {
        number(&self.0[field]).and_then(|n| n.try_into().ok()).ok_or(Fault::Number { field: name })
    }

    /// POSIX's magic, whose headers have a prefix field; GNU's `ustar  ` has other things there.
    fn is_ustar(&self) -> bool {
        &self.0[257..263] == b"ustar\0"
    }
}

/// The bytes before the first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|b| *b == 0).next().unwrap_or_default()
}

/// A numeric field: octal digits, or GNU's base-256 where the first bit is set.
pub(super) fn number(field: &[u8]) -> Option<i128> {
    match field {
        [first, rest @ ..] if first & 0x80 != 0 => {
            // Two's complement of all bits but the first, whose neighbour is the sign.
            let sign = if first & 0x40 == 0 { 0 } else { -1 };
            let head = (sign << 6) | i128::from(first & 0x3f);
            rest.iter().try_fold(head, |n, b| Some(n.checked_mul(256)? + i128::from(*b)))
        }
        _ => octal(field).map(i128::from),
    }
}

/// Octal digits between optional blanks, up to a blank or NUL. An empty field is 0.
fn octal(field: &[u8]) -> Option<u64> {
    let digits = field.trim_ascii_start();
    let end = digits.iter().position(|b| *b == 0 || *b == b' ').unwrap_or(digits.len());
    digits[..end].iter().try_fold(0_u64, |n, b| match b {
        b'0'..=b'7' => n.checked_mul(8)?.checked_add(u64::from(b - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_every_spelling() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"    644 "), Some(0o644));
        assert_eq!(number(b"77777777"), Some(0o77_777_777));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"\x80\0\0\0\0\0\0\0\x01\0\0\0"), Some(1 << 24));
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(number(b"\x80\0\0\0\xff\xff\xff\xff"), Some(0xffff_ffff));
    }

    #[test]
    fn what_is_no_number_is_refused() {
        assert_eq!(number(b"12x\0\0\0\0\0"), None);
        assert_eq!(number(b"-1\0\0\0\0\0\0"), None);
        assert_eq!(number(b"0000008\0"), None);
    }

    #[test]
    fn base_256_keeps_numbers_too_large_for_any_field_apart() {
        let mut field = [0; 12];
        field[0] = 0x81;
        field[11] = 5;
        assert!(number(&field).unwrap() > i128::from(u64::MAX));
    }
}
