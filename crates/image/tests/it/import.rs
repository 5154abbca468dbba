//! Images from a tar or a directory.

use std::{fs, io::Write, os::unix::fs::symlink};

use cellule_image::{Error, ImageConfig, Import, ImportFrom, LoadFrom, Policy};

use crate::support::{assert_nothing_left, assert_tmp_is_empty, gzip, new_store, options, pull, run, tar_of};

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_tar_gives_the_same_rootfs_however_it_is_compressed() {
    let (dir, store) = new_store();
    let tar = tar_of(&[("bin/sh", b"#!"), ("etc/hostname", b"x")]);
    let mut images = Vec::new();
    for (name, bytes) in [("plain", tar.clone()), ("gz", gzip(&tar)), ("zst", zstd(&tar)), ("xz", xz(&tar))] {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        images.push(pull(&store, &format!("tar:{}", path.display())).unwrap());
        images.push(pull(&store, path.to_str().unwrap()).unwrap());
    }
    for image in &images {
        assert_eq!((image.info.id, &image.rootfs), (images[0].info.id, &images[0].rootfs));
        assert!(image.info.names.is_empty());
    }
    assert_tmp_is_empty(&store);
}

#[test]
fn a_directory_gives_the_same_image_each_time() {
    let (dir, store) = new_store();
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::write(root.join("etc/name"), b"x").unwrap();
    symlink("etc/name", root.join("link")).unwrap();
    let one = pull(&store, root.to_str().unwrap()).unwrap();
    let two = pull(&store, &format!("dir:{}", root.display())).unwrap();
    assert_eq!((one.info.id, one.rootfs.digest), (two.info.id, two.rootfs.digest));
    fs::write(root.join("etc/name"), b"y").unwrap();
    let three = pull(&store, root.to_str().unwrap()).unwrap();
    assert_ne!(one.rootfs.digest, three.rootfs.digest);
}

#[test]
fn an_imported_image_has_its_name_and_config() {
    let (_dir, store) = new_store();
    let mut config = ImageConfig::default();
    config.apply("CMD [\"/bin/sh\"]").unwrap();
    config.apply("ENV PATH=/bin").unwrap();
    let import = Import { name: Some("base".parse().unwrap()), config: config.clone() };
    let tar = tar_of(&[("bin/sh", b"#!")]);
    let from = ImportFrom::Reader(Box::new(std::io::Cursor::new(tar)));
    let image = run(store.import(from, import, &options())).unwrap();
    assert_eq!(image.info.config, config);
    assert_eq!(image.info.platform.to_string(), "linux/amd64");
    let again = run(store.pull(&"base".parse().unwrap(), Policy::Never, &options())).unwrap();
    assert_eq!(again.info, image.info);
    let by_id = run(store.get(&image.info.id.hex()[..12], &options())).unwrap();
    assert_eq!(by_id.info, image.info);
    let by_id =
        run(store.pull(&image.info.id.hex()[..12].parse().unwrap(), Policy::Missing, &options())).unwrap();
    assert_eq!(by_id.info, image.info);
}

#[test]
fn what_is_no_root_filesystem_is_refused_and_leaves_nothing() {
    let (dir, store) = new_store();
    let root = dir.path();
    fs::write(root.join("text"), vec![b'x'; 2000]).unwrap();
    let tar = gzip(&tar_of(&[("a", &[1; 5000])]));
    fs::write(root.join("cut"), &tar[..tar.len() / 2]).unwrap();
    fs::write(root.join("up"), {
        // The tar crate refuses to write such a name itself.
        let mut tar = tar_of(&[("aa/x", b"")]);
        tar[..2].copy_from_slice(b"..");
        let sum: u32 =
            (0..512).map(|at| u32::from(if (148..156).contains(&at) { b' ' } else { tar[at] })).sum();
        tar[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        tar
    })
    .unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, root.join("fifo"), rustix::fs::Mode::RWXU).unwrap();
    for name in ["text", "cut", "up", "missing", "fifo"] {
        let result = pull(&store, root.join(name).to_str().unwrap());
        assert!(
            matches!(result, Err(Error::Io { .. } | Error::Rootfs { .. } | Error::WrongKind { .. })),
            "{name}"
        );
        assert_nothing_left(&store);
    }
}

#[test]
fn a_path_of_another_kind_is_refused_with_what_it_is() {
    let (dir, store) = new_store();
    let layout = dir.path().join("layout");
    fs::create_dir(&layout).unwrap();
    fs::write(layout.join("oci-layout"), "{}").unwrap();
    fs::write(layout.join("index.json"), "{}").unwrap();
    let Err(Error::WrongKind { found, .. }) = pull(&store, layout.to_str().unwrap()) else { panic!() };
    assert!(found.contains("OCI"));
    assert!(matches!(pull(&store, &format!("tar:{}", layout.display())), Err(Error::WrongKind { .. })));
    let load = run(store.load(LoadFrom::File(layout.join("oci-layout")), &options()));
    assert!(load.is_err());
    assert_nothing_left(&store);
}

#[test]
fn a_tar_that_is_too_large_is_refused() {
    let (dir, store) = new_store();
    let path = dir.path().join("zeros");
    fs::write(&path, gzip(&tar_of(&[("zeros", &vec![0; 1 << 20])]))).unwrap();
    let mut small = options();
    small.limits.layer = 100_000;
    let result = run(store.pull(&path.to_str().unwrap().parse().unwrap(), Policy::Missing, &small));
    assert!(matches!(result, Err(Error::Limit { .. })));
    assert_nothing_left(&store);
}
