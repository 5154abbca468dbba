//! One tar entry from what the host says of a file.

use std::ffi::CString;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{Stat, lgetxattr, llistxattr};
use tar::{Builder, EntryType, Header};

/// What an entry has besides its contents.
pub(super) struct Described<'a> {
    pub(super) path: &'a [u8],
    pub(super) stat: &'a Stat,
    /// The user and the group that are written.
    pub(super) owner: (u32, u32),
    /// Full names and values, sorted by name.
    pub(super) xattrs: Vec<(String, Vec<u8>)>,
}

/// The type of an entry, and what belongs to that type alone.
pub(super) enum Body<'a> {
    Directory,
    File(&'a mut dyn Read, u64),
    Symlink(&'a [u8]),
    HardLink(&'a [u8]),
    CharDevice,
    BlockDevice,
    Fifo,
}

/// Writes an entry: a POSIX header, and before it a pax header with what doesn't fit.
pub(super) fn append<W: Write>(
    tar: &mut Builder<W>,
    entry: &Described<'_>,
    body: Body<'_>,
) -> io::Result<()> {
    let Described { path, stat, owner, xattrs } = entry;
    let mut header = Header::new_ustar();
    let mut pax: Vec<(&str, Vec<u8>)> = Vec::new();
    let mut empty = io::empty();
    let (entry_type, link, contents, size): (_, &[u8], &mut dyn Read, u64) = match body {
        Body::Directory => (EntryType::Directory, b"", &mut empty, 0),
        Body::File(contents, size) => (EntryType::Regular, b"", contents, size),
        Body::Symlink(target) => (EntryType::Symlink, target, &mut empty, 0),
        Body::HardLink(target) => (EntryType::Link, target, &mut empty, 0),
        Body::CharDevice => (EntryType::Char, b"", &mut empty, 0),
        Body::BlockDevice => (EntryType::Block, b"", &mut empty, 0),
        Body::Fifo => (EntryType::Fifo, b"", &mut empty, 0),
    };
    header.set_entry_type(entry_type);
    header.set_mode(stat.st_mode & 0o7777);
    let fields = header.as_old_mut();
    if !fits(&mut fields.name, path) {
        pax.push(("path", path.to_vec()));
    }
    if !fits(&mut fields.linkname, link) {
        pax.push(("linkpath", link.to_vec()));
    }
    for (name, value, set) in [
        ("uid", u64::from(owner.0), Header::set_uid as fn(&mut Header, u64)),
        ("gid", u64::from(owner.1), Header::set_gid),
    ] {
        let fits = value < 1 << 21;
        set(&mut header, if fits { value } else { 0 });
        if !fits {
            pax.push((name, value.to_string().into_bytes()));
        }
    }
    let whole = u64::try_from(stat.st_mtime).ok().filter(|seconds| *seconds < 1 << 33);
    header.set_mtime(whole.unwrap_or(0));
    if whole.is_none() || stat.st_mtime_nsec != 0 {
        pax.push(("mtime", time(stat.st_mtime, stat.st_mtime_nsec)));
    }
    header.set_size(if size < 1 << 33 { size } else { 0 });
    if size >= 1 << 33 {
        pax.push(("size", size.to_string().into_bytes()));
    }
    if matches!(entry_type, EntryType::Char | EntryType::Block) {
        header.set_device_major(rustix::fs::major(stat.st_rdev))?;
        header.set_device_minor(rustix::fs::minor(stat.st_rdev))?;
    }
    header.set_cksum();
    let xattrs: Vec<_> = xattrs.iter().map(|(name, value)| (format!("SCHILY.xattr.{name}"), value)).collect();
    let records = pax.iter().map(|(key, value)| (*key, value.as_slice()));
    tar.append_pax_extensions(
        records.chain(xattrs.iter().map(|(key, value)| (key.as_str(), value.as_slice()))),
    )?;
    tar.append(&header, contents)
}

/// Puts a text into a field, as far as there is room. False: there wasn't.
fn fits(field: &mut [u8; 100], text: &[u8]) -> bool {
    let count = text.len().min(field.len());
    field[..count].copy_from_slice(&text[..count]);
    count == text.len()
}

/// Pax writes times as decimal numbers; before 1970 the fraction counts away from zero.
fn time(seconds: i64, nanoseconds: impl Into<i128>) -> Vec<u8> {
    let total = i128::from(seconds) * 1_000_000_000 + nanoseconds.into();
    let sign = if total < 0 { "-" } else { "" };
    let (seconds, nanoseconds) = (total.unsigned_abs() / 1_000_000_000, total.unsigned_abs() % 1_000_000_000);
    format!("{sign}{seconds}.{nanoseconds:09}").into_bytes()
}

/// The extended attributes of `name` in `directory` that go into images, sorted.
pub(super) fn xattrs(directory: &OwnedFd, name: &[u8]) -> io::Result<Vec<(String, Vec<u8>)>> {
    // These calls take no directory descriptor, and one of the file itself would need the right to read it.
    // /proc names the open directory, wherever it is by now; the last component isn't followed.
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    let path = CString::new(path)?;
    let list = match sized(|buffer| llistxattr(&path, buffer)) {
        Err(rustix::io::Errno::NOTSUP) => return Ok(Vec::new()),
        list => list?,
    };
    let mut found = Vec::new();
    for name in list.split(|b| *b == 0).filter_map(|name| std::str::from_utf8(name).ok()) {
        let wanted = name.starts_with("user.")
            || matches!(name, "security.capability" | "system.posix_acl_access" | "system.posix_acl_default");
        if wanted {
            found.push((name.to_owned(), sized(|buffer| lgetxattr(&path, name, buffer))?));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Calls with a buffer that holds any list or value that Linux has.
fn sized(call: impl FnOnce(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut buffer = vec![0; 64 << 10];
    let size = call(&mut buffer)?;
    buffer.truncate(size);
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_are_written_as_pax_reads_them() {
        assert_eq!(time(1, 5_i64), b"1.000000005");
        assert_eq!(time(-2, 750_000_000_i64), b"-1.250000000");
        assert_eq!(time(-1, 0_i64), b"-1.000000000");
    }
}
