use super::*;

/// What a receiver was told, in one comparable list.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told(Vec<What>);

#[derive(Debug, PartialEq, Eq)]
enum What {
    Entry(ArchiveEntry),
    Contents(u64, Vec<u8>),
    End,
}

impl Receiver for Told {
    type Error = ArchiveError;

    fn begin(&mut self, entry: ArchiveEntry) -> Result<(), ArchiveError> {
        self.0.push(What::Entry(entry));
        Ok(())
    }

    fn contents(&mut self, offset: u64, bytes: &[u8]) -> Result<(), ArchiveError> {
        // However it is cut, it is the same contents.
        if let Some(What::Contents(start, before)) = self.0.last_mut()
            && *start + before.len() as u64 == offset
        {
            before.extend_from_slice(bytes);
        } else {
            self.0.push(What::Contents(offset, bytes.to_vec()));
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), ArchiveError> {
        self.0.push(What::End);
        Ok(())
    }
}

fn read(tar: &[u8], piece: usize) -> Result<Told, ArchiveError> {
    let (mut archive, mut told) = (Archive::default(), Told::default());
    for piece in tar.chunks(piece) {
        archive.feed(piece, &mut told)?;
    }
    archive.finish()?;
    Ok(told)
}

fn header(kind: u8, name: &[u8], size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1);
    header.set_cksum();
    header
}

