//! Reads what is in an EROFS file, and checks on the way all that the kernel relies on.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use cellule_rootfs::{Built, Digest};

const BLOCK: usize = 4096;

/// Everything in an image, by path without a leading slash; the root is empty.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) nodes: BTreeMap<String, Node>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: (i64, u32),
    pub(crate) links: u32,
    pub(crate) xattrs: BTreeMap<String, Vec<u8>>,
    pub(crate) nid: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File(Vec<u8>),
    Symlink(String),
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
}

impl Image {
    /// Reads the whole file and walks it from the root.
    pub(crate) fn read(file: &File, built: &Built) -> Self {
        let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(Digest::of(&bytes), built.digest);
        assert_eq!(bytes.len() as u64, built.size);
        let reader = Reader { bytes };
        let mut nodes = BTreeMap::new();
        let inodes = reader.check_superblock();
        let root = u64::from(reader.u16(1024 + 14));
        // Not recursive: paths may be deep.
        let mut ahead = vec![(String::new(), root, root)];
        while let Some((path, nid, parent)) = ahead.pop() {
            reader.visit(&path, nid, parent, &mut nodes, &mut ahead);
        }
        assert_eq!(nodes.len() as u64, built.entries);
        let mut links: BTreeMap<u64, u32> = BTreeMap::new();
        let mut subdirectories: BTreeMap<&str, u32> = BTreeMap::new();
        for (path, node) in &nodes {
            *links.entry(node.nid).or_default() += 1;
            if node.kind == Kind::Directory && !path.is_empty() {
                *subdirectories.entry(path.rsplit_once('/').map_or("", |(parent, _)| parent)).or_default() +=
                    1;
            }
        }
        for (path, node) in nodes.iter().filter(|(_, node)| node.kind == Kind::Directory) {
            let below = subdirectories.get(path.as_str()).copied().unwrap_or(0);
            assert_eq!(node.links, 2 + below, "links of {path:?}");
        }
        for (path, node) in nodes.iter().filter(|(_, node)| node.kind != Kind::Directory) {
            assert_eq!(node.links, links[&node.nid], "links of {path:?}");
        }
        assert_eq!(links.len() as u64, inodes);
        Self { nodes }
    }

    pub(crate) fn paths(&self) -> Vec<&str> {
        self.nodes.keys().skip(1).map(String::as_str).collect()
    }

    pub(crate) fn node(&self, path: &str) -> &Node {
        self.nodes.get(path).unwrap_or_else(|| panic!("no {path:?} in {:?}", self.paths()))
    }

    /// The contents of a regular file, as text.
    pub(crate) fn text(&self, path: &str) -> String {
        String::from_utf8(self.contents(path).to_vec()).unwrap()
    }

    pub(crate) fn contents(&self, path: &str) -> &[u8] {
        match &self.node(path).kind {
            Kind::File(contents) => contents,
            other => panic!("{path:?} is {other:?}"),
        }
    }
}

struct Reader {
    bytes: Vec<u8>,
}

