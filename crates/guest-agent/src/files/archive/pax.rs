//! Pax extended headers: records of `LENGTH KEY=VALUE\n`, whose values may hold any byte.

use super::ArchiveError;

/// What the pax header of one entry overrides. Extended attributes are passed over.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link_path: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) modified: Option<(i64, u32)>,
    /// Whether it describes a sparse file.
    pub(super) sparse: bool,
}

impl Pax {
    pub(super) fn parse(&mut self, mut records: &[u8]) -> Result<(), ArchiveError> {
        while !records.is_empty() {
            let (key, value, rest) = split(records).ok_or(ArchiveError::Pax)?;
            records = rest;
            // An empty value takes an override back.
            let given = !value.is_empty();
            match key {
                b"path" => self.path = given.then(|| value.to_vec()),
                b"linkpath" => self.link_path = given.then(|| value.to_vec()),
                b"size" => self.size = given.then(|| decimal(value, "size")).transpose()?,
                b"uid" => self.uid = given.then(|| id(value, "uid")).transpose()?,
                b"gid" => self.gid = given.then(|| id(value, "gid")).transpose()?,
                b"mtime" => {
                    let time = given.then(|| time(value).ok_or(ArchiveError::Number("mtime")));
                    self.modified = time.transpose()?;
                }
                _ if key.starts_with(b"GNU.sparse.") => self.sparse = true,
                _ => {}
            }
        }
        Ok(())
    }
}

/// Splits the first record off.
fn split(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = records.iter().take(20).position(|byte| *byte == b' ')?;
    let length = usize::try_from(decimal(&records[..blank], "").ok()?).ok()?;
    let record = records.get(..length)?;
    let body = record.get(blank + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    Some((&body[..equals], &body[equals + 1..], &records[length..]))
}

fn id(value: &[u8], field: &'static str) -> Result<u32, ArchiveError> {
    decimal(value, field)?.try_into().map_err(|_| ArchiveError::Number(field))
}

/// Decimal digits and nothing else: Rust's parser alone would take a sign.
fn decimal(value: &[u8], field: &'static str) -> Result<u64, ArchiveError> {
    let digits = value.iter().all(u8::is_ascii_digit).then(|| std::str::from_utf8(value).ok());
    digits.flatten().and_then(|digits| digits.parse().ok()).ok_or(ArchiveError::Number(field))
}

/// Seconds with an optional sign and fraction, as whole seconds and the nanoseconds after them.
fn time(value: &[u8]) -> Option<(i64, u32)> {
    let (negative, value) = value.strip_prefix(b"-").map_or((false, value), |rest| (true, rest));
    let dot = value.iter().position(|byte| *byte == b'.');
    let (whole, fraction) = dot.map_or((value, &[][..]), |dot| (&value[..dot], &value[dot + 1..]));
    if !fraction.iter().all(u8::is_ascii_digit) || whole.is_empty() {
        return None;
    }
    let seconds = i64::try_from(decimal(whole, "").ok()?).ok()?;
    let digits = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let nanoseconds = digits.fold(0_u32, |n, digit| n * 10 + u32::from(digit - b'0'));
    match (negative, nanoseconds) {
        (false, _) => Some((seconds, nanoseconds)),
        (true, 0) => Some((-seconds, 0)),
        (true, _) => Some((-seconds - 1, 1_000_000_000 - nanoseconds)),
    }
}