fn entry(kind: u8, name: &[u8], contents: &[u8]) -> Vec<u8> {
    let mut bytes = header(kind, name, contents.len() as u64).as_bytes().to_vec();
    bytes.extend_from_slice(contents);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

fn names(told: &Told) -> Vec<&[u8]> {
    let entries = told.0.iter();
    entries
        .filter_map(|what| if let What::Entry(entry) = what { Some(entry.name.as_slice()) } else { None })
        .collect()
}

fn varied() -> Vec<u8> {
    let long = [b'n'; 300];
    let pax = b"30 mtime=1700000000.123456789\n12 path=pax\n";
    [
        entry(b'5', b"dir/", b""),
        entry(b'0', b"dir/file", &[7; 1000]),
        entry(b'L', b"././@LongLink", &[&long[..], b"\0"].concat()),
        entry(b'0', b"short", b"x"),
        entry(b'g', b"global", b"18 comment=ignored"),
        entry(b'x', b"pax-header", pax),
        entry(b'0', b"overridden", b""),
        entry(b'6', b"fifo", b""),
        vec![0; 2 * BLOCK],
    ]
    .concat()
}

#[test]
fn pieces_of_any_size_give_the_same() {
    let tar = varied();
    let whole = read(&tar, tar.len()).unwrap();
    assert_eq!(names(&whole), [&b"dir/"[..], b"dir/file", &[b'n'; 300], b"pax", b"fifo"]);
    assert!(whole.0.contains(&What::Contents(0, vec![7; 1000])));
    let What::Entry(pax) = &whole.0[7] else { panic!("{whole:?}") };
    assert_eq!(pax.modified, (1_700_000_000, 123_456_789));
    for piece in [1, 7, 511, 512, 513, 1024] {
        assert_eq!(read(&tar, piece).unwrap(), whole, "in pieces of {piece}");
    }
}

#[test]
fn an_archive_that_ends_early_is_noticed_wherever_it_ends() {
    let tar = [entry(b'0', b"a", &[1; 700]), entry(b'L', b"l", b"long\0"), entry(b'0', b"b", b"y")].concat();
    assert_eq!(names(&read(&tar, 512).unwrap()), [&b"a"[..], b"long"]);
    // Between the entries' contents and the next header nothing is missing; anywhere else something is.
    let whole = |at: usize| (512 + 700..=3 * 512).contains(&at) || at > 6 * 512 || at == 0;
    for at in 0..tar.len() {
        assert_eq!(read(&tar[..at], 100).is_ok(), whole(at), "cut at {at}");
    }
}

#[test]
fn extensions_beyond_their_bounds_are_refused_before_they_are_kept() {
    let huge = header(b'x', b"pax", 1 << 40).as_bytes().to_vec();
    assert_eq!(read(&huge, 512), Err(ArchiveError::Extensions));
    let many = entry(b'L', b"l", b"n\0").repeat(9);
    assert_eq!(read(&many, 512), Err(ArchiveError::Extensions));
}

#[test]
fn what_is_no_tar_is_refused() {
    assert_eq!(read(&[b'x'; 512], 512), Err(ArchiveError::Checksum));
    let mut damaged = varied();
    damaged[0] ^= 1;
    assert_eq!(read(&damaged, 512), Err(ArchiveError::Checksum));
    assert_eq!(read(&entry(b'Z', b"a", b""), 512), Err(ArchiveError::Type('Z')));
    for bad in [&b"9 uid=123\n"[..], b"99 uid=1\n", b"uid=1\n", b"0 \n", b"5 uid\n", b"+9 uid=12\n"] {
        let tar = [entry(b'x', b"p", bad), entry(b'0', b"a", b"")].concat();
        assert_eq!(read(&tar, 512), Err(ArchiveError::Pax), "{bad:?}");
    }
    let negative = [entry(b'x', b"p", b"9 uid=-2\n"), entry(b'0', b"a", b"")].concat();
    assert_eq!(read(&negative, 512), Err(ArchiveError::Number("uid")));
}

#[test]
fn records_may_hold_any_byte() {
    let record = b"28 SCHILY.xattr.user.x=a\n=\0\n12 path=a\nb\n";
    let tar = [entry(b'x', b"p", record), entry(b'0', b"x", b"")].concat();
    assert_eq!(names(&read(&tar, 512).unwrap()), [&b"a\nb"[..]]);
}

/// A header of GNU's sparse form with these extents.
fn sparse(extents: &[(u64, u64)], stored: u64, size: u64) -> Vec<u8> {
    let mut header = header(b'S', b"sparse", stored);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.set_real_size(size);
    for (slot, (offset, length)) in gnu.sparse.iter_mut().zip(extents) {
        slot.set_offset(*offset);
        slot.set_length(*length);
    }
    header.set_cksum();
    header.as_bytes().to_vec()
}

#[test]
fn a_sparse_file_keeps_its_holes() {
    let mut tar = sparse(&[(512, 10), (100_000, 502)], 512, 200_000);
    tar.extend([9; 512]);
    let told = read(&tar, 100).unwrap();
    let What::Entry(entry) = &told.0[0] else { panic!("{told:?}") };
    assert_eq!(entry.kind, ArchiveKind::File(200_000));
    assert_eq!(
        told.0[1..],
        [What::Contents(512, vec![9; 10]), What::Contents(100_000, vec![9; 502]), What::End]
    );
}

#[test]
fn maps_that_can_not_be_are_refused() {
    for (extents, stored, size) in [
        (&[(0, 10)][..], 512, 10),
        (&[(0, 512)], 512, 100),
        (&[(600, 256), (0, 256)], 512, 1000),
        (&[(u64::MAX, 512)], 512, u64::MAX),
    ] {
        let mut tar = sparse(extents, stored, size);
        tar.extend([0; 512]);
        assert_eq!(read(&tar, 512), Err(ArchiveError::Sparse), "{extents:?}");
    }
    let pax = [entry(b'x', b"p", b"22 GNU.sparse.major=1\n"), entry(b'0', b"a", b"")].concat();
    assert_eq!(read(&pax, 512), Err(ArchiveError::PaxSparse));
}

#[test]
fn numbers_too_large_for_their_fields_are_read_or_refused() {
    let mut large = header(b'0', b"a", 0);
    large.set_uid(u64::from(u32::MAX));
    large.set_cksum();
    let told = read(large.as_bytes(), 512).unwrap();
    assert!(matches!(&told.0[0], What::Entry(entry) if entry.owner.0 == u32::MAX), "{told:?}");
    large.set_uid(u64::from(u32::MAX) + 1);
    large.set_cksum();
    assert_eq!(read(large.as_bytes(), 512), Err(ArchiveError::Number("uid")));
}
