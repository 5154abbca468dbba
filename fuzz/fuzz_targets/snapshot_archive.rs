//! A snapshot's archive: entries of any names, sizes and order, and bytes that are none at all. Nothing panics, and nothing is
//! written but what a snapshot has.
#![no_main]

use std::fs;

use arbitrary::Arbitrary;
use cellule_fuzz::scratch;
use cellule_snapshot::Snapshots;
use libfuzzer_sys::fuzz_target;

const MANIFEST: &str = r#"{"format":3,"subject":{"sandbox":{"name":"web","labels":{},"sandbox":null}},"saved_ns":1,
"origin":{"engine":"qemu","version":"7.2.22","machine":"microvm","tsc_khz":2600000},
"memory":{"bytes":134217728,"written_ns":1},"base":null,"disk":{"bytes":67108864,"written_ns":1},
"devices_sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}"#;

#[derive(Debug, Arbitrary)]
enum Entry {
    Manifest,
    Devices,
    Memory { page: u16, length: u16 },
    Disk { page: u16, length: u16 },
    Sum,
    Other { name: String, bytes: Vec<u8> },
}

#[derive(Debug, Arbitrary)]
enum Archive {
    Entries(Vec<Entry>),
    Bytes(Vec<u8>),
    Plain(Vec<u8>),
}

fuzz_target!(|archive: Archive| {
    let bytes = match archive {
        Archive::Bytes(bytes) => bytes,
        Archive::Plain(bytes) => compress(&bytes),
        Archive::Entries(entries) => {
            let mut tar = tar::Builder::new(Vec::new());
            for entry in entries.into_iter().take(16) {
                let (name, bytes) = match entry {
                    Entry::Manifest => ("manifest.json".to_owned(), MANIFEST.as_bytes().to_vec()),
                    Entry::Devices => ("devices".to_owned(), Vec::new()),
                    Entry::Memory { page, length } => {
                        (format!("memory/{:016x}", u64::from(page) << 12), vec![1; length.into()])
                    }
                    Entry::Disk { page, length } => {
                        (format!("disk/{:016x}", u64::from(page) << 12), vec![2; length.into()])
                    }
                    Entry::Sum => ("sha256".to_owned(), vec![b'0'; 64]),
                    Entry::Other { name, bytes } => (name, bytes),
                };
                let mut header = tar::Header::new_ustar();
                header.set_size(bytes.len() as u64);
                // What has no form as a name is left out.
                _ = tar.append_data(&mut header, name, &bytes[..]);
            }
            compress(&tar.into_inner().expect("memory can be written"))
        }
    };
    let home = scratch::directory();
    let snapshots = Snapshots::new(home.path().join("snapshots"));
    // The sum of what is made up here is never right.
    snapshots.import(&bytes[..]).expect_err("what nobody exported is not imported");
    assert_eq!(fs::read_dir(snapshots.dir()).expect("the directory can be read").count(), 0);
});

fn compress(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).expect("memory can be compressed")
}
