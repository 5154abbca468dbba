//! The manifest of a saved machine: whatever it says, nothing panics, and what is read is what is written again.
#![no_main]

use cellule_snapshot::Manifest;
use cellule_supervisor::SavedSandbox;
use libfuzzer_sys::fuzz_target;

const TEMPLATE: &str = r#"{"format":3,"subject":{"template":{"key":{"engine":"qemu","program":null,"cpus":1,"memory_mib":512,"disk_mib":0,
"boot":"b","rootfs":"r","warm_up":""},"label":"base"}},"saved_ns":1,"origin":{"engine":"qemu","version":"7.2.22",
"machine":"microvm","tsc_khz":2600000},"memory":{"bytes":536870912,"written_ns":1},"base":null,"disk":null,"devices_sha256":"00"}"#;

const SNAPSHOT: &str = r#"{"format":3,"subject":{"sandbox":{"name":"web","labels":{"a":"b"},"sandbox":{"spec":{"format":5,
"id":"0123456789ab","image":"base","image_digest":"sha256:1","created_ns":1,"engine":"qemu","engine_program":null,"cpus":1,
"memory_mib":512,"disk":64,"kernel":"/k","initramfs":"/i","rootfs":"/r","rootfs_digest":"sha256:2","hostname":"h","read_only":false,
"tmpfs":[],"env":["A=1"],"working_dir":"/","user":"","main":null,"stop_signal":null,"auto_remove":false,"expires_ns":null,
"idle":null,"labels":{},"templates":null,"saved":null},"main":{"started_ns":1,"stdout":2,"stderr":3}}}},"saved_ns":1,
"origin":{"engine":"qemu","version":"7.2.22","machine":"microvm","tsc_khz":2600000},
"memory":{"bytes":536870912,"written_ns":1},"base":{"memory":{"bytes":536870912,"written_ns":1},"pages_sha256":"00",
"changed_bytes":4096},"disk":{"bytes":67108864,"written_ns":1},"devices_sha256":"00"}"#;

fuzz_target!(|edits: (bool, Vec<(u16, u8)>, Option<Vec<u8>>)| {
    let (snapshot, edits, whole) = edits;
    let text = whole.unwrap_or_else(|| {
        let mut text = if snapshot { SNAPSHOT } else { TEMPLATE }.as_bytes().to_vec();
        for (at, byte) in edits {
            let at = usize::from(at) % text.len();
            text[at] = byte;
        }
        text
    });
    let Ok(manifest) = Manifest::parse(&text) else { return };
    let written = serde_json::to_vec(&manifest).expect("a manifest has a form in JSON");
    assert_eq!(Manifest::parse(&written).expect("what was written is read"), manifest);
    if let Some(template) = manifest.template() {
        let id = template.key.id();
        assert_eq!(id.as_str().parse(), Ok(id.clone()));
    }
    if let Some(subject) = manifest.sandbox() {
        let text = serde_json::to_vec(&subject.sandbox).expect("a document has a form in JSON");
        if let Ok(saved) = SavedSandbox::parse(&text) {
            let written = serde_json::to_vec(&saved).expect("a sandbox has a form in JSON");
            assert_eq!(SavedSandbox::parse(&written).expect("what was written is read"), saved);
        }
    }
});
