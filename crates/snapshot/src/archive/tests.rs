use std::os::unix::fs::MetadataExt as _;

use cellule_engine::MemorySize;

use super::*;
use crate::error::Damage;
use crate::files::DEVICES;
use crate::snapshots::tests::{DISK_BYTES, base, marks, name, save, snapshots, subject};

fn exported(extent: Extent) -> (tempfile::TempDir, Snapshots, Vec<u8>) {
    let (top, snapshots) = snapshots();
    let files = save(&snapshots, &base(&top), extent).publish(&name("one")).unwrap();
    let mut archive = Vec::new();
    snapshots.export(&files, &mut archive).unwrap();
    (top, snapshots, archive)
}

fn refused(snapshots: &Snapshots, archive: &[u8]) -> Damage {
    match snapshots.import(archive) {
        Err(Error::Damaged { damage, .. }) => damage,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_exported_is_imported_as_one_memory() {
    for extent in [Extent::Changes, Extent::Whole] {
        let (_top, snapshots, archive) = exported(extent);
        assert!(archive.len() < 100_000, "{} bytes", archive.len());
        let files = snapshots.import(&archive[..]).unwrap().publish(&name("two")).unwrap();
        assert_eq!(files.manifest().subject, subject());
        let machine = files.load().unwrap();
        assert_eq!(machine.devices, b"the state of devices");
        assert_eq!(machine.base.metadata().unwrap().len(), MemorySize::MIN.bytes());
        let mut pages = vec![9; 3 * 4096];
        machine.base.read_exact_at(&mut pages, 0).unwrap();
        // The first page was cleared and the second written.
        let firsts: Vec<u8> = pages.chunks(4096).map(|page| page[0]).collect();
        assert_eq!(firsts, [0, 2, 0]);
        let disk = files.disk().unwrap().unwrap();
        let found = disk.metadata().unwrap();
        assert!((found.len(), found.blocks() <= 16) == (DISK_BYTES, true), "{found:?}");
        assert_eq!(marks(&disk), [0, 5]);
        assert_eq!(std::fs::read_dir(snapshots.dir()).unwrap().count(), 2);
    }
}

#[test]
fn what_is_cut_anywhere_is_refused_and_leaves_nothing() {
    let (_top, snapshots, archive) = exported(Extent::Changes);
    for length in (0..archive.len()).step_by(97).chain([archive.len() - 1]) {
        refused(&snapshots, &archive[..length]);
    }
    assert_eq!(std::fs::read_dir(snapshots.dir()).unwrap().count(), 1);
}

#[test]
fn what_is_altered_anywhere_is_refused() {
    let (_top, snapshots, archive) = exported(Extent::Changes);
    let contents = zstd::decode_all(&archive[..]).unwrap();
    for at in (0..archive.len()).step_by(61) {
        let mut altered = archive.clone();
        altered[at] ^= 0x20;
        // The frame has a few bits that its contents do not depend on.
        if zstd::decode_all(&altered[..]).is_ok_and(|altered| altered == contents) {
            continue;
        }
        refused(&snapshots, &altered);
    }
    // By somebody who knows zstd, too.
    let mut plain = zstd::decode_all(&archive[..]).unwrap();
    let at = plain.windows(20).position(|window| window == b"the state of devices").unwrap();
    plain[at] = b'T';
    let altered = zstd::encode_all(&plain[..], 1).unwrap();
    assert!(matches!(refused(&snapshots, &altered), Damage::Altered { file: DEVICES }));
    let mut plain = zstd::decode_all(&archive[..]).unwrap();
    let at = plain.windows(4096).position(|window| window.iter().all(|byte| *byte == 2)).unwrap();
    plain[at] = 3;
    let altered = zstd::encode_all(&plain[..], 1).unwrap();
    assert!(matches!(refused(&snapshots, &altered), Damage::Sum));
}

#[test]
fn entries_that_are_none_of_its_are_refused() {
    let (_top, snapshots, archive) = exported(Extent::Whole);
    let files = snapshots.find(&name("one")).unwrap();
    let manifest = |bytes: u64| {
        let mut manifest = files.manifest().clone();
        manifest.memory.bytes = bytes;
        serde_json::to_vec(&manifest).unwrap()
    };
    let (good, devices) = (manifest(MemorySize::MIN.bytes()), b"the state of devices".as_slice());
    let no_disk = serde_json::from_slice::<Manifest>(&good).unwrap();
    let no_disk = serde_json::to_vec(&Manifest { disk: None, ..no_disk }).unwrap();
    let piece = [1; 4096].as_slice();
    let cases: [&[(&str, &[u8])]; 11] = [
        &[("manifest.json", &no_disk), ("devices", devices), ("disk/0000000000000000", piece)],
        &[("manifest.json", &good), ("devices", devices), ("disk/0000000000100000", piece)],
        &[
            ("manifest.json", &good),
            ("devices", devices),
            ("disk/0000000000000000", piece),
            ("memory/0000000000000000", piece),
        ],
        &[("manifest.json", &good), ("devices", devices), ("memory/0000000000000000", &[])],
        &[("manifest.json", &good), ("devices", devices), ("memory/0000000000000000", &[1; 4095])],
        &[("../manifest.json", &good)],
        &[("devices", devices)],
        &[("manifest.json", &manifest(u64::MAX))],
        &[("manifest.json", &good), ("devices", devices), ("memory/ffffffffffff0000", &[1; 4096])],
        &[("manifest.json", &good), ("devices", devices), ("memory/1", &[1; 4096])],
        &[
            ("manifest.json", &good),
            ("devices", devices),
            ("memory/0000000000001000", &[1; 4096]),
            ("memory/0000000000000000", &[1; 4096]),
        ],
    ];
    for entries in cases {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, bytes) in entries {
            let mut header = tar::Header::new_ustar();
            header.as_ustar_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(bytes.len() as u64);
            header.set_cksum();
            tar.append(&header, *bytes).unwrap();
        }
        let archive = zstd::encode_all(&tar.into_inner().unwrap()[..], 1).unwrap();
        let damage = refused(&snapshots, &archive);
        assert!(matches!(damage, Damage::Entry(_) | Damage::Pages), "{damage:?}");
    }
    // A name without end, of a kind that its reader would read whole.
    for kind in [tar::EntryType::GNULongName, tar::EntryType::XHeader, tar::EntryType::Symlink] {
        let mut header = tar::Header::new_ustar();
        header.as_ustar_mut().unwrap().name[..1].copy_from_slice(b"x");
        header.set_entry_type(kind);
        header.set_size(1 << 40);
        header.set_cksum();
        let archive = zstd::encode_all(&[header.as_bytes().as_slice(), &[0; 4096]].concat()[..], 1).unwrap();
        let damage = refused(&snapshots, &archive);
        assert!(matches!(damage, Damage::Entry(_)), "{damage:?}");
    }
    drop(archive);
}
