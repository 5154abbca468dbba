//! The manifest of a saved machine: whatever it says, nothing panics, and what is read is what is written again.
#![no_main]

use cellule_snapshot::Manifest;
use libfuzzer_sys::fuzz_target;

const VALID: &str = r#"{"format":1,"key":{"engine":"qemu","program":null,"cpus":1,"memory_mib":512,"boot":"b","rootfs":"r",
"warm_up":""},"label":"base","saved_ns":1,"origin":{"engine":"qemu","version":"7.2.22","machine":"microvm","tsc_khz":2600000},
"memory":{"bytes":536870912,"written_ns":1},"devices_sha256":"00"}"#;

fuzz_target!(|edits: (Vec<(u16, u8)>, Option<Vec<u8>>)| {
    let (edits, whole) = edits;
    let text = whole.unwrap_or_else(|| {
        let mut text = VALID.as_bytes().to_vec();
        for (at, byte) in edits {
            let at = usize::from(at) % text.len();
            text[at] = byte;
        }
        text
    });
    if let Ok(manifest) = Manifest::parse(&text) {
        let written = serde_json::to_vec(&manifest).expect("a manifest has a form in JSON");
        assert_eq!(Manifest::parse(&written).expect("what was written is read"), manifest);
        let id = manifest.key.id();
        assert_eq!(id.as_str().parse(), Ok(id.clone()));
    }
});
