use super::*;
use crate::decompress::tests::pack;
use crate::modinfo::tests::{module, sign};

const RELEASE: &str = "6.12.0-test";

/// A module as a package has it: signed, packed.
pub(crate) fn packed_module(depends: &str) -> Vec<u8> {
    let fields = [format!("depends={depends}"), format!("vermagic={RELEASE} SMP")];
    pack(Format::Xz, &sign(module(&[&fields[0], &fields[1]]), 300))
}

/// What a kernel's package holds: the required modules with something to depend on, and two optional ones.
pub(crate) fn package() -> BTreeMap<String, Vec<u8>> {
    [
        ("kernel/drivers/virtio/virtio_mmio.ko.xz", "virtio,virtio-ring"),
        ("kernel/drivers/block/virtio_blk.ko.xz", ""),
        ("kernel/fs/erofs/erofs.ko.xz", "libcrc32c,netfs"),
        ("kernel/lib/libcrc32c.ko.xz", ""),
        ("kernel/fs/netfs/netfs.ko.xz", "libcrc32c"),
        ("kernel/fs/overlayfs/overlay.ko.xz", ""),
        ("kernel/drivers/char/hw_random/virtio-rng.ko.xz", ""),
        ("kernel/drivers/net/virtio_net.ko.xz", ""),
        ("kernel/fs/fuse/virtiofs.ko.xz", "fuse"),
    ]
    .into_iter()
    .map(|(path, depends)| (format!("lib/modules/{RELEASE}/{path}"), packed_module(depends)))
    .chain([(
        format!("lib/modules/{RELEASE}/modules.builtin"),
        b"kernel/drivers/virtio/virtio.ko\nkernel/drivers/virtio/virtio_ring.ko\n".to_vec(),
    )])
    .collect()
}

fn edited(edit: impl FnOnce(&mut BTreeMap<String, Vec<u8>>)) -> ModuleTree {
    let mut files = package();
    edit(&mut files);
    ModuleTree::from_files(files)
}

fn names(modules: &[Module]) -> Vec<&str> {
    modules.iter().map(|module| module.name.as_str()).collect()
}

fn path(end: &str) -> String {
    format!("lib/modules/{RELEASE}/{end}")
}

#[test]
fn dependencies_come_first_and_optional_modules_last() {
    let modules = edited(|_| ()).closure(RELEASE).unwrap();
    let expected =
        ["virtio_mmio", "virtio_blk", "virtio_net", "libcrc32c", "netfs", "erofs", "overlay", "virtio_rng"];
    assert_eq!(names(&modules), expected);
    assert_eq!(modules.iter().filter(|module| module.need == Need::Optional).count(), 1);
    let plain = module(&["depends=", &format!("vermagic={RELEASE} SMP")]);
    assert_eq!(modules[1].bytes, plain);
}

#[test]
fn a_soft_dependency_is_taken_if_it_is_there_also_by_its_algorithm() {
    let fields = ["softdep=pre: crc32c nowhere", "depends="];
    let soft = module(&fields);
    let mut tree = edited(|files| {
        files.insert(path("kernel/lib/libcrc32c.ko.xz"), soft);
        files.insert(path("kernel/crypto/crc32c-intel.ko.xz"), packed_module(""));
        files.insert(path("kernel/crypto/crc32c_generic.ko.xz"), packed_module(""));
    });
    let modules = tree.closure(RELEASE).unwrap();
    assert_eq!(names(&modules)[3..6], ["crc32c_generic", "libcrc32c", "netfs"]);
    assert_eq!(modules[3].need, Need::Required);

    tree.add_builtin(b"kernel/crypto/crc32c_generic.ko\n");
    assert_eq!(names(&tree.closure(RELEASE).unwrap())[3], "libcrc32c");
}

#[test]
fn an_optional_module_without_its_dependency_is_left_out_as_a_whole() {
    let tree = edited(|files| {
        files.insert(path("kernel/fs/fuse/fuse.ko.xz"), packed_module("nowhere"));
    });
    assert!(!names(&tree.closure(RELEASE).unwrap()).contains(&"fuse"));
}

#[test]
fn a_required_module_that_is_nowhere_is_named() {
    let tree = edited(|files| {
        files.remove(&path("kernel/fs/overlayfs/overlay.ko.xz"));
    });
    let error = tree.closure(RELEASE).unwrap_err();
    assert_eq!(error.to_string(), "the kernel 6.12.0-test has no module overlay, which every guest needs");
}

#[test]
fn a_dependency_that_is_nowhere_is_named_with_what_needs_it() {
    let tree = edited(|files| {
        files.remove(&path("kernel/lib/libcrc32c.ko.xz"));
    });
    let error = tree.closure(RELEASE).unwrap_err();
    assert_eq!(error.to_string(), "the kernel 6.12.0-test has no module libcrc32c, which erofs depends on");
}

#[test]
fn a_circle_is_refused() {
    let tree = edited(|files| {
        files.insert(path("kernel/lib/libcrc32c.ko.xz"), packed_module("erofs"));
    });
    assert!(matches!(tree.closure(RELEASE), Err(Error::ModuleCycle { .. })));
}

#[test]
fn a_chain_without_end_is_refused() {
    let tree = edited(|files| {
        for i in 0..1000 {
            files.insert(path(&format!("m{i}.ko.xz")), packed_module(&format!("m{}", i + 1)));
        }
        files.insert(path("kernel/lib/libcrc32c.ko.xz"), packed_module("m0"));
    });
    assert!(matches!(tree.closure(RELEASE), Err(Error::ModuleCycle { .. })));
}

#[test]
fn modules_of_another_kernel_are_refused() {
    let error = edited(|_| ()).closure("6.1.0-other").unwrap_err();
    let Error::Module { source: ModuleError::OtherKernel { built_for, .. }, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(built_for, RELEASE);
}

#[test]
fn a_directory_gives_what_a_package_gives_and_updates_count_more() {
    let dir = tempfile::tempdir().unwrap();
    for (path, bytes) in package() {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let root = dir.path().join("lib/modules").join(RELEASE);
    std::os::unix::fs::symlink("/", root.join("build")).unwrap();
    fs::create_dir_all(root.join("updates")).unwrap();
    fs::write(root.join("updates/erofs.ko"), module(&["depends="])).unwrap();

    let tree = ModuleTree::from_dir(&root).unwrap();
    assert_eq!(
        names(&tree.closure(RELEASE).unwrap()),
        ["virtio_mmio", "virtio_blk", "virtio_net", "erofs", "overlay", "virtio_rng"]
    );
}
