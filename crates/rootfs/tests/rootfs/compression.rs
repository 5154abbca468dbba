//! Compressed layers: the same image, and damaged streams refused.

use std::io::Write;

use cellule_rootfs::{Compression, Digest, Fault, Limit, Limits};

use crate::support::{Tar, assert_fault, build_file, fault, refusal};

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

type Compress = fn(&[u8]) -> Vec<u8>;

const ALL: [(Compression, Compress); 3] =
    [(Compression::Gzip, gzip), (Compression::Zstd, zstd), (Compression::Xz, xz)];

/// Contents that hardly compress, so that streams are long.
fn layer() -> Vec<u8> {
    let mut state = 1_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    })
    .take(300_000)
    .collect();
    Tar::new().file("noise", noise).file("b", "2").end()
}

#[test]
fn compression_changes_neither_the_image_nor_the_diff_id() {
    let plain = layer();
    let (expected, _) = build_file(std::slice::from_ref(&plain), &Limits::default()).unwrap();
    assert_eq!(expected.diff_ids, [Digest::of(&plain)]);
    for (compression, compress) in ALL {
        let blob = compress(&plain);
        assert_eq!(Compression::recognise(&blob), compression);
        let (built, _) = build_file(&[blob], &Limits::default()).unwrap();
        assert_eq!(built, expected, "{compression}");
    }
}

#[test]
fn streams_of_several_members_are_read_to_the_last() {
    let plain = layer();
    let (expected, _) = build_file(std::slice::from_ref(&plain), &Limits::default()).unwrap();
    for (compression, compress) in ALL {
        let parts: Vec<u8> = plain.chunks(100_000).flat_map(compress).collect();
        let (built, _) = build_file(&[parts], &Limits::default()).unwrap();
        assert_eq!(built, expected, "{compression}");
    }
}

#[test]
fn a_zstd_stream_may_begin_with_a_skippable_frame() {
    let plain = layer();
    let blob = [b"\x50\x2a\x4d\x18\x03\0\0\0abc".as_slice(), &zstd(&plain)].concat();
    let (built, _) = build_file(&[blob], &Limits::default()).unwrap();
    assert_eq!(built.diff_ids, [Digest::of(&plain)]);
}

#[test]
fn a_stream_cut_anywhere_is_refused() {
    for (compression, compress) in ALL {
        let blob = compress(&layer());
        for cut in (6..40).chain((40..blob.len()).step_by(blob.len() / 20)).chain(blob.len() - 12..blob.len())
        {
            assert_fault!(fault(blob[..cut].to_vec()), Fault::Decompress { compression: c, .. } if c == compression);
        }
    }
}

#[test]
fn a_damaged_stream_is_refused() {
    for (compression, compress) in ALL {
        let mut blob = compress(&layer());
        let middle = blob.len() / 2;
        blob[middle] ^= 0xff;
        // Zstandard of this crate's tests has no checksum: the damage shows in the tar or not at all.
        match build_file(&[blob], &Limits::default()) {
            Err(_) => {}
            Ok(_) => assert_eq!(compression, Compression::Zstd),
        }
    }
}

#[test]
fn garbage_behind_a_stream_is_refused() {
    for (compression, compress) in ALL {
        for garbage in [&b"garbage"[..], b"x", &[0xff; 5000]] {
            let blob = [&compress(&layer()), garbage].concat();
            assert_fault!(fault(blob), Fault::Decompress { compression: c, .. } if c == compression);
        }
    }
}

#[test]
fn bombs_stop_at_the_limit_of_a_layer() {
    let limits = Limits { layer_bytes: 4 << 20, ..Limits::default() };
    let bomb = Tar::new().file("zeros", vec![0; 8 << 20]).end();
    for (_, compress) in ALL {
        let blob = compress(&bomb);
        assert!(blob.len() < 100_000);
        assert_fault!(refusal(&[blob], &limits).2, Fault::Limit { limit: Limit::LayerBytes, allowed } if allowed == 4 << 20);
        // The archive's end doesn't end the counting.
        let behind = [Tar::new().end(), vec![0; 8 << 20]].concat();
        assert_fault!(
            refusal(&[compress(&behind)], &limits).2,
            Fault::Limit { limit: Limit::LayerBytes, .. }
        );
    }
}

#[test]
fn a_zstd_window_beyond_128_mib_is_refused() {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(28).unwrap();
    encoder.long_distance_matching(true).unwrap();
    encoder.write_all(&layer()).unwrap();
    let blob = encoder.finish().unwrap();
    assert_fault!(fault(blob), Fault::Decompress { compression: Compression::Zstd, .. });
}

#[test]
fn a_compressed_empty_layer_is_an_empty_layer() {
    for (_, compress) in ALL {
        let (built, _) = build_file(&[compress(b"")], &Limits::default()).unwrap();
        assert_eq!(built.diff_ids, [Digest::of(b"")]);
    }
}
