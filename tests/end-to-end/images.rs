//! Images from every source that needs no registry, and the commands that list, save and remove them.

use std::fs;
use std::path::Path;
use std::process::Command;

use cellule_tests::layout::{self, Compression, Entry};
use cellule_tests::{Home, leftovers};
use serde_json::{Value, json};

/// The layers of a small image: the program, then a layer that changes and removes.
fn layers() -> [Vec<u8>; 2] {
    let busybox = fs::read(busybox()).unwrap();
    let lower = layout::layer(&[
        Entry::Dir("bin", 0o755),
        Entry::File("bin/busybox", 0o755, (0, 0), &busybox),
        Entry::Link("bin/sh", "busybox"),
        Entry::Link("bin/cat", "busybox"),
        Entry::Link("bin/ls", "busybox"),
        Entry::Link("bin/stat", "busybox"),
        Entry::Dir("etc", 0o755),
        Entry::File("etc/passwd", 0o644, (0, 0), b"root:x:0:0::/root:/bin/sh\napp:x:77:88::/srv:/bin/sh\n"),
        Entry::File("etc/group", 0o644, (0, 0), b"root:x:0:\napp:x:88:\nextra:x:99:app\n"),
        Entry::Dir("srv", 0o755),
        Entry::File("srv/old", 0o644, (0, 0), b"old"),
        Entry::File("srv/kept", 0o640, (77, 88), b"kept"),
    ]);
    let upper =
        layout::layer(&[Entry::Whiteout("srv/old"), Entry::File("srv/new", 0o4755, (77, 88), b"new")]);
    [lower, upper]
}

/// A static busybox of this host's: the test image's only program.
fn busybox() -> &'static Path {
    ["/bin/busybox", "/usr/bin/busybox"]
        .map(Path::new)
        .into_iter()
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("busybox is missing: run these tests with `make test`"))
}

fn config() -> Value {
    json!({
        "Entrypoint": ["/bin/sh", "-c"], "Cmd": ["echo default"], "Env": ["PATH=/bin", "FROM=image"],
        "User": "app", "WorkingDir": "/srv",
    })
}

fn write(dir: &Path, compression: Compression) {
    let [lower, upper] = layers();
    layout::write(dir, "v1", "amd64", &[&lower, &upper], compression, &config());
}

fn source(dir: &Path) -> String {
    format!("oci:{}:v1", dir.display())
}

#[test]
fn an_images_settings_are_obeyed() {
    let home = Home::new();
    let dir = home.path().join("layout");
    write(&dir, Compression::Gzip);
    let image = source(&dir);
    assert_eq!(home.run(["--quiet", &image]).output().exits(0).out(), "default\n");
    let script = "echo $FROM; pwd; busybox id -u; busybox id -G; echo $HOME";
    assert_eq!(
        home.run(["--quiet", &image, script]).output().exits(0).out(),
        "image\n/srv\n77\n88 99\n/srv\n"
    );
    leftovers::assert_none(&home);
}

#[test]
fn layers_merge_with_owners_modes_and_whiteouts() {
    let home = Home::new();
    let dir = home.path().join("layout");
    write(&dir, Compression::Zstd);
    let script = "ls /srv; stat -c '%n %a %u %g' /srv/kept /srv/new; cat /srv/kept";
    let text = home.run(["--quiet", "--user", "root", &source(&dir), script]).output().exits(0).out();
    assert_eq!(text, "kept\nnew\n/srv/kept 640 77 88\n/srv/new 4755 77 88\nkept");
}

fn rootfs_digest(home: &Home, name: &str) -> String {
    let text = home.cellule(["image", "inspect", name]).output().exits(0).out();
    let images: Value = serde_json::from_str(&text).unwrap();
    images[0]["rootfs"]["digest"].as_str().unwrap_or_else(|| panic!("no digest in {text}")).to_owned()
}

