//! Writes tars byte by byte, wrong ones too.

pub(crate) const BLOCK: usize = 512;

/// One header, in POSIX's form unless changed.
#[derive(Clone)]
pub(crate) struct Header(pub(crate) [u8; BLOCK]);

impl Header {
    pub(crate) fn new(path: impl AsRef<[u8]>, entry_type: u8) -> Self {
        let mut this = Self([0; BLOCK]);
        this.put(0, path.as_ref());
        this.0[156] = entry_type;
        this.put(257, b"ustar\x0000");
        this.mode(0o644).owner(0, 0).mtime(0).size(0)
    }

    pub(crate) fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn octal(mut self, at: usize, digits: usize, value: u64) -> Self {
        self.put(at, format!("{value:0digits$o}\0").as_bytes());
        self
    }

    pub(crate) fn mode(self, mode: u32) -> Self {
        self.octal(100, 7, u64::from(mode))
    }

    pub(crate) fn owner(self, uid: u32, gid: u32) -> Self {
        self.octal(108, 7, u64::from(uid)).octal(116, 7, u64::from(gid))
    }

    pub(crate) fn size(self, size: u64) -> Self {
        self.octal(124, 11, size)
    }

    pub(crate) fn mtime(self, mtime: u64) -> Self {
        self.octal(136, 11, mtime)
    }

    pub(crate) fn link(mut self, target: impl AsRef<[u8]>) -> Self {
        self.put(157, target.as_ref());
        self
    }

    pub(crate) fn device(self, major: u64, minor: u64) -> Self {
        self.octal(329, 7, major).octal(337, 7, minor)
    }

    /// Sets any bytes, such as a field that no writer would write.
    pub(crate) fn raw(mut self, at: usize, bytes: &[u8]) -> Self {
        self.put(at, bytes);
        self
    }

    pub(crate) fn bytes(mut self) -> [u8; BLOCK] {
        self.put(148, b"        ");
        let sum: u32 = self.0.iter().map(|b| u32::from(*b)).sum();
        self.put(148, format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}

/// A tar that grows by entries.
#[derive(Clone, Default)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A header, and contents of any length whatever it states.
    pub(crate) fn entry(mut self, header: Header, contents: &[u8]) -> Self {
        self.0.extend_from_slice(&header.bytes());
        self.0.extend_from_slice(contents);
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
        self
    }

    pub(crate) fn dir(self, path: &str) -> Self {
        self.entry(Header::new(path, b'5').mode(0o755), b"")
    }

    pub(crate) fn file(self, path: &str, contents: impl AsRef<[u8]>) -> Self {
        let contents = contents.as_ref();
        self.entry(Header::new(path, b'0').size(contents.len() as u64), contents)
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(Header::new(path, b'2').mode(0o777).link(target), b"")
    }

    pub(crate) fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(Header::new(path, b'1').link(target), b"")
    }

    /// A pax header for the next entry.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let data = pax_records(records);
        self.entry(Header::new("pax", b'x').size(data.len() as u64), &data)
    }

    /// Any other header with contents before the next entry, such as GNU's long name.
    pub(crate) fn extension(self, entry_type: u8, contents: &[u8]) -> Self {
        self.entry(Header::new("extension", entry_type).size(contents.len() as u64), contents)
    }

    /// The whole archive, closed by two zero blocks.
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 2 * BLOCK]);
        self.0
    }
}

pub(crate) fn pax_records(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut data = Vec::new();
    for (key, value) in records {
        let body = key.len() + value.len() + 3;
        let length = (1..9).find(|digits| (body + digits).to_string().len() == *digits).unwrap() + body;
        data.extend_from_slice(format!("{length} {key}=").as_bytes());
        data.extend_from_slice(value);
        data.push(b'\n');
    }
    data
}
