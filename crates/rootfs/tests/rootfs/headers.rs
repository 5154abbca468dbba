//! Long names, and headers that are wrong.

use cellule_rootfs::Fault;

use crate::support::{Header, Kind, Tar, assert_fault, fault, image};

fn long(length: usize) -> String {
    let mut path = "directory/".repeat(length / 10);
    path.push_str("last");
    path
}

#[test]
fn gnu_long_names_and_links_are_read() {
    let (name, target) = (long(300), long(2000));
    let layer = Tar::new()
        .extension(b'L', format!("{name}\0").as_bytes())
        .file("cut", "1")
        .extension(b'K', format!("{target}\0").as_bytes())
        .symlink("l", "cut")
        .extension(b'K', format!("{name}\0").as_bytes())
        .extension(b'L', b"h\0")
        .hard_link("cut", "cut");
    let image = image(&[layer.end()]);
    assert_eq!(image.text(&name), "1");
    assert_eq!(image.text("h"), "1");
    assert_eq!(image.node("l").kind, Kind::Symlink(target));
}

#[test]
fn pax_paths_and_ustar_prefixes_are_read() {
    let path = long(500);
    let layer = Tar::new()
        .pax(&[("path", path.as_bytes())])
        .file("stand-in", "1")
        .pax(&[("linkpath", path.as_bytes())])
        .hard_link("h", "stand-in")
        .entry(Header::new("name", b'0').raw(345, b"some/prefix"), b"");
    let image = image(&[layer.end()]);
    assert_eq!((image.text(&path), image.text("h")), ("1".into(), "1".into()));
    assert!(image.paths().contains(&"some/prefix/name"));
}

#[test]
fn the_fields_of_gnu_headers_are_no_prefix() {
    let header = Header::new("a", b'0').raw(257, b"ustar  \0").raw(345, b"00000000001\0");
    assert_eq!(image(&[Tar::new().entry(header, b"").end()]).paths(), ["a"]);
}

#[test]
fn a_name_may_fill_its_field_without_a_nul() {
    let name = "n".repeat(100);
    assert_eq!(image(&[Tar::new().file(&name, "").end()]).paths(), [name]);
}

#[test]
fn a_pax_size_overrides_the_headers() {
    let layer =
        Tar::new().pax(&[("size", b"5")]).entry(Header::new("a", b'0').size(0), b"12345").file("b", "");
    let image = image(&[layer.end()]);
    assert_eq!(image.text("a"), "12345");
    assert_eq!(image.paths(), ["a", "b"]);
}

#[test]
fn what_is_no_tar_is_refused() {
    assert_fault!(fault(b"<html>no tar</html>".repeat(100)), Fault::Checksum);
    assert_fault!(fault(vec![b'0'; 1024]), Fault::Checksum);
    let mut damaged = Tar::new().file("a", "1").end();
    damaged[0] ^= 1;
    assert_fault!(fault(damaged), Fault::Checksum);
}

#[test]
fn checksums_over_signed_bytes_are_accepted() {
    let mut header = Header::new("\u{e4}", b'0').bytes();
    let signed: i32 = header
        .iter()
        .enumerate()
        .map(|(i, b)| if (148..156).contains(&i) { 32 } else { i32::from(b.cast_signed()) })
        .sum();
    header[148..156].copy_from_slice(format!("{signed:06o}\0 ").as_bytes());
    assert_eq!(image(&[header.to_vec()]).paths(), ["\u{e4}"]);
}

#[test]
fn numbers_that_are_none_are_refused() {
    for (at, name) in [(100, "mode"), (108, "uid"), (116, "gid"), (124, "size"), (136, "mtime")] {
        let header = Header::new("a", b'0').raw(at, b"12x4567\0");
        assert_fault!(fault(Tar::new().entry(header, b"").end()), Fault::Number { field } if field == name);
    }
    assert_fault!(fault(Tar::new().pax(&[("size", b"-1")]).file("a", "").end()), Fault::Number { .. });
    assert_fault!(fault(Tar::new().pax(&[("mtime", b"soon")]).file("a", "").end()), Fault::Number { .. });
    assert_fault!(fault(Tar::new().pax(&[("uid", b"4294967296")]).file("a", "").end()), Fault::Number { .. });
}

#[test]
fn malformed_pax_headers_are_refused() {
    for data in [
        &b"nonsense"[..],
        b"5 a=1\n",
        b"999 a=1\n",
        b"0 a=1\n",
        b"18446744073709551617 a=1\n",
        b"6 a=1\n\0\0",
    ] {
        assert_fault!(fault(Tar::new().extension(b'x', data).file("a", "").end()), Fault::Pax);
    }
    let nul = Tar::new().pax(&[("SCHILY.xattr.user.a\0b", b"1")]).file("a", "");
    assert_fault!(fault(nul.end()), Fault::Name);
}

#[test]
fn extension_headers_are_bounded_in_size_and_number() {
    for entry_type in [b'x', b'L', b'K'] {
        let lying = Tar::new().entry(Header::new("x", entry_type).size((1 << 20) + 1), b"");
        assert_fault!(fault(lying.end()), Fault::ExtensionHeaders);
        let many = (0..9).fold(Tar::new(), |tar, _| tar.extension(entry_type, b"6 a=1\n"));
        assert_fault!(fault(many.file("a", "").end()), Fault::ExtensionHeaders);
    }
}

#[test]
fn an_extension_header_without_an_entry_is_refused() {
    assert_fault!(fault(Tar::new().extension(b'L', b"name\0").end()), Fault::Truncated);
    assert_fault!(fault(Tar::new().pax(&[("path", b"a")]).0), Fault::Truncated);
}

#[test]
fn a_lone_zero_block_between_entries_is_refused() {
    let mut layer = Tar::new().file("a", "1");
    layer.0.extend_from_slice(&[0; 512]);
    assert_fault!(fault(layer.file("b", "2").end()), Fault::LoneZeroBlock);
}

#[test]
fn an_archive_may_end_without_zero_blocks_or_with_one() {
    let mut layer = Tar::new().file("a", "1").0;
    assert_eq!(image(std::slice::from_ref(&layer)).paths(), ["a"]);
    layer.extend_from_slice(&[0; 512]);
    assert_eq!(image(&[layer]).paths(), ["a"]);
}

#[test]
fn entries_behind_the_archives_end_are_none() {
    let mut layer = Tar::new().file("a", "1").end();
    layer.extend_from_slice(&Tar::new().file("b", "2").end());
    assert_eq!(image(&[layer]).paths(), ["a"]);
}

#[test]
fn a_tar_cut_anywhere_within_an_entry_is_refused() {
    let layer = Tar::new().pax(&[("mtime", b"1.5")]).file("a", "x".repeat(700)).0;
    for cut in (1..layer.len())
        .filter(|cut| !cut.is_multiple_of(512))
        .chain([512, 1024, 1536, 2048, 2560])
        .step_by(7)
    {
        if cut < layer.len() {
            assert_fault!(fault(layer[..cut].to_vec()), Fault::Truncated);
        }
    }
}
