//! Tars as hostile as can be: mostly valid, with few names, so that entries meet.

use arbitrary::{Arbitrary, Result, Unstructured};

/// The unit of a tar.
pub const BLOCK: usize = 512;

/// Components of paths; few, so that links, whiteouts and replacements find their like.
const COMPONENTS: [&str; 12] =
    ["a", "b", "c", "d", ".wh.a", ".wh.b", ".wh..wh..opq", ".", "é", ".wh..wh.aufs", "..", ""];
const XATTRS: [&str; 6] = [
    "user.a",
    "security.capability",
    "trusted.overlay.opaque",
    "system.posix_acl_access",
    "com.apple.x",
    "user.",
];

/// One entry, as its maker means it.
#[derive(Debug)]
pub struct Entry {
    path: Vec<u8>,
    kind: Kind,
    mode: u16,
    owner: (u32, u32),
    mtime: i64,
    xattrs: Vec<(&'static str, Vec<u8>)>,
    spelling: Spelling,
}

#[derive(Debug)]
enum Kind {
    Directory,
    File(Vec<u8>),
    /// Extents in the order given, and the size with holes.
    Sparse {
        extents: Vec<(u32, u16)>,
        size: u32,
    },
    Symlink(Vec<u8>),
    HardLink(Vec<u8>),
    Device(u8, u16, u32),
    Fifo,
    Other(u8),
}

/// How names that do not fit, and everything else beyond the old header, are written.
#[derive(Debug, Clone, Copy, Arbitrary)]
enum Spelling {
    Plain,
    Gnu,
    Pax,
}

impl<'a> Arbitrary<'a> for Entry {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let path = path(u)?;
        let kind = match u.int_in_range(0..=15)? {
            0..=3 => Kind::Directory,
            4..=7 => Kind::File(contents(u)?),
            8..=9 => Kind::Symlink(self::path(u)?),
            10..=11 => Kind::HardLink(self::path(u)?),
            12 => Kind::Device(*u.choose(b"34")?, u.arbitrary()?, u.arbitrary()?),
            13 => Kind::Fifo,
            14 => Kind::Sparse { extents: extents(u)?, size: u.int_in_range(0..=200_000)? },
            _ => Kind::Other(u.arbitrary()?),
        };
        let mut xattrs = Vec::new();
        while xattrs.len() < 4 && u.ratio(1, 6)? {
            let length = u.int_in_range(0..=40)?;
            xattrs.push((*u.choose(&XATTRS)?, u.bytes(length.min(u.len()))?.to_vec()));
        }
        Ok(Self {
            path,
            kind,
            mode: u.arbitrary()?,
            owner: if u.ratio(1, 4)? { u.arbitrary()? } else { (0, 0) },
            mtime: if u.ratio(1, 4)? { u.arbitrary()? } else { 1 },
            xattrs,
            spelling: u.arbitrary()?,
        })
    }
}

fn path(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    if u.ratio(1, 40)? {
        let length = u.int_in_range(90..=5000)?;
        let component = u.int_in_range(1..=256)?;
        return Ok((0..length).map(|at| if at % component == 0 { b'/' } else { b'l' }).collect());
    }
    // The odd ones are rare, or hardly any tar would be taken.
    let known = if u.ratio(1, 12)? { COMPONENTS.len() } else { 7 };
    let count = u.int_in_range(1..=4)?;
    let mut parts = Vec::new();
    for _ in 0..count {
        parts.push(COMPONENTS[u.int_in_range(0..=known - 1)?]);
    }
    let start = if u.ratio(1, 6)? { "/" } else { "" };
    Ok(format!("{start}{}", parts.join("/")).into_bytes())
}

fn contents(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    // Around the sizes at which something changes: a tail that fits its inode, a block, and one more.
    let size = *u.choose(&[0, 1, 100, 511, 512, 513, 4000, 4096, 4097, 9000])?;
    let byte: u8 = u.arbitrary()?;
    Ok((0..size).map(|at: usize| if byte == 0 { 0 } else { byte ^ at.to_le_bytes()[1] }).collect())
}

fn extents(u: &mut Unstructured<'_>) -> Result<Vec<(u32, u16)>> {
    let mut at = 0;
    let mut extents = Vec::new();
    for _ in 0..u.int_in_range(0..=30)? {
        at += u32::from(u.int_in_range(0..=9000_u16)?);
        let length = u.int_in_range(0..=700)?;
        extents.push((at, length));
        at += u32::from(length);
        if u.ratio(1, 30)? {
            at = at.saturating_sub(500);
        }
    }
    Ok(extents)
}

