//! Tars outside of images: what is read from a stream, and what is made of files.

use std::fs::{self, Permissions};
use std::io::Read as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use cellule_rootfs::{
    ArchiveEntry, ArchiveEntryKind, ArchiveError, ArchiveReader, Error, Fault, Limits, PackOptions, pack,
};

use crate::support::{Header, Tar};

fn entries(archive: &[u8]) -> Result<Vec<(ArchiveEntry, Vec<u8>)>, ArchiveError> {
    let mut reader = ArchiveReader::new(archive, &Limits::default());
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut contents = Vec::new();
        while let Some((offset, bytes)) = reader.next_data()? {
            contents.resize(usize::try_from(offset).unwrap(), 0);
            contents.extend_from_slice(bytes);
        }
        entries.push((entry, contents));
    }
    Ok(entries)
}

fn fault(archive: &[u8]) -> Fault {
    entries(archive).unwrap_err().source
}

/// A packed path as `KIND PATH CONTENTS`.
fn packed(path: &Path, options: &PackOptions) -> Vec<String> {
    let mut archive = Vec::new();
    pack(path, options, &mut archive).unwrap();
    let show = |(entry, contents): (ArchiveEntry, Vec<u8>)| {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let kind = match &entry.kind {
            ArchiveEntryKind::Directory => "dir".to_owned(),
            ArchiveEntryKind::File { .. } => format!("file {}", text(&contents)),
            ArchiveEntryKind::Symlink(target) => format!("symlink {}", text(target)),
            ArchiveEntryKind::HardLink(target) => format!("link {}", text(target)),
            other => format!("{other:?}"),
        };
        format!("{}: {kind} {:o} {}:{}", text(&entry.path), entry.mode, entry.uid, entry.gid)
    };
    entries(&archive).unwrap().into_iter().map(show).collect()
}

fn named(name: &str) -> PackOptions {
    PackOptions { name: name.into(), owner: Some((0, 0)), follow: false }
}

#[test]
fn an_archive_is_read_entry_by_entry() {
    let tar = Tar::new()
        .dir("./d/")
        .file("./d/f", "contents")
        .symlink("/d/l", "../any")
        .hard_link("d/h", "./d/f")
        .entry(Header::new("d/p", b'6'), b"")
        .entry(Header::new("d/null", b'3').device(1, 3), b"")
        .end();
    let entries = entries(&tar).unwrap();
    let kinds: Vec<_> = entries.iter().map(|(entry, _)| (&*entry.path, entry.kind.clone())).collect();
    assert_eq!(
        kinds,
        [
            (&b"d"[..], ArchiveEntryKind::Directory),
            (b"d/f", ArchiveEntryKind::File { size: 8 }),
            (b"d/l", ArchiveEntryKind::Symlink((*b"../any").into())),
            (b"d/h", ArchiveEntryKind::HardLink((*b"d/f").into())),
            (b"d/p", ArchiveEntryKind::Fifo),
            (b"d/null", ArchiveEntryKind::Device),
        ]
    );
    assert_eq!(entries[1].1, b"contents");
}

#[test]
fn hostile_paths_are_refused_where_they_stand() {
    for path in ["..", "a/../../b", "/.."] {
        let tar = Tar::new().file("ok", "").file(path, "").end();
        let error = entries(&tar).unwrap_err();
        assert!(matches!(error.source, Fault::DotDot), "{path}");
        assert_eq!((error.path.as_deref(), error.offset), (Some(path), 512));
    }
    assert!(matches!(fault(&Tar::new().hard_link("a", "../b").end()), Fault::DotDot));
    assert!(matches!(fault(&Tar::new().symlink("a", "").end()), Fault::Name));
    assert!(matches!(fault(&Tar::new().entry(Header::new("a", b'Z'), b"").end()), Fault::EntryType(b'Z')));
}

#[test]
fn an_end_without_its_zero_blocks_is_a_cut() {
    let whole = Tar::new().file("a", "contents").end();
    assert_eq!(entries(&whole).unwrap().len(), 1);
    for length in [0, 1, 512, 515, 1024] {
        assert!(matches!(fault(&whole[..length]), Fault::Truncated), "{length}");
    }
}

