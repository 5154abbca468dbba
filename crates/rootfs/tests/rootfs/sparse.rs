//! Sparse files in all of GNU's formats.

use cellule_rootfs::{Fault, Limit, Limits};

use crate::support::{Header, Tar, archive::BLOCK, assert_fault, fault, image, refusal};

const SIZE: usize = 20_000;

/// What every format below must unpack to.
fn expected() -> Vec<u8> {
    let mut file = vec![0; SIZE];
    file[5000..5003].copy_from_slice(b"abc");
    file[19_000..19_600].fill(b'z');
    file
}

fn stored() -> Vec<u8> {
    [&b"abc"[..], &[b'z'; 600]].concat()
}

fn old_gnu(extents: &[(u64, u64)], size: u64, stored: &[u8]) -> Tar {
    let number = |n: u64| format!("{n:011o}\0").into_bytes();
    let mut header =
        Header::new("sparse", b'S').size(stored.len() as u64).raw(257, b"ustar  \0").raw(483, &number(size));
    for (i, (offset, length)) in extents.iter().take(4).enumerate() {
        header = header.raw(386 + 24 * i, &number(*offset)).raw(398 + 24 * i, &number(*length));
    }
    let rest = extents.get(4..).unwrap_or_default();
    let mut contents = Vec::new();
    for (i, extents) in rest.chunks(21).enumerate() {
        let mut block = vec![0; BLOCK];
        for (j, (offset, length)) in extents.iter().enumerate() {
            block[24 * j..24 * j + 12].copy_from_slice(&number(*offset));
            block[24 * j + 12..24 * j + 24].copy_from_slice(&number(*length));
        }
        block[504] = u8::from((i + 1) * 21 < rest.len());
        contents.extend_from_slice(&block);
    }
    contents.extend_from_slice(stored);
    if !rest.is_empty() {
        header = header.raw(482, &[1]);
    }
    Tar::new().entry(header, &contents)
}

fn pax_1_0(map: &str, size: &str, stored: &[u8]) -> Tar {
    let mut contents = map.as_bytes().to_vec();
    contents.resize(contents.len().next_multiple_of(BLOCK), 0);
    contents.extend_from_slice(stored);
    Tar::new()
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"sparse"),
            ("GNU.sparse.realsize", size.as_bytes()),
        ])
        .entry(Header::new("GNUSparseFile.0/sparse", b'0').size(contents.len() as u64), &contents)
}

#[test]
fn the_old_gnu_format_is_unpacked() {
    let layer = old_gnu(&[(5000, 3), (19_000, 600), (20_000, 0)], 20_000, &stored()).file("next", "1");
    let image = image(&[layer.end()]);
    assert!(image.contents("sparse") == expected());
    assert_eq!(image.text("next"), "1");
}

#[test]
fn the_old_gnu_format_goes_on_in_further_blocks() {
    let extents: Vec<(u64, u64)> = (0..60).map(|i| (i * 100, 1)).collect();
    let image = image(&[old_gnu(&extents, 6000, &[b'x'; 60]).file("next", "1").end()]);
    let contents = image.contents("sparse");
    assert_eq!(contents.len(), 6000);
    assert!(contents.iter().enumerate().all(|(i, b)| *b == if i % 100 == 0 { b'x' } else { 0 }));
    assert_eq!(image.text("next"), "1");
}

#[test]
fn all_pax_formats_are_unpacked() {
    let pax = |records: &[(&str, &[u8])]| {
        let header = Header::new("sparse", b'0').size(stored().len() as u64);
        Tar::new().pax(records).entry(header, &stored())
    };
    let layers = [
        pax(&[
            ("GNU.sparse.size", b"20000"),
            ("GNU.sparse.numblocks", b"2"),
            ("GNU.sparse.offset", b"5000"),
            ("GNU.sparse.numbytes", b"3"),
            ("GNU.sparse.offset", b"19000"),
            ("GNU.sparse.numbytes", b"600"),
        ]),
        pax(&[
            ("GNU.sparse.size", b"20000"),
            ("GNU.sparse.map", b"5000,3,19000,600"),
            ("GNU.sparse.name", b"sparse"),
        ]),
        pax_1_0("2\n5000\n3\n19000\n600\n", "20000", &stored()),
    ];
    for layer in layers {
        let image = image(&[layer.file("next", "1").end()]);
        assert!(image.contents("sparse") == expected());
        assert_eq!(image.paths(), ["next", "sparse"]);
    }
}

#[test]
fn a_file_of_nothing_but_a_hole_is_zeros() {
    assert!(image(&[pax_1_0("0\n", "9000", b"").end()]).contents("sparse") == vec![0; 9000]);
    assert!(image(&[old_gnu(&[(9000, 0)], 9000, b"").end()]).contents("sparse") == vec![0; 9000]);
}

#[test]
fn maps_that_lie_are_refused() {
    for (extents, size) in [
        (&[(0, 3), (2, 600)][..], 20_000),
        (&[(19_000, 600), (0, 3)], 20_000),
        (&[(0, 3), (10, 600)], 100),
        (&[(0, 3)], 20_000),
        (&[(0, 3), (10, 601)], 20_000),
    ] {
        assert_fault!(fault(old_gnu(extents, size, &stored()).end()), Fault::Sparse);
    }
    for map in [
        "",
        "2\n0\n3\n10\n",
        "x\n",
        "-1\n",
        "2\n0\n3\n2\n600\n",
        "200000\n",
        "1\n0\n18446744073709551615\n",
        "\n",
    ] {
        assert_fault!(fault(pax_1_0(map, "20000", &stored()).end()), Fault::Sparse | Fault::Truncated);
    }
    for version in ["2", "0x"] {
        let layer = Tar::new().pax(&[("GNU.sparse.major", version.as_bytes())]).file("a", "");
        assert_fault!(fault(layer.end()), Fault::Sparse | Fault::Number { .. });
    }
    let offsets = Tar::new().pax(&[("GNU.sparse.offset", b"1"), ("GNU.sparse.offset", b"2")]).file("a", "");
    assert_fault!(fault(offsets.end()), Fault::Sparse);
}

#[test]
fn holes_count_as_unpacked_bytes() {
    let limits = Limits { total_bytes: 1 << 20, ..Limits::default() };
    let layer = pax_1_0("0\n", "9223372036854775807", b"").end();
    assert_fault!(refusal(&[layer], &limits).2, Fault::Limit { limit: Limit::TotalBytes, .. });
}
