//! Programs that aren't ours judge the EROFS file: erofs-utils, where they are installed.
//!
//! With `CELLULE_REQUIRE_EROFS_UTILS=1` their absence is a failure.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output};

use cellule_rootfs::Limits;

use crate::support::{Header, Kind, Tar, build_file, image};

/// Runs a tool of erofs-utils; none if it isn't there and needn't be.
#[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
fn erofs_utils(tool: &str, arguments: &[&str]) -> Option<Output> {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    match Command::new(tool).env("PATH", path).args(arguments).output() {
        Ok(output) => Some(output),
        Err(error) if std::env::var_os("CELLULE_REQUIRE_EROFS_UTILS").is_some_and(|v| v == "1") => {
            panic!("{tool} is required and can't be run: {error}")
        }
        Err(error) => {
            println!("skipped: {tool} can't be run: {error}");
            None
        }
    }
}

/// A layer with everything that has a form of its own on disk.
fn everything() -> Vec<u8> {
    let large_xattr = vec![b'v'; 9000];
    let mut layer = Tar::new()
        .entry(Header::new("./", b'5').mode(0o755).mtime(1), b"")
        .entry(Header::new("fifo", b'6').mode(0o600), b"")
        .file("empty", "")
        .file("small", "s")
        .file("block", "b".repeat(4096))
        .file("block and rest", "r".repeat(5000))
        .file("large rest", "l".repeat(8000))
        .file("large", "0123456789abcdef".repeat(20_000))
        .hard_link("hard", "small")
        .symlink("link", "small")
        .pax(&[("linkpath", "t".repeat(4090).as_bytes())])
        .symlink("long link", "")
        .pax(&[
            ("SCHILY.xattr.user.large", &large_xattr),
            ("SCHILY.xattr.security.capability", b"\x01\0\0\x02"),
        ])
        .file("attributes", "a".repeat(100))
        .pax(&[("mtime", b"1700000000.5"), ("uid", b"70000"), ("gid", b"80000")])
        .file("owned", "o");
    for i in 0..1000 {
        layer = layer.file(&format!("many/{:0width$}", i, width = 4 + i % 90), format!("{i}"));
    }
    layer.end()
}

fn on_disk(layer: &[u8], directory: &Path) -> String {
    let (_, mut file) = build_file(&[layer.to_vec()], &Limits::default()).unwrap();
    let path = directory.join("image.erofs");
    std::io::Seek::rewind(&mut file).unwrap();
    std::io::copy(&mut file, &mut fs::File::create(&path).unwrap()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn fsck_finds_no_error_and_extracts_what_the_layer_held() {
    let scratch = tempfile::tempdir().unwrap();
    let file = on_disk(&everything(), scratch.path());
    let extracted = scratch.path().join("extracted");
    let extract = format!("--extract={}", extracted.display());
    let arguments = [extract.as_str(), "--no-preserve-owner", "--preserve-perms", &file];
    let Some(output) = erofs_utils("fsck.erofs", &arguments) else { return };
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
    assert!(!text.contains("<E>"), "{text}");
    let image = image(&[everything()]);
    let mut compared = 0;
    for (path, node) in &image.nodes {
        let found = extracted.join(path);
        let metadata = fs::symlink_metadata(&found).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        match &node.kind {
            Kind::File(contents) => assert!(fs::read(&found).unwrap() == *contents, "{path:?}"),
            Kind::Symlink(target) => assert_eq!(fs::read_link(&found).unwrap(), Path::new(target)),
            Kind::Directory => assert!(metadata.is_dir(), "{path:?}"),
            _ => {}
        }
        if !metadata.is_symlink() {
            assert_eq!(metadata.mode() & 0o777, u32::from(node.mode & 0o777), "{path:?}");
        }
        compared += 1;
    }
    assert_eq!(compared, image.nodes.len());
}

#[test]
fn dump_reads_the_superblock_and_inodes() {
    let scratch = tempfile::tempdir().unwrap();
    let file = on_disk(&everything(), scratch.path());
    let Some(output) = erofs_utils("dump.erofs", &["-s", &file]) else { return };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("sb_csum mtime"), "{text}");
    let inodes =
        format!("Filesystem inode count:                       {}", image(&[everything()]).nodes.len() - 1);
    assert!(text.contains(&inodes), "{text}");
    let Some(output) = erofs_utils("dump.erofs", &["--path=/owned", &file]) else { return };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("Uid: 70000") && text.contains("Gid: 80000"), "{text}");
}

#[test]
fn fsck_notices_a_damaged_superblock() {
    let scratch = tempfile::tempdir().unwrap();
    let file = on_disk(&everything(), scratch.path());
    let mut bytes = fs::read(&file).unwrap();
    bytes[1024 + 16] ^= 1;
    fs::write(&file, bytes).unwrap();
    let Some(output) = erofs_utils("fsck.erofs", &[&file]) else { return };
    // It says so and still exits with 0, which is why the first test looks for errors in what it prints.
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("superblock chksum doesn't match"),
        "{output:?}"
    );
}
