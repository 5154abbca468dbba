//! What an entry says comes back from the EROFS file.

use cellule_rootfs::Fault;

use crate::support::{Header, Kind, Tar, assert_fault, fault, image};

#[test]
fn owner_mode_and_time_are_kept() {
    let header = Header::new("a", b'0').mode(0o6755).owner(1000, 2_000_000).mtime(1_700_000_000);
    let image = image(&[Tar::new().entry(header, b"").end()]);
    let node = image.node("a");
    assert_eq!((node.mode, node.uid, node.gid, node.mtime), (0o6755, 1000, 2_000_000, (1_700_000_000, 0)));
}

#[test]
fn large_owners_and_fine_times_come_from_pax() {
    let pax: &[(&str, &[u8])] =
        &[("uid", b"4294967294"), ("gid", b"3000000000"), ("mtime", b"1700000000.123456789")];
    let image = image(&[Tar::new().pax(pax).file("a", "x").file("b", "").end()]);
    let node = image.node("a");
    assert_eq!(
        (node.uid, node.gid, node.mtime),
        (4_294_967_294, 3_000_000_000, (1_700_000_000, 123_456_789))
    );
    let next = image.node("b");
    assert_eq!((next.uid, next.gid, next.mtime), (0, 0, (0, 0)), "a pax header counts for one entry");
}

#[test]
fn base_256_numbers_are_read_and_bounded() {
    let field = |value: u32| [&[0x80, 0, 0, 0][..], &value.to_be_bytes()].concat();
    let mtime = [&[0xff; 4][..], &(-5_i64).to_be_bytes()].concat();
    let header = Header::new("a", b'0').raw(108, &field(3_000_000_000)).raw(116, &field(7)).raw(136, &mtime);
    let image = image(&[Tar::new().entry(header, b"").end()]);
    let node = image.node("a");
    assert_eq!((node.uid, node.gid, node.mtime), (3_000_000_000, 7, (-5, 0)));
    let too_large = Header::new("a", b'0').raw(108, &[0x80, 0, 0, 1, 0, 0, 0, 0]);
    assert_fault!(fault(Tar::new().entry(too_large, b"").end()), Fault::Number { field: "uid" });
    let negative = Header::new("a", b'0').raw(124, &[0xff; 12]);
    assert_fault!(fault(Tar::new().entry(negative, b"").end()), Fault::Number { field: "size" });
}

#[test]
fn times_before_1970_are_kept() {
    let image = image(&[Tar::new().pax(&[("mtime", b"-1.25")]).file("a", "").end()]);
    assert_eq!(image.node("a").mtime, (-2, 750_000_000));
}

#[test]
fn every_type_of_entry_is_kept() {
    let layer = Tar::new()
        .entry(Header::new("char", b'3').device(4095, 1_048_575), b"")
        .entry(Header::new("block", b'4').device(8, 17).mode(0o660), b"")
        .entry(Header::new("fifo", b'6'), b"")
        .entry(Header::new("contiguous", b'7').size(1), b"c")
        .entry(Header::new("old", 0).size(1), b"o")
        .entry(Header::new("olddir/", 0), b"")
        .symlink("link", "../anything//at all");
    let image = image(&[layer.end()]);
    assert_eq!(image.node("char").kind, Kind::Char(4095, 1_048_575));
    assert_eq!(image.node("block").kind, Kind::Block(8, 17));
    assert_eq!(image.node("fifo").kind, Kind::Fifo);
    assert_eq!((image.text("contiguous"), image.text("old")), ("c".into(), "o".into()));
    assert_eq!(image.node("olddir").kind, Kind::Directory);
    assert_eq!(image.node("link").kind, Kind::Symlink("../anything//at all".into()));
}

#[test]
fn device_numbers_beyond_linux_are_refused() {
    let device = |major, minor| Tar::new().entry(Header::new("c", b'3').device(major, minor), b"").end();
    assert_fault!(fault(device(4096, 0)), Fault::DeviceNumber { major: 4096, minor: 0 });
    assert_fault!(fault(device(0, 1 << 20)), Fault::DeviceNumber { .. });
}

#[test]
fn types_without_contents_have_none_whatever_size_they_state() {
    let layer = Tar::new()
        .entry(Header::new("d", b'5').size(4096), b"")
        .entry(Header::new("l", b'2').size(7).link("x"), b"")
        .file("a", "1")
        .entry(Header::new("h", b'1').size(1).link("a"), b"");
    assert_eq!(image(&[layer.end()]).paths(), ["a", "d", "h", "l"]);
}

#[test]
fn unknown_types_are_refused_and_labels_ignored() {
    for entry_type in [b'D', b'M', b'N', b'9', b'Z', 0xff] {
        let layer = Tar::new().entry(Header::new("a", entry_type), b"").end();
        assert_fault!(fault(layer), Fault::EntryType(found) if found == entry_type);
    }
    let layer = Tar::new()
        .extension(b'g', b"19 comment=nothing\n")
        .entry(Header::new("label", b'V'), b"")
        .file("a", "1");
    assert_eq!(image(&[layer.end()]).paths(), ["a"]);
}

#[test]
fn extended_attributes_are_kept_byte_for_byte() {
    // A capability with a newline in it, and an ACL.
    let capability = b"\x01\0\0\x02\0\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let acl = b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff";
    let pax: &[(&str, &[u8])] = &[
        ("SCHILY.xattr.security.capability", capability),
        ("SCHILY.xattr.user.empty", b""),
        ("SCHILY.xattr.user.a=b", b"never read as key=value"),
        ("SCHILY.xattr.system.posix_acl_access", acl),
        ("SCHILY.xattr.trusted.t", b"t"),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.com.apple.provenance", b"dropped"),
        ("LIBARCHIVE.xattr.user.x", b"ignored"),
    ];
    let image = image(&[Tar::new().pax(pax).file("a", "contents").pax(pax).dir("d").end()]);
    for path in ["a", "d"] {
        let xattrs = &image.node(path).xattrs;
        assert_eq!(xattrs["security.capability"], capability);
        assert_eq!(xattrs["user.empty"], b"");
        assert_eq!(xattrs["system.posix_acl_access"], acl);
        assert_eq!(xattrs["trusted.t"], b"t");
        // The key ends at the first equals sign.
        assert_eq!(xattrs["user.a"], b"b=never read as key=value");
        assert_eq!(xattrs.len(), 5);
    }
    assert_eq!(image.text("a"), "contents");
}

#[test]
fn attributes_that_fill_several_blocks_leave_contents_intact() {
    let value = vec![b'v'; 60_000];
    let pax: &[(&str, &[u8])] = &[("SCHILY.xattr.user.large", &value)];
    let contents = "c".repeat(5000);
    let layer = Tar::new()
        .pax(pax)
        .file("a", &contents)
        .pax(pax)
        .dir("d")
        .file("d/b", "1")
        .pax(pax)
        .symlink("l", "a");
    let image = image(&[layer.end()]);
    assert_eq!(image.text("a"), contents);
    for path in ["a", "d", "l"] {
        assert_eq!(image.node(path).xattrs["user.large"], value);
    }
    assert_eq!(image.node("l").kind, Kind::Symlink("a".into()));
}
