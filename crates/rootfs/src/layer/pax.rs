//! Pax extended headers: records of `LENGTH KEY=VALUE\n`, whose values may hold any byte.

use super::{Namespace, Xattrs};
use crate::error::Fault;
use crate::limits::{Limit, Limits};

/// What the pax header of one entry overrides.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link_path: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<(i64, u32)>,
    pub(super) xattrs: Xattrs,
    xattr_bytes: u64,
    pub(super) sparse: PaxSparse,
}

/// GNU's three ways to describe a sparse file in pax.
#[derive(Debug, Default)]
pub(super) struct PaxSparse {
    /// Format 1.0: the map stands before the contents.
    pub(super) version: Option<(u64, u64)>,
    /// The path, where the header's is a stand-in.
    pub(super) name: Option<Vec<u8>>,
    /// The size with holes.
    pub(super) size: Option<u64>,
    /// Formats 0.0 and 0.1: offsets and lengths by turns.
    pub(super) map: Option<Vec<u64>>,
}

impl Pax {
    pub(super) fn parse(&mut self, mut data: &[u8], limits: &Limits) -> Result<(), Fault> {
        let mut offset_count = 0_usize;
        while !data.is_empty() {
            let (key, value, rest) = record(data).ok_or(Fault::Pax)?;
            data = rest;
            self.set(key, value, &mut offset_count, limits)?;
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8], offsets: &mut usize, limits: &Limits) -> Result<(), Fault> {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            return self.set_xattr(name, value, limits);
        }
        match key {
            // An empty value takes an override back.
            b"path" => self.path = (!value.is_empty()).then(|| value.to_vec()),
            b"linkpath" => self.link_path = (!value.is_empty()).then(|| value.to_vec()),
            b"size" => self.size = optional(value, "pax size")?,
            b"uid" => self.uid = optional(value, "pax uid")?,
            b"gid" => self.gid = optional(value, "pax gid")?,
            b"mtime" if value.is_empty() => self.mtime = None,
            b"mtime" => self.mtime = Some(time(value).ok_or(Fault::Number { field: "pax mtime" })?),
            b"GNU.sparse.major" => {
                self.sparse.version.get_or_insert_default().0 = decimal(value, "pax sparse version")?;
            }
            b"GNU.sparse.minor" => {
                self.sparse.version.get_or_insert_default().1 = decimal(value, "pax sparse version")?;
            }
            b"GNU.sparse.name" => self.sparse.name = Some(value.to_vec()),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => {
                self.sparse.size = Some(decimal(value, "pax sparse size")?);
            }
            b"GNU.sparse.map" => {
                let numbers = value.split(|b| *b == b',').filter(|n| !n.is_empty());
                self.sparse.map =
                    Some(numbers.map(|n| decimal(n, "pax sparse map")).collect::<Result<_, _>>()?);
            }
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                let is_offset = key.ends_with(b"offset");
                if is_offset != offsets.is_multiple_of(2) {
                    return Err(Fault::Sparse);
                }
                *offsets += 1;
                self.sparse.map.get_or_insert_default().push(decimal(value, "pax sparse map")?);
            }
            _ => {}
        }
        Ok(())
    }

    fn set_xattr(&mut self, name: &[u8], value: &[u8], limits: &Limits) -> Result<(), Fault> {
        let Some((namespace, rest)) = Namespace::split(name) else { return Ok(()) };
        if rest.contains(&0) {
            return Err(Fault::Name);
        }
        // As stored: a header of four bytes, the name and the value, padded to four.
        self.xattr_bytes += (4 + rest.len() + value.len()).next_multiple_of(4) as u64;
        let allowed = limits.xattr_bytes_per_entry.min(MAX_XATTR_BYTES);
        if self.xattr_bytes > allowed || rest.len() > 255 || value.len() > usize::from(u16::MAX) {
            return Err(Fault::Limit { limit: Limit::XattrBytesPerEntry, allowed });
        }
        self.xattrs.insert((namespace, rest.into()), value.into());
        Ok(())
    }
}

/// EROFS counts an inode's attributes in 16 bits of units of 4 bytes.
const MAX_XATTR_BYTES: u64 = 65_534 * 4;