#[test]
fn a_compressed_stream_is_no_archive() {
    let mut gzip = vec![0x1f, 0x8b, 8, 0];
    gzip.resize(1024, 1);
    assert!(matches!(fault(&gzip), Fault::Checksum));
}

#[test]
fn padding_is_drained_to_a_limit() {
    let whole = Tar::new().file("a", "").end();
    let mut padded = whole.clone();
    padded.resize(whole.len() + (1 << 20), 0);
    let drained = |stream: &mut dyn std::io::Read| {
        let mut reader = ArchiveReader::new(stream, &Limits::default());
        while reader.next_entry().unwrap().is_some() {}
        reader.drain(2 << 20).unwrap()
    };
    assert!(drained(&mut &padded[..]));
    assert!(!drained(&mut whole.chain(std::io::repeat(0))));
}

#[test]
fn a_directory_is_packed_under_the_name_asked_for() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("dir");
    fs::create_dir_all(dir.join("sub")).unwrap();
    fs::write(dir.join("f"), "1").unwrap();
    fs::hard_link(dir.join("f"), dir.join("sub/same")).unwrap();
    symlink("f", dir.join("sub/l")).unwrap();
    fs::write(dir.join(".wh.f"), "2").unwrap();
    for (path, mode) in [("", 0o750), ("sub", 0o755), ("f", 0o640), (".wh.f", 0o600)] {
        fs::set_permissions(dir.join(path), Permissions::from_mode(mode)).unwrap();
    }
    assert_eq!(
        packed(&dir, &named("new")),
        [
            "new: dir 750 0:0",
            "new/.wh.f: file 2 600 0:0",
            "new/f: file 1 640 0:0",
            "new/sub: dir 755 0:0",
            "new/sub/l: symlink f 777 0:0",
            "new/sub/same: link new/f 640 0:0",
        ]
    );
    assert_eq!(packed(&dir, &named(""))[..2], [": dir 750 0:0", ".wh.f: file 2 600 0:0"]);
}

#[test]
fn a_lone_file_and_a_link_are_packed_under_the_name_asked_for() {
    let scratch = tempfile::tempdir().unwrap();
    let (file, link) = (scratch.path().join("f"), scratch.path().join("l"));
    fs::write(&file, "1").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    symlink("f", &link).unwrap();
    assert_eq!(packed(&file, &named("new")), ["new: file 1 644 0:0"]);
    assert_eq!(packed(&link, &named("new")), ["new: symlink f 777 0:0"]);
    let followed = PackOptions { follow: true, ..named("new") };
    assert_eq!(packed(&link, &followed), ["new: file 1 644 0:0"]);

    let directory = scratch.path().join("to-directory");
    symlink(scratch.path(), &directory).unwrap();
    assert_eq!(packed(&directory, &named("new")).len(), 1);
    assert_eq!(packed(&directory, &followed).len(), 4);
}

#[test]
fn owners_are_kept_unless_one_is_given() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("f");
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    let ids = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let kept = PackOptions { owner: None, ..named("f") };
    assert_eq!(packed(&file, &kept), [format!("f: file  644 {}:{}", ids.0, ids.1)]);
    let given = PackOptions { owner: Some((7, 3_000_000)), ..named("f") };
    assert_eq!(packed(&file, &given), ["f: file  644 7:3000000"]);
}

#[test]
fn names_longer_than_a_header_are_packed_whole() {
    let scratch = tempfile::tempdir().unwrap();
    let name = "n".repeat(255);
    fs::write(scratch.path().join(&name), "1").unwrap();
    let lines = packed(scratch.path(), &named(&"t".repeat(200)));
    assert!(lines[1].starts_with(&format!("{}/{name}: file 1", "t".repeat(200))));
}

#[test]
fn what_is_missing_or_no_directory_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let missing = scratch.path().join("missing");
    let refused = |path: &Path, name| match pack(path, &named(name), &mut Vec::new()) {
        Err(Error::Directory { path, .. }) => path,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&missing, "x"), missing);
    let file = scratch.path().join("f");
    fs::write(&file, "").unwrap();
    assert_eq!(refused(&file, ""), file);
}
