use std::io::Read;

use super::*;

/// A busybox of the given bytes; nothing runs it.
pub(crate) fn busybox(bytes: &[u8]) -> Busybox {
    Busybox {
        bytes: bytes.to_vec(),
        applets: parse_applets("bin/busybox\nbin/sh\nusr/bin/env\nusr/local/sbin/odd\nlinuxrc\n").unwrap(),
        source: SourceRecord::File { path: "/bin/busybox".into() },
    }
}

#[test]
fn the_tar_holds_a_root_directory_in_order() {
    let mut tar = Vec::new();
    busybox(b"program").write_tar(&mut tar).unwrap();
    let mut archive = tar::Archive::new(tar.as_slice());
    let mut lines = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        assert_eq!(entry.header().mtime().unwrap(), 0);
        assert_eq!((entry.header().uid().unwrap(), entry.header().gid().unwrap()), (0, 0));
        let mode = entry.header().mode().unwrap();
        let path = entry.path().unwrap().display().to_string();
        let link =
            entry.link_name().unwrap().map(|link| format!(" -> {}", link.display())).unwrap_or_default();
        let mut text = String::new();
        if path == "bin/busybox" {
            entry.read_to_string(&mut text).unwrap();
        }
        lines.push(format!("{mode:o} {path}{link}{text}"));
    }
    let expected = [
        "755 bin/",
        "755 bin/busyboxprogram",
        "777 bin/sh -> /bin/busybox",
        "755 dev/",
        "755 etc/",
        "644 etc/group",
        "644 etc/passwd",
        "755 home/",
        "777 linuxrc -> /bin/busybox",
        "755 proc/",
        "700 root/",
        "755 run/",
        "755 sbin/",
        "755 sys/",
        "1777 tmp/",
        "755 usr/",
        "755 usr/bin/",
        "777 usr/bin/env -> /bin/busybox",
        "755 usr/local/",
        "755 usr/local/sbin/",
        "777 usr/local/sbin/odd -> /bin/busybox",
        "755 var/",
        "1777 var/tmp/",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn the_tar_is_the_same_each_time() {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    busybox(b"program").write_tar(&mut first).unwrap();
    busybox(b"program").write_tar(&mut second).unwrap();
    assert!(first == second);
}

#[test]
fn what_cannot_be_an_applet_is_refused() {
    for list in ["", "bin/../../etc/shadow", "/bin/sh", "bin//sh", "bin/a b", "etc/passwd", "bin/\u{1b}[2J"] {
        assert!(matches!(parse_applets(list), Err(BaseError::Applets { .. })), "{list:?}");
    }
}

#[test]
fn the_configuration_has_the_names_of_the_specification() {
    let config = serde_json::to_value(busybox(b"").contents().config).unwrap();
    assert_eq!(config, serde_json::json!({ "Cmd": ["sh"], "Env": [PATH] }));
}

#[test]
fn only_a_static_program_for_this_machine_is_a_busybox() {
    assert!(is_static(crate::AGENT.bytes()));
    assert!(!is_static(b"#!/bin/sh"));
    let this_test = fs::read(std::env::current_exe().unwrap()).unwrap();
    assert!(!is_static(&this_test));
}
