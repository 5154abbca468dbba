//! One to three tars of a few entries that meet, rarely damaged: no panic; the file depends on what the tars hold and
//! not on how they are packed; and a build that is told to stop stops.
#![no_main]

use std::io::Write;

use arbitrary::{Arbitrary, Result, Unstructured};
use cellule_fuzz::build::{build_once, build_twice};
use cellule_fuzz::tar::{Entry, seal, tar};
use cellule_rootfs::Digest;
use libfuzzer_sys::fuzz_target;

#[derive(Debug)]
struct Image {
    layers: Vec<Vec<u8>>,
    packing: Vec<Packing>,
    cancel_after: u8,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Packing {
    Gzip,
    Zstd,
    TwoGzipMembers,
}

impl<'a> Arbitrary<'a> for Image {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let mut layers = Vec::new();
        for _ in 0..u.int_in_range(1..=3)? {
            let mut entries: Vec<Entry> = Vec::new();
            while entries.len() < 24 && u.ratio(9, 10)? {
                entries.push(u.arbitrary()?);
            }
            let mut tar = tar(&entries);
            if u.ratio(1, 8)? {
                let at = u.choose_index(tar.len())?;
                tar[at] = u.arbitrary()?;
                if u.ratio(3, 4)? {
                    seal(&mut tar);
                }
            }
            if u.ratio(1, 20)? {
                tar.truncate(u.choose_index(tar.len())?);
            }
            layers.push(tar);
        }
        Ok(Self { layers, packing: u.arbitrary()?, cancel_after: u.arbitrary()? })
    }
}

fn pack(tar: &[u8], packing: Packing) -> Vec<u8> {
    let gzip = |bytes: &[u8]| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(bytes).and_then(|()| gzip.finish()).expect("memory takes everything")
    };
    match packing {
        Packing::Gzip => gzip(tar),
        Packing::Zstd => zstd::encode_all(tar, 1).expect("memory takes everything"),
        Packing::TwoGzipMembers => {
            let (first, second) = tar.split_at(tar.len() / 2);
            [gzip(first), gzip(second)].concat()
        }
    }
}

fuzz_target!(|image: Image| {
    let Image { layers, packing, cancel_after } = image;
    let built = build_twice(&layers);
    if let Some(built) = &built {
        let digests: Vec<Digest> = layers.iter().map(|tar| Digest::of(tar)).collect();
        assert_eq!(built.diff_ids, digests);
    }
    if !packing.is_empty() {
        let packing = packing.iter().cycle();
        let packed: Vec<Vec<u8>> = layers.iter().zip(packing).map(|(tar, how)| pack(tar, *how)).collect();
        assert_eq!(build_once(&packed, None).ok(), built);
    }
    drop(build_once(&layers, Some(u32::from(cancel_after))));
});