impl Reader {
    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.bytes[at..at + N].try_into().unwrap()
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.array(at))
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }

    /// Gives the number of inodes that the superblock states.
    fn check_superblock(&self) -> u64 {
        assert_eq!(self.u32(1024), 0xe0f5_e1e2, "magic");
        assert_eq!(self.u32(1024 + 8), 3, "checksum and mtime");
        assert_eq!(self.u32(1024 + 80), 0, "no incompatible feature");
        assert_eq!(self.bytes[1024 + 12], 12, "block size");
        assert_eq!(self.u32(1024 + 36) as usize * BLOCK, self.bytes.len(), "blocks");
        assert_eq!(self.u32(1024 + 40), 0, "inode numbers count from block 0");
        let mut block = self.bytes[1024..BLOCK].to_vec();
        block[4..8].fill(0);
        let mut crc = u32::MAX;
        for byte in block {
            crc ^= u32::from(byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
            }
        }
        assert_eq!(self.u32(1024 + 4), crc, "checksum");
        self.u64(1024 + 16)
    }

    fn visit(
        &self,
        path: &str,
        nid: u64,
        parent: u64,
        nodes: &mut BTreeMap<String, Node>,
        ahead: &mut Vec<(String, u64, u64)>,
    ) {
        let at = usize::try_from(nid).unwrap() * 32;
        let format = self.u16(at);
        assert_eq!(format & 1, 1, "extended inode");
        let inline = match format >> 1 {
            0 => false,
            2 => true,
            other => panic!("data layout {other}"),
        };
        assert!(at % BLOCK + 64 <= BLOCK, "{path:?}: an inode crosses blocks");
        let mode = self.u16(at + 4);
        let size = usize::try_from(self.u64(at + 8)).unwrap();
        let (xattrs, xattr_bytes) = self.xattrs(at);
        let rest = size % BLOCK;
        let data = if mode & 0o170_000 == 0o020_000 || mode & 0o170_000 == 0o060_000 {
            Vec::new()
        } else {
            let blocks = if inline { size - rest } else { size };
            let first = self.u32(at + 16) as usize * BLOCK;
            let mut data = self.bytes[first..first + blocks].to_vec();
            if inline {
                assert!(rest > 0);
                let tail = at + 64 + xattr_bytes;
                assert_eq!(at / BLOCK, (tail + rest - 1) / BLOCK, "{path:?}: a rest lies in another block");
                data.extend_from_slice(&self.bytes[tail..tail + rest]);
            }
            data
        };
        let device = self.u32(at + 16);
        let device = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xf_ff00));
        let kind = match mode & 0o170_000 {
            0o010_000 => Kind::Fifo,
            0o020_000 => Kind::Char(device.0, device.1),
            0o040_000 => Kind::Directory,
            0o060_000 => Kind::Block(device.0, device.1),
            0o100_000 => Kind::File(data.clone()),
            0o120_000 => Kind::Symlink(String::from_utf8(data.clone()).unwrap()),
            other => panic!("{path:?}: type {other:o}"),
        };
        let is_directory = kind == Kind::Directory;
        let node = Node {
            kind,
            mode: mode & 0o7777,
            uid: self.u32(at + 24),
            gid: self.u32(at + 28),
            mtime: (self.u64(at + 32).cast_signed(), self.u32(at + 40)),
            links: self.u32(at + 44),
            xattrs,
            nid,
        };
        assert!(nodes.insert(path.to_owned(), node).is_none(), "{path:?} is met twice");
        if is_directory {
            for (name, child, file_type) in directory(&data) {
                let mode = self.u16(usize::try_from(child).unwrap() * 32 + 4);
                let type_of_inode = match mode >> 12 {
                    0o10 => 1,
                    0o4 => 2,
                    0o2 => 3,
                    0o6 => 4,
                    0o1 => 5,
                    _ => 7,
                };
                assert_eq!(file_type, type_of_inode, "{name:?}");
                match name.as_str() {
                    "." => assert_eq!(child, nid),
                    ".." => assert_eq!(child, parent),
                    name if path.is_empty() => ahead.push((name.into(), child, nid)),
                    name => ahead.push((format!("{path}/{name}"), child, nid)),
                }
            }
        }
    }

    fn xattrs(&self, inode: usize) -> (BTreeMap<String, Vec<u8>>, usize) {
        let mut xattrs = BTreeMap::new();
        let count = usize::from(self.u16(inode + 2));
        if count == 0 {
            return (xattrs, 0);
        }
        let bytes = 12 + 4 * (count - 1);
        let end = inode + 64 + bytes;
        assert_eq!(self.array(inode + 64), [0; 12], "nothing is shared or filtered");
        let mut at = inode + 64 + 12;
        while at < end {
            let (name_length, index) = (usize::from(self.bytes[at]), self.bytes[at + 1]);
            let value_length = usize::from(self.u16(at + 2));
            let name = std::str::from_utf8(&self.bytes[at + 4..at + 4 + name_length]).unwrap();
            let prefix = match index {
                1 => "user.",
                2 => "system.posix_acl_access",
                3 => "system.posix_acl_default",
                4 => "trusted.",
                6 => "security.",
                other => panic!("namespace {other}"),
            };
            let value = self.bytes[at + 4 + name_length..][..value_length].to_vec();
            assert!(xattrs.insert(format!("{prefix}{name}"), value).is_none(), "{name:?} twice");
            at += (4 + name_length + value_length).next_multiple_of(4);
        }
        assert_eq!(at, end, "attributes fill what is stated");
        (xattrs, bytes)
    }
}

fn directory(data: &[u8]) -> Vec<(String, u64, u8)> {
    let mut entries: Vec<(String, u64, u8)> = Vec::new();
    for block in data.chunks(BLOCK) {
        let name_at =
            |i: usize| usize::from(u16::from_le_bytes(block[12 * i + 8..12 * i + 10].try_into().unwrap()));
        let count = name_at(0) / 12;
        assert!(count > 0 && name_at(0) % 12 == 0);
        for i in 0..count {
            let end = if i + 1 < count { name_at(i + 1) } else { block.len() };
            let name = &block[name_at(i)..end];
            let name = if i + 1 < count { name } else { name.split(|b| *b == 0).next().unwrap() };
            assert!(!name.is_empty() && !name.contains(&0));
            let nid = u64::from_le_bytes(block[12 * i..12 * i + 8].try_into().unwrap());
            entries.push((String::from_utf8(name.to_vec()).unwrap(), nid, block[12 * i + 10]));
        }
    }
    assert!(entries.is_sorted_by(|a, b| a.0 < b.0), "entries are sorted");
    entries
}
