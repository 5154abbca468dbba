use std::fs;

use super::*;
use crate::bzimage::tests::{RELEASE, bzimage, packed_payload};
use crate::decompress::Format;
use crate::modules::tests::package;
use crate::vmlinux::tests::kernel;

/// A host's root with a kernel in `/boot` and its modules.
pub(crate) fn host_root() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let image = bzimage(&packed_payload(Format::Zstd, &kernel(RELEASE, true)));
    let files = package().into_iter().chain([(format!("boot/vmlinuz-{RELEASE}"), image)]);
    for (path, bytes) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    root
}

fn unpack(found: Found) -> Result<Stored<KernelContents>> {
    let home = tempfile::tempdir().unwrap().keep();
    let store = Store::new(home.join("kernels"), 1);
    let mut draft = store.draft()?;
    let contents = found.unpack(&mut draft)?;
    let stored = store.publish(draft, contents);
    let read = stored.as_ref().ok().map(|stored| stored.read("00-virtio_mmio.ko").unwrap().len());
    assert!(read.is_none_or(|size| size > 0));
    fs::remove_dir_all(home).unwrap();
    stored
}

fn module_names(stored: &Stored<KernelContents>) -> Vec<&str> {
    stored.manifest.contents.modules.iter().map(|module| module.file.as_str()).collect()
}

const MODULES: [&str; 8] = [
    "00-virtio_mmio.ko",
    "01-virtio_blk.ko",
    "02-virtio_net.ko",
    "03-libcrc32c.ko",
    "04-netfs.ko",
    "05-erofs.ko",
    "06-overlay.ko",
    "07-virtio_rng.ko",
];

#[test]
fn the_hosts_kernel_is_taken_with_its_modules() {
    let root = host_root();
    let stored = unpack(from_host(root.path(), Some(RELEASE)).unwrap()).unwrap();
    assert_eq!(stored.manifest.contents.release, RELEASE);
    assert_eq!(module_names(&stored), MODULES);
}

#[test]
fn a_package_gives_the_same_as_the_host() {
    let image = bzimage(&packed_payload(Format::Xz, &kernel(RELEASE, true)));
    let mut files: Vec<(String, Vec<u8>)> =
        package().into_iter().map(|(path, bytes)| (format!("./usr/{path}"), bytes)).collect();
    files.push((format!("./boot/vmlinuz-{RELEASE}"), image));
    let files: Vec<(&str, &[u8])> =
        files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect();
    let dir = tempfile::tempdir().unwrap();
    let deb = dir.path().join("linux.deb");
    fs::write(&deb, deb::tests::deb(&files, Format::Xz)).unwrap();

    let package = crate::apt::tests::package();
    let stored = unpack(from_package(package, &deb).unwrap()).unwrap();
    assert_eq!(stored.manifest.contents.release, RELEASE);
    assert_eq!(module_names(&stored), MODULES);
    assert!(matches!(stored.manifest.contents.source, SourceRecord::Debian { .. }));
}

#[test]
fn an_elf_says_its_release_itself() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vmlinux");
    fs::write(&path, kernel("6.9.1-own", true)).unwrap();
    let (release, _) = ready_kernel(fs::read(&path).unwrap(), None).unwrap();
    assert_eq!(release, "6.9.1-own");
}

#[test]
fn a_kernel_without_pvh_is_named_with_the_cause() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vmlinuz");
    fs::write(&path, bzimage(&packed_payload(Format::Gzip, &kernel(RELEASE, false)))).unwrap();
    let error = unpack(from_files(&path, None).unwrap()).unwrap_err();
    let Error::Kernel { path: named, source: KernelError::NoPvh } = error else { panic!("{error}") };
    assert_eq!(named, path);
}

#[test]
fn a_host_without_such_a_kernel_is_told_so() {
    let root = host_root();
    let error = from_host(root.path(), Some("5.4.0-none")).err().unwrap();
    assert!(matches!(error, Error::NoKernel { .. }), "{error}");
}

#[test]
fn a_release_that_is_a_path_is_refused() {
    let root = host_root();
    let error = from_host(root.path(), Some("../../etc/passwd")).err().unwrap();
    assert!(matches!(error, Error::NoKernel { .. }), "{error}");
}
