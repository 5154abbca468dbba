//! Reads files out of a Debian package, without unpacking it to disk.
//!
//! A package is an `ar` archive with a compressed tar in it. Both are read here, through the `ar` and `tar` crates:
//! with `dpkg-deb --fsys-tarfile` there would be one more process to limit and to clean up after, and a package could
//! not be read where dpkg is not installed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Component, Path};

use crate::decompress::Format;
use crate::{Error, Result};

/// The most that a package may unpack to, taken or not. Debian's cloud kernels need a tenth of it.
const UNPACKED_LIMIT: u64 = 1 << 30;
/// The most that one file of a package may hold.
const FILE_LIMIT: u64 = 256 << 20;
/// How many entries a package may have.
const ENTRIES_MAX: usize = 100_000;

/// Why a package cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DebError {
    /// The file is no Debian package.
    #[error("it is no Debian package")]
    NotADeb,
    /// The package has no files.
    #[error("it has no data.tar")]
    NoData,
    /// The files are packed in a form that is not supported.
    #[error("its data.tar is packed in a form unknown here; known are xz, zstd and gzip")]
    UnknownCompression,
    /// The archive does not unpack.
    #[error("its archive is damaged")]
    Damaged(#[source] io::Error),
    /// A path leads out of the package.
    #[error("it has a file with the path {path}")]
    Path {
        /// The path.
        path: String,
    },
    /// A file is larger than any of its kind.
    #[error("its file {path} is larger than {limit} bytes")]
    FileTooLarge {
        /// The path.
        path: String,
        /// The most that is accepted, in bytes.
        limit: u64,
    },
    /// The package has more in it than any of its kind.
    #[error("it has more than {limit} {what}")]
    TooLarge {
        /// Bytes or entries.
        what: &'static str,
        /// The most that is accepted.
        limit: u64,
    },
}