impl Entry {
    /// A regular file; for examples.
    pub fn file(path: &str, contents: &[u8]) -> Self {
        Self::plain(path, Kind::File(contents.into()))
    }

    /// A directory; for examples.
    pub fn directory(path: &str) -> Self {
        Self::plain(path, Kind::Directory)
    }

    /// A symbolic link; for examples.
    pub fn symlink(path: &str, target: &str) -> Self {
        Self::plain(path, Kind::Symlink(target.into()))
    }

    /// A hard link; for examples.
    pub fn hard_link(path: &str, target: &str) -> Self {
        Self::plain(path, Kind::HardLink(target.into()))
    }

    /// A sparse file in the last of GNU's forms, and in the first; for examples.
    pub fn sparse(path: &str, pax: bool) -> Self {
        let kind = Kind::Sparse { extents: vec![(0, 10), (5000, 600), (9000, 0)], size: 9000 };
        Self { spelling: if pax { Spelling::Pax } else { Spelling::Gnu }, ..Self::plain(path, kind) }
    }

    /// The same with an extended attribute; for examples.
    #[must_use]
    pub fn with_xattr(self) -> Self {
        Self { xattrs: vec![(XATTRS[0], b"value".into())], ..self }
    }

    fn plain(path: &str, kind: Kind) -> Self {
        let (owner, xattrs) = ((0, 0), Vec::new());
        Self { path: path.into(), kind, mode: 0o755, owner, mtime: 1, xattrs, spelling: Spelling::Plain }
    }

    fn write(&self, out: &mut Vec<u8>) {
        let mut pax = Vec::new();
        let mut header = [0; BLOCK];
        let old_sparse = matches!((&self.kind, self.spelling), (Kind::Sparse { .. }, Spelling::Gnu));
        header[257..265].copy_from_slice(if old_sparse { b"ustar  \0" } else { b"ustar\x0000" });
        self.write_name(&mut header, 0..100, b'L', "path", &self.path, &mut pax, out);
        octal(&mut header[100..108], u64::from(self.mode));
        octal(&mut header[108..116], u64::from(self.owner.0));
        octal(&mut header[116..124], u64::from(self.owner.1));
        base_256(&mut header[136..148], self.mtime);
        for (name, value) in &self.xattrs {
            record(&mut pax, &format!("SCHILY.xattr.{name}"), value);
        }
        let mut body = Vec::new();
        header[156] = match &self.kind {
            Kind::Directory => b'5',
            Kind::File(contents) => {
                body.extend_from_slice(contents);
                b'0'
            }
            Kind::Symlink(target) | Kind::HardLink(target) => {
                self.write_name(&mut header, 157..257, b'K', "linkpath", target, &mut pax, out);
                if matches!(self.kind, Kind::Symlink(_)) { b'2' } else { b'1' }
            }
            Kind::Device(kind, major, minor) => {
                octal(&mut header[329..337], u64::from(*major));
                octal(&mut header[337..345], u64::from(*minor));
                *kind
            }
            Kind::Fifo => b'6',
            Kind::Other(kind) => *kind,
            Kind::Sparse { extents, size } if old_sparse => {
                old_sparse_map(&mut header, extents, *size, &mut body);
                b'S'
            }
            Kind::Sparse { extents, size } => {
                self.pax_sparse_map(extents, *size, &mut pax, &mut body);
                b'0'
            }
        };
        // The blocks of an old sparse map stand between header and contents, and are not counted.
        let uncounted = match &self.kind {
            Kind::Sparse { extents, .. } if old_sparse => {
                extents.len().saturating_sub(4).div_ceil(21) * BLOCK
            }
            _ => 0,
        };
        octal(&mut header[124..136], (body.len() - uncounted) as u64);
        if !pax.is_empty() {
            extension(b'x', &pax, out);
        }
        append(&mut header, &body, out);
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one header")]
    fn write_name(
        &self,
        header: &mut [u8; BLOCK],
        field: std::ops::Range<usize>,
        gnu: u8,
        key: &str,
        name: &[u8],
        pax: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) {
        let fits = name.len().min(field.len());
        header[field][..fits].copy_from_slice(&name[..fits]);
        match self.spelling {
            Spelling::Plain => {}
            Spelling::Gnu => extension(gnu, &[name, b"\0"].concat(), out),
            Spelling::Pax => record(pax, key, name),
        }
    }

    fn pax_sparse_map(&self, extents: &[(u32, u16)], size: u32, pax: &mut Vec<u8>, body: &mut Vec<u8>) {
        record(pax, "GNU.sparse.realsize", size.to_string().as_bytes());
        if matches!(self.spelling, Spelling::Pax) {
            record(pax, "GNU.sparse.major", b"1");
            record(pax, "GNU.sparse.minor", b"0");
            record(pax, "GNU.sparse.name", &self.path);
            body.extend(format!("{}\n", extents.len()).bytes());
            body.extend(extents.iter().flat_map(|(at, length)| format!("{at}\n{length}\n").into_bytes()));
            body.resize(body.len().next_multiple_of(BLOCK), 0);
        } else {
            let map: Vec<String> = extents.iter().map(|(at, length)| format!("{at},{length}")).collect();
            record(pax, "GNU.sparse.map", map.join(",").as_bytes());
        }
        body.extend(extents.iter().flat_map(|(at, length)| vec![at.to_le_bytes()[1]; usize::from(*length)]));
    }
}

fn old_sparse_map(header: &mut [u8; BLOCK], extents: &[(u32, u16)], size: u32, body: &mut Vec<u8>) {
    let put = |slot: &mut [u8], (at, length): (u32, u16)| {
        octal(&mut slot[..12], u64::from(at));
        octal(&mut slot[12..], u64::from(length));
    };
    octal(&mut header[483..495], u64::from(size));
    let (first, rest) = extents.split_at(extents.len().min(4));
    for (slot, extent) in header[386..482].chunks_exact_mut(24).zip(first) {
        put(slot, *extent);
    }
    header[482] = u8::from(!rest.is_empty());
    let mut left = rest.chunks(21).peekable();
    while let Some(chunk) = left.next() {
        let mut block = [0; BLOCK];
        for (slot, extent) in block[..504].chunks_exact_mut(24).zip(chunk) {
            put(slot, *extent);
        }
        block[504] = u8::from(left.peek().is_some());
        body.extend(block);
    }
    body.extend(extents.iter().flat_map(|(at, length)| vec![at.to_le_bytes()[1]; usize::from(*length)]));
}

/// The tar of some entries, ended as it should be.
pub fn tar<'e>(entries: impl IntoIterator<Item = &'e Entry>) -> Vec<u8> {
    let mut out = Vec::new();
    entries.into_iter().for_each(|entry| entry.write(&mut out));
    out.resize(out.len() + 2 * BLOCK, 0);
    out
}