fn skopeo(words: &[&str]) {
    let output = Command::new("skopeo").arg("--insecure-policy").args(words).output().unwrap();
    assert!(output.status.success(), "skopeo {words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn one_image_in_each_form_gives_one_root_filesystem() {
    let home = Home::new();
    let work = tempfile::tempdir().unwrap();
    let path = |name: &str| work.path().join(name);
    write(&path("layout"), Compression::Gzip);
    let archive = path("image.tar");
    let target = format!("docker-archive:{}:test/image:v1", archive.display());
    skopeo(&["copy", "--quiet", &source(&path("layout")), &target]);

    _ = home.cellule(["pull", "--quiet", &source(&path("layout"))]).output().exits(0);
    let listed = home.cellule(["images", "--quiet"]).output().exits(0).out();
    let id = listed.lines().next().unwrap().to_owned();
    let of_layout = rootfs_digest(&home, &id);

    let other = Home::new();
    _ = other.cellule(["image", "load", "--input", archive.to_str().unwrap()]).output().exits(0);
    assert_eq!(rootfs_digest(&other, "test/image:v1"), of_layout);

    // And what is saved is what was loaded.
    let saved = path("saved.tar");
    _ = other
        .cellule(["image", "save", "--output", saved.to_str().unwrap(), "test/image:v1"])
        .output()
        .exits(0);
    let third = Home::new();
    _ = third.cellule(["image", "load", "--input", saved.to_str().unwrap()]).output().exits(0);
    assert_eq!(rootfs_digest(&third, "test/image:v1"), of_layout);
}

#[test]
fn a_tar_and_a_directory_are_images_too() {
    let home = Home::new();
    let [lower, _] = layers();
    let tar = home.path().join("rootfs.tar");
    fs::write(&tar, &lower).unwrap();
    let tar = tar.to_str().unwrap();
    assert_eq!(home.run(["--quiet", tar, "/bin/sh", "-c", "cat /srv/old"]).output().exits(0).out(), "old");
    _ = home
        .cellule([
            "image",
            "import",
            "--change",
            "CMD [\"/bin/sh\", \"-c\", \"echo imported\"]",
            tar,
            "mine:1",
        ])
        .output()
        .exits(0);
    assert_eq!(home.run(["--quiet", "mine:1"]).output().exits(0).out(), "imported\n");

    let dir = home.path().join("rootfs");
    fs::create_dir_all(dir.join("bin")).unwrap();
    fs::copy(busybox(), dir.join("bin/busybox")).unwrap();
    let dir = dir.to_str().unwrap();
    assert_eq!(home.run(["--quiet", dir, "/bin/busybox", "echo", "dir"]).output().exits(0).out(), "dir\n");
}

#[test]
fn an_image_of_another_architecture_is_refused_with_what_there_is() {
    let home = Home::new();
    let dir = home.path().join("layout");
    let [lower, _] = layers();
    layout::write(&dir, "v1", "arm64", &[&lower], Compression::Gzip, &config());
    _ = home.run([source(&dir)]).output().exits(125).says(&["arm64", "amd64"]);
    leftovers::assert_none(&home);
}

#[test]
fn a_layer_that_was_altered_or_cut_is_refused() {
    for cut in [false, true] {
        let home = Home::new();
        let dir = home.path().join("layout");
        write(&dir, Compression::Gzip);
        let blobs = fs::read_dir(dir.join("blobs/sha256")).unwrap().flatten();
        let largest = blobs.max_by_key(|blob| blob.metadata().unwrap().len()).unwrap().path();
        let mut bytes = fs::read(&largest).unwrap();
        let middle = bytes.len() / 2;
        if cut {
            bytes.truncate(middle);
        } else {
            bytes[middle] ^= 1;
        }
        fs::write(&largest, bytes).unwrap();
        _ = home.run([source(&dir)]).output().exits(125).says(&["layer 1"]);
        assert_eq!(home.cellule(["images", "--quiet"]).output().exits(0).out(), "");
        leftovers::assert_none(&home);
    }
}

#[test]
fn images_are_listed_with_their_sizes_and_removed() {
    let home = Home::new();
    let tar = home.path().join("rootfs.tar");
    fs::write(&tar, &layers()[0]).unwrap();
    _ = home.cellule(["image", "import", tar.to_str().unwrap(), "mine:1"]).output().exits(0);
    let text = home.cellule(["images"]).output().exits(0).out();
    assert!(text.starts_with("REPOSITORY") && text.contains("mine") && text.contains("MB"), "{text}");
    let listed: Value =
        serde_json::from_str(&home.cellule(["images", "--format", "json"]).output().exits(0).out()).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");

    let dry = home.cellule(["image", "prune", "--all", "--dry-run"]).output().exits(0).out();
    assert!(dry.contains("MB"), "{dry}");
    assert_eq!(
        home.cellule(["images", "--quiet"]).output().exits(0).out().lines().count(),
        1,
        "a dry run removed it"
    );
    _ = home.cellule(["image", "rm", "mine:1"]).output().exits(0);
    assert_eq!(home.cellule(["images", "--quiet"]).output().exits(0).out(), "");
    _ = home.cellule(["image", "rm", "mine:1"]).output().exits(125).says(&["mine:1"]);
}

#[test]
fn the_built_in_image_comes_back_after_it_was_removed() {
    let home = Home::new();
    _ = home.run(["--quiet", "base", "true"]).output().exits(0);
    _ = home.cellule(["image", "rm", "base"]).output().exits(0);
    _ = home.run(["--quiet", "base", "true"]).output().exits(0);
}