/// The regular files of a package whose path, without a leading `/` or `./`, is `wanted`.
pub(crate) fn files(deb: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<BTreeMap<String, Vec<u8>>> {
    let file = File::open(deb).map_err(Error::read(deb))?;
    read(BufReader::new(file), wanted).map_err(|source| Error::Deb { path: deb.into(), source })
}

fn read(deb: impl Read, wanted: &dyn Fn(&str) -> bool) -> Result<BTreeMap<String, Vec<u8>>, DebError> {
    let mut archive = ar::Archive::new(deb);
    let mut first = true;
    while let Some(member) = archive.next_entry() {
        let member = member.map_err(|error| if first { DebError::NotADeb } else { DebError::Damaged(error) });
        let mut member = BufReader::new(member?);
        let name = member.get_ref().header().identifier().to_vec();
        if std::mem::take(&mut first) && name != b"debian-binary" {
            return Err(DebError::NotADeb);
        }
        if name.starts_with(b"data.tar") {
            let start = io::BufRead::fill_buf(&mut member).map_err(DebError::Damaged)?;
            let format = Format::detect(start).ok_or(DebError::UnknownCompression)?;
            return read_tar(format.reader(member).map_err(DebError::Damaged)?, wanted);
        }
    }
    Err(if first { DebError::NotADeb } else { DebError::NoData })
}

fn read_tar(tar: impl Read, wanted: &dyn Fn(&str) -> bool) -> Result<BTreeMap<String, Vec<u8>>, DebError> {
    let mut archive = tar::Archive::new(tar.take(UNPACKED_LIMIT));
    let mut files = BTreeMap::new();
    for (count, entry) in archive.entries().map_err(DebError::Damaged)?.enumerate() {
        if count >= ENTRIES_MAX {
            return Err(DebError::TooLarge { what: "entries", limit: ENTRIES_MAX as u64 });
        }
        let mut entry = entry.map_err(DebError::Damaged)?;
        let path = plain_path(&entry.path().map_err(DebError::Damaged)?)?;
        if !entry.header().entry_type().is_file() || !wanted(&path) {
            continue;
        }
        let mut bytes = Vec::new();
        (&mut entry).take(FILE_LIMIT + 1).read_to_end(&mut bytes).map_err(DebError::Damaged)?;
        if bytes.len() as u64 > FILE_LIMIT {
            return Err(DebError::FileTooLarge { path, limit: FILE_LIMIT });
        }
        if bytes.len() as u64 != entry.size() {
            return Err(DebError::Damaged(io::ErrorKind::UnexpectedEof.into()));
        }
        files.insert(path, bytes);
    }
    if archive.into_inner().limit() == 0 {
        return Err(DebError::TooLarge { what: "bytes", limit: UNPACKED_LIMIT });
    }
    Ok(files)
}

/// The path with nothing but names in it.
fn plain_path(path: &Path) -> Result<String, DebError> {
    let refused = || DebError::Path { path: path.to_string_lossy().into_owned() };
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.to_str().ok_or_else(refused)?),
            Component::CurDir | Component::RootDir => (),
            Component::ParentDir | Component::Prefix(_) => return Err(refused()),
        }
    }
    Ok(names.join("/"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::decompress::tests::pack;

    /// A package with these files; paths go in as they are, hostile ones too.
    pub(crate) fn deb(files: &[(&str, &[u8])], format: Format) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            tar.append(&header, *bytes).unwrap();
        }
        let data = pack(format, &tar.into_inner().unwrap());
        let mut deb = ar::Builder::new(Vec::new());
        for (name, bytes) in
            [("debian-binary", b"2.0\n".as_slice()), ("control.tar.xz", b"odd"), ("data.tar.xz", &data)]
        {
            deb.append(&ar::Header::new(name.into(), bytes.len() as u64), bytes).unwrap();
        }
        deb.into_inner().unwrap()
    }

    #[test]
    fn wanted_files_are_read_in_every_form() {
        for format in [Format::Xz, Format::Zstd, Format::Gzip] {
            let deb = deb(&[("./boot/vmlinuz", b"kernel"), ("./usr/share/doc", b"text")], format);
            let files = read(deb.as_slice(), &|path| path.starts_with("boot/")).unwrap();
            assert_eq!(
                files,
                BTreeMap::from([("boot/vmlinuz".to_owned(), b"kernel".to_vec())]),
                "{format:?}"
            );
        }
    }

    #[test]
    fn a_path_with_dotdot_is_refused() {
        let deb = deb(&[("./boot/../../etc/passwd", b"")], Format::Xz);
        let error = read(deb.as_slice(), &|_| true).unwrap_err();
        assert!(matches!(error, DebError::Path { .. }), "{error}");
    }

    #[test]
    fn a_cut_package_is_damaged() {
        let deb = deb(&[("./boot/vmlinuz", &vec![7; 100_000])], Format::Xz);
        let error = read(&deb[..deb.len() - 100], &|_| true).unwrap_err();
        assert!(matches!(error, DebError::Damaged(_)), "{error}");
    }

    #[test]
    fn other_files_are_no_packages() {
        assert!(matches!(read(b"".as_slice(), &|_| true), Err(DebError::NotADeb)));
        let mut other = ar::Builder::new(Vec::new());
        other.append(&ar::Header::new(b"lib.o".to_vec(), 1), b"x".as_slice()).unwrap();
        assert!(matches!(read(other.into_inner().unwrap().as_slice(), &|_| true), Err(DebError::NotADeb)));
        assert!(matches!(read(b"#!/bin/sh\necho".as_slice(), &|_| true), Err(DebError::NotADeb)));
    }

    #[test]
    fn a_file_too_large_is_refused() {
        let deb = deb(&[("./boot/vmlinuz", &vec![0; 257 << 20])], Format::Zstd);
        let error = read(deb.as_slice(), &|_| true).unwrap_err();
        assert!(matches!(error, DebError::FileTooLarge { .. }), "{error}");
    }
}
