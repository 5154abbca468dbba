//! Where the entries of a tar lie, so that they can be read in any order.
//!
//! The headers' fields are the tar crate's to read; its own walk over an archive would keep names of any length in
//! memory, and an archive of images is as hostile as its maker.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
};

use tar::{EntryType, Header, PaxExtensions};

use crate::{Error, Result};

const BLOCK: u64 = 512;
const MAX_EXTENSION: u64 = 1 << 20;
const MAX_LINKS: usize = 8;

#[derive(Debug, Clone)]
enum Target {
    File {
        offset: u64,
        size: u64,
    },
    /// Old archives have a layer once and link to it.
    Link(String),
}

/// The files of a tar, by name.
#[derive(Debug)]
pub(super) struct Sections {
    file: Arc<File>,
    targets: BTreeMap<String, Target>,
}

/// The content of one file of a tar.
#[derive(Debug)]
pub(super) struct Section {
    file: Arc<File>,
    offset: u64,
    left: u64,
}

impl Section {
    pub(super) fn len(&self) -> u64 {
        self.left
    }
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if wanted == 0 {
            return Ok(0);
        }
        let n = self.file.read_at(&mut buffer[..wanted], self.offset)?;
        if n == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive has become shorter"));
        }
        self.offset += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}

/// What an extension header says of the entry that follows it.
#[derive(Default)]
struct Extension {
    path: Option<String>,
    link: Option<String>,
    size: Option<u64>,
}

impl Sections {
    /// Reads all headers, at most `limit`.
    pub(super) fn read(file: File, path: &Path, limit: usize) -> Result<Self> {
        let malformed = |detail: String| Error::io("read the archive", path)(io::Error::other(detail));
        let length = file.metadata().map_err(Error::io("inspect", path))?.len();
        let mut sections = Self { file: Arc::new(file), targets: BTreeMap::new() };
        let mut extension = Extension::default();
        let mut at = 0_u64;
        let mut count = 0;
        while at + BLOCK <= length {
            let mut header = Header::new_old();
            sections.file.read_exact_at(header.as_mut_bytes(), at).map_err(Error::io("read", path))?;
            if header.as_bytes().iter().all(|byte| *byte == 0) {
                break;
            }
            count += 1;
            if count > limit {
                let what = path.display().to_string();
                return Err(Error::Limit {
                    what,
                    field: "entries",
                    actual: count as u64,
                    allowed: limit as u64,
                });
            }
            if header.cksum().ok() != Some(checksum(&header)) {
                return Err(malformed(format!("what is at byte {at} is no tar header")));
            }
            let stated =
                header.entry_size().map_err(|_| malformed(format!("the size at byte {at} is no number")))?;
            let kind = header.entry_type();
            let is_extension =
                matches!(kind, EntryType::XHeader | EntryType::GNULongName | EntryType::GNULongLink);
            let size = if is_extension { stated } else { extension.size.unwrap_or(stated) };
            let content = at + BLOCK;
            let next = size.checked_next_multiple_of(BLOCK).and_then(|padded| content.checked_add(padded));
            let Some(next) = next.filter(|_| size <= length - content) else {
                return Err(malformed(format!("the entry at byte {at} is cut short")));
            };
            if is_extension {
                if size > MAX_EXTENSION {
                    return Err(malformed(format!("the extension header at byte {at} is too large")));
                }
                let mut text = Vec::new();
                let mut section = Section { file: Arc::clone(&sections.file), offset: content, left: size };
                section.read_to_end(&mut text).map_err(Error::io("read", path))?;
                extension.add(kind, &text);
            } else {
                sections.add(&header, std::mem::take(&mut extension), content, size);
            }
            at = next;
        }
        Ok(sections)
    }

    fn add(&mut self, header: &Header, extension: Extension, offset: u64, size: u64) {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        let Some(path) = extension.path.or_else(|| text(&header.path_bytes())).and_then(|path| normal(&path))
        else {
            return;
        };
        let link = || extension.link.or_else(|| text(&header.link_name_bytes()?));
        let target = match header.entry_type() {
            EntryType::Regular | EntryType::Continuous => Some(Target::File { offset, size }),
            EntryType::Link => link().and_then(|link| normal(&link)).map(Target::Link),
            EntryType::Symlink => {
                let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
                link().and_then(|link| normal(&format!("{dir}/{link}"))).map(Target::Link)
            }
            // Directories; and what means nothing here.
            _ => None,
        };
        self.targets.extend(target.map(|target| (path, target)));
    }

    /// The file of that name, through links.
    pub(super) fn find(&self, name: &str) -> Option<Section> {
        let mut name = normal(name)?;
        for _ in 0..MAX_LINKS {
            match self.targets.get(&name)? {
                Target::Link(target) => name.clone_from(target),
                Target::File { offset, size } => {
                    return Some(Section { file: Arc::clone(&self.file), offset: *offset, left: *size });
                }
            }
        }
        None
    }
}

impl Extension {
    fn add(&mut self, kind: EntryType, text: &[u8]) {
        let string = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        let until_nul = || string(text.split(|byte| *byte == 0).next().unwrap_or_default());
        match kind {
            EntryType::GNULongName => self.path = until_nul(),
            EntryType::GNULongLink => self.link = until_nul(),
            _ => {
                for field in PaxExtensions::new(text).flatten() {
                    match field.key_bytes() {
                        b"path" => self.path = string(field.value_bytes()),
                        b"linkpath" => self.link = string(field.value_bytes()),
                        b"size" => self.size = field.value().ok().and_then(|size| size.parse().ok()),
                        _ => {}
                    }
                }
            }
        }
    }
}

fn checksum(header: &Header) -> u32 {
    let bytes = header.as_bytes().iter().enumerate();
    // Its own field counts as spaces.
    bytes.map(|(at, byte)| if (148..156).contains(&at) { u32::from(b' ') } else { u32::from(*byte) }).sum()
}

/// A name without `.` and `..`; `None` if it leads out of the archive or nowhere.
fn normal(name: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests;