/// Makes the checksums right of all that look like headers, as far as their sizes lead.
pub fn seal(tar: &mut [u8]) {
    let mut at = 0;
    while let Some(header) = tar.get_mut(at..at + BLOCK).and_then(|block| block.first_chunk_mut()) {
        if header.iter().all(|byte| *byte == 0) {
            return;
        }
        seal_header(header);
        let digits = header[124..135].iter().filter(|byte| byte.is_ascii_digit());
        let size = digits.fold(0_usize, |size, byte| (size * 8).wrapping_add(usize::from(byte - b'0')));
        at = at.saturating_add(BLOCK).saturating_add(size.div_ceil(BLOCK).saturating_mul(BLOCK));
    }
}

fn seal_header(header: &mut [u8; BLOCK]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn append(header: &mut [u8; BLOCK], body: &[u8], out: &mut Vec<u8>) {
    seal_header(header);
    out.extend_from_slice(header);
    out.extend_from_slice(body);
    out.resize(out.len().next_multiple_of(BLOCK), 0);
}

fn extension(kind: u8, body: &[u8], out: &mut Vec<u8>) {
    let mut header = [0; BLOCK];
    header[..9].copy_from_slice(b"extension");
    octal(&mut header[124..136], body.len() as u64);
    header[156] = kind;
    append(&mut header, body, out);
}

fn record(pax: &mut Vec<u8>, key: &str, value: &[u8]) {
    // The length counts its own digits.
    let rest = key.len() + value.len() + 3;
    let length =
        (1..=5).map(|digits| rest + digits).find(|length| length.to_string().len() + rest == *length);
    pax.extend(format!("{} {key}=", length.unwrap_or(rest)).bytes());
    pax.extend_from_slice(value);
    pax.push(b'\n');
}

/// Octal where it fits, else GNU's base 256.
fn octal(field: &mut [u8], number: u64) {
    let digits = format!("{number:0width$o}", width = field.len() - 1);
    if digits.len() < field.len() {
        field[..digits.len()].copy_from_slice(digits.as_bytes());
    } else {
        base_256(field, number.cast_signed());
    }
}

fn base_256(field: &mut [u8], number: i64) {
    let bytes = i128::from(number).to_be_bytes();
    let from = bytes.len() - field.len();
    field.copy_from_slice(&bytes[from..]);
    field[0] |= 0x80;
}