/// Splits the first record off.
fn record(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = data.iter().take(20).position(|b| *b == b' ')?;
    let length: usize = std::str::from_utf8(&data[..blank]).ok()?.parse().ok()?;
    let record = data.get(..length)?;
    let body = record.get(blank + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|b| *b == b'=')?;
    Some((&body[..equals], &body[equals + 1..], &data[length..]))
}

fn optional(value: &[u8], field: &'static str) -> Result<Option<u64>, Fault> {
    if value.is_empty() { Ok(None) } else { decimal(value, field).map(Some) }
}

/// Decimal digits and nothing else: Rust's parser alone would take a sign.
pub(super) fn decimal(value: &[u8], field: &'static str) -> Result<u64, Fault> {
    if !value.iter().all(u8::is_ascii_digit) {
        return Err(Fault::Number { field });
    }
    let text = std::str::from_utf8(value).map_err(|_| Fault::Number { field })?;
    text.parse().map_err(|_| Fault::Number { field })
}

/// Seconds with an optional sign and fraction, as whole seconds and the nanoseconds after them.
fn time(value: &[u8]) -> Option<(i64, u32)> {
    let (negative, value) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let (whole, fraction) = match value.iter().position(|b| *b == b'.') {
        Some(dot) => (&value[..dot], &value[dot + 1..]),
        None => (value, &[][..]),
    };
    if !fraction.iter().all(u8::is_ascii_digit) || whole.is_empty() {
        return None;
    }
    let seconds: i64 = decimal(whole, "").ok()?.try_into().ok()?;
    let digits = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let nanoseconds = digits.fold(0_u32, |n, digit| n * 10 + u32::from(digit - b'0'));
    match (negative, nanoseconds) {
        (false, _) => Some((seconds, nanoseconds)),
        (true, 0) => Some((-seconds, 0)),
        (true, _) => Some((-seconds - 1, 1_000_000_000 - nanoseconds)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(data: &[u8]) -> Result<Pax, Fault> {
        let mut pax = Pax::default();
        pax.parse(data, &Limits::default()).map(|()| pax)
    }

    #[test]
    fn values_may_hold_newlines_nuls_and_equals_signs() {
        let pax = parse(b"28 SCHILY.xattr.user.x=a\n=\0\n9 uid=12\n").unwrap();
        assert_eq!(pax.xattrs.values().next().unwrap().as_ref(), b"a\n=\0".as_slice());
        assert_eq!(pax.uid, Some(12));
    }

    #[test]
    fn times_keep_their_fraction_and_sign() {
        assert_eq!(time(b"1.5"), Some((1, 500_000_000)));
        assert_eq!(time(b"1.0000000019"), Some((1, 1)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"-3"), Some((-3, 0)));
        for bad in [&b""[..], b".5", b"1.x", b"1e5", b"--1", b"99999999999999999999"] {
            assert_eq!(time(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn malformed_records_are_refused() {
        for bad in [
            &b"9 uid=123\n"[..],
            b"99 uid=1\n",
            b"8 uid=1x",
            b"uid=1\n",
            b"0 \n",
            b"5 uid\n",
            b"+9 uid=12\n",
            b"3 \n",
        ] {
            assert!(matches!(parse(bad), Err(Fault::Pax)), "{:?}", parse(bad));
        }
        assert!(matches!(parse(b"9 uid=-2\n"), Err(Fault::Number { .. })));
    }

    #[test]
    fn attributes_of_other_systems_and_of_overlays_are_dropped() {
        let mut data = Vec::new();
        for name in
            ["com.apple.x", "system.nfs4_acl", "trusted.overlay.opaque", "user.", "security.capability"]
        {
            let body = format!(" SCHILY.xattr.{name}=v\n");
            data.extend_from_slice(format!("{}{body}", body.len() + 2).as_bytes());
        }
        let pax = parse(&data).unwrap();
        assert_eq!(
            pax.xattrs.keys().collect::<Vec<_>>(),
            [&(Namespace::Security, b"capability".as_slice().into())]
        );
    }
}
