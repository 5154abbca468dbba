//! Contents of every size at every place, which is where a layout goes wrong.

use crate::support::{Kind, Tar, image};

/// Contents that differ by file and offset.
fn contents(seed: usize, size: usize) -> Vec<u8> {
    (0..size).map(|i| (i / 7 + i + seed).to_le_bytes()[0] | 1).collect()
}

#[test]
fn files_of_every_critical_size_come_back() {
    let sizes = [
        0, 1, 31, 32, 33, 2047, 2048, 2049, 4031, 4032, 4033, 4095, 4096, 4097, 6144, 6145, 8191, 8192,
        12_287, 300_000,
    ];
    let mut layer = Tar::new();
    for (i, size) in sizes.into_iter().cycle().take(200).enumerate() {
        layer = layer.file(&format!("f{i:03}"), contents(i, size));
    }
    let image = image(&[layer.end()]);
    for (i, size) in sizes.into_iter().cycle().take(200).enumerate() {
        assert!(image.contents(&format!("f{i:03}")) == contents(i, size), "file {i} of {size} bytes");
    }
}

#[test]
fn symbolic_links_of_every_critical_length_come_back() {
    let lengths = [1, 100, 2047, 2048, 2049, 4031, 4032, 4033, 4095];
    let mut layer = Tar::new();
    for length in lengths {
        layer = layer.pax(&[("linkpath", "t".repeat(length).as_bytes())]).symlink(&format!("l{length}"), "");
    }
    let image = image(&[layer.end()]);
    for length in lengths {
        assert_eq!(image.node(&format!("l{length}")).kind, Kind::Symlink("t".repeat(length)));
    }
}

#[test]
fn directories_of_many_blocks_are_sorted_and_whole() {
    let names: Vec<String> =
        (0..2000).map(|i| format!("{:0width$}", i * 7919 % 2000, width = 4 + i % 200)).collect();
    let mut layer = Tar::new();
    for name in &names {
        layer = layer.pax(&[("path", format!("d/{name}").as_bytes())]).file("x", "");
    }
    let image = image(&[layer.end()]);
    assert!(names.iter().all(|name| image.nodes.contains_key(&format!("d/{name}"))));
}

#[test]
fn names_that_sort_before_the_dots_come_first() {
    // The reader checks the order.
    let layer = Tar::new()
        .file("!", "1")
        .file("-", "2")
        .file(".a", "3")
        .file("..b", "4")
        .file("...", "5")
        .file("+", "6");
    assert_eq!(image(&[layer.end()]).paths(), ["!", "+", "-", "...", "..b", ".a"]);
}
