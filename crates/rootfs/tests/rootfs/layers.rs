//! How layers lie on each other.

use cellule_rootfs::{Fault, Limits};

use crate::support::{Header, Image, Kind, Tar, assert_fault, build_file, fault, image, refusal};

fn two(lower: Tar, upper: Tar) -> Image {
    image(&[lower.end(), upper.end()])
}

#[test]
fn a_whiteout_deletes_a_file_and_a_whole_directory() {
    let lower = Tar::new().file("a", "1").file("d/e/f", "2").file("keep", "3");
    let image = two(lower, Tar::new().file(".wh.a", "").file(".wh.d", ""));
    assert_eq!(image.paths(), ["keep"]);
}

#[test]
fn an_opaque_directory_hides_all_lower_contents_and_keeps_its_attributes() {
    let lower =
        Tar::new().entry(Header::new("d", b'5').mode(0o1777), b"").file("d/a", "1").file("d/s/b", "2");
    let image = two(lower, Tar::new().file("d/.wh..wh..opq", "").file("d/new", "3"));
    assert_eq!(image.paths(), ["d", "d/new"]);
    assert_eq!(image.node("d").mode, 0o1777);
}

#[test]
fn whiteouts_spare_their_own_layer_wherever_they_stand() {
    for upper in [
        Tar::new().file(".wh.d", "").dir("d").file("d/new", "2"),
        Tar::new().dir("d").file("d/new", "2").file(".wh.d", ""),
        Tar::new().dir("d").file("d/new", "2").file("d/.wh..wh..opq", ""),
        Tar::new().file("d/.wh.old", "").dir("d").file("d/new", "2"),
    ] {
        let image = two(Tar::new().dir("d").file("d/old", "1"), upper);
        assert_eq!(image.paths(), ["d", "d/new"]);
    }
    let image = two(Tar::new().file("a", "old"), Tar::new().file("a", "new").file(".wh.a", ""));
    assert_eq!(image.text("a"), "new");
}

#[test]
fn a_whiteout_reaches_through_all_lower_layers_and_a_later_layer_may_bring_the_name_back() {
    let layers = [
        Tar::new().file("a", "1").end(),
        Tar::new().file("b", "2").end(),
        Tar::new().file(".wh.a", "").end(),
        Tar::new().file("a", "4").end(),
    ];
    assert_eq!(image(&layers[..3]).paths(), ["b"]);
    assert_eq!(image(&layers).text("a"), "4");
}

#[test]
fn a_whiteout_of_what_does_not_exist_changes_nothing() {
    let upper =
        Tar::new().file(".wh.x", "").file("no/such/.wh.x", "").file("f/.wh.x", "").file("n/.wh..wh..opq", "");
    assert_eq!(two(Tar::new().file("f", "1"), upper).paths(), ["f"]);
}

#[test]
fn a_whiteout_follows_a_link_in_its_path_as_docker_does() {
    let lower = Tar::new().file("usr/lib/a", "1").file("usr/lib/b", "2").symlink("lib", "usr/lib");
    let image = two(lower, Tar::new().file("lib/.wh.a", ""));
    assert_eq!(image.paths(), ["lib", "usr", "usr/lib", "usr/lib/b"]);
}

#[test]
fn an_opaque_directory_in_a_links_place_spares_the_links_target() {
    let lower = Tar::new().file("target/a", "1").symlink("d", "target");
    let upper = Tar::new().dir("d").file("d/.wh..wh..opq", "").file("d/.wh.a", "").file("d/b", "2");
    assert_eq!(two(lower, upper).paths(), ["d", "d/b", "target", "target/a"]);
}

#[test]
fn metadata_of_aufs_is_no_part_of_the_image() {
    let layer =
        Tar::new().file(".wh..wh.aufs", "").dir(".wh..wh.plnk").file(".wh..wh.plnk/1.2", "x").file("a", "1");
    assert_eq!(image(&[layer.end()]).paths(), ["a"]);
}

#[test]
fn a_directory_over_a_directory_merges_and_takes_the_new_attributes() {
    let lower = Tar::new().dir("d").file("d/a", "1");
    let upper =
        Tar::new().entry(Header::new("d", b'5').mode(0o700).owner(5, 6).mtime(7), b"").file("d/b", "2");
    let image = two(lower, upper);
    assert_eq!(image.paths(), ["d", "d/a", "d/b"]);
    let d = image.node("d");
    assert_eq!((d.mode, d.uid, d.gid, d.mtime), (0o700, 5, 6, (7, 0)));
}

#[test]
fn what_changes_its_type_is_replaced_with_all_below() {
    let lower =
        Tar::new().dir("x").file("x/in", "1").file("y", "2").symlink("z", "x").dir("w").file("w/in", "3");
    let upper = Tar::new().file("x", "now a file").dir("y").file("y/in", "4").dir("z").symlink("w", "y");
    let image = two(lower, upper);
    assert_eq!(image.paths(), ["w", "x", "y", "y/in", "z"]);
    assert_eq!(image.text("x"), "now a file");
    assert_eq!(image.node("w").kind, Kind::Symlink("y".into()));
    assert_eq!(image.node("z").kind, Kind::Directory);
}

#[test]
fn the_last_of_two_entries_with_one_path_counts() {
    let layer = Tar::new().file("a", "first, and longer").file("./a", "second").file("/a", "last").end();
    assert_eq!(image(&[layer]).text("a"), "last");
}

#[test]
fn a_directory_entry_after_its_contents_keeps_them() {
    let layer = Tar::new().file("d/a", "1").entry(Header::new("d/", b'5').mode(0o750), b"");
    let image = image(&[layer.end()]);
    assert_eq!(image.text("d/a"), "1");
    assert_eq!(image.node("d").mode, 0o750);
}

#[test]
fn missing_parents_are_made() {
    let image = image(&[Tar::new().file("a/b/c", "1").end()]);
    for path in ["", "a", "a/b"] {
        let node = image.node(path);
        assert_eq!((node.mode, node.uid, node.gid, node.mtime), (0o755, 0, 0, (0, 0)), "{path}");
    }
}

#[test]
fn the_root_takes_the_attributes_of_its_own_entry() {
    for path in ["./", "/", "."] {
        let root = Header::new(path, b'5').mode(0o1711).owner(1, 2).mtime(3);
        let image = image(&[Tar::new().entry(root, b"").file("a", "1").end()]);
        let node = image.node("");
        assert_eq!((node.mode, node.uid, node.gid, node.mtime), (0o1711, 1, 2, (3, 0)));
        assert_eq!(image.paths(), ["a"]);
    }
}

#[test]
fn hard_links_share_an_inode_also_with_lower_layers_and_in_chains() {
    let lower = Tar::new().file("a", "shared").hard_link("b", "a");
    let upper = Tar::new().hard_link("c", "/b").hard_link("d/e", "./c");
    let image = two(lower, upper);
    let nid = image.node("a").nid;
    for path in ["a", "b", "c", "d/e"] {
        assert_eq!(
            (image.node(path).nid, image.node(path).links, image.text(path).as_str()),
            (nid, 4, "shared")
        );
    }
}

#[test]
fn a_replaced_or_deleted_target_leaves_its_other_names_alone() {
    let lower = Tar::new().file("a", "old").hard_link("b", "a").file("x", "old").hard_link("y", "x");
    let image = two(lower, Tar::new().file("a", "new").file(".wh.x", ""));
    assert_eq!(
        (image.text("a"), image.text("b"), image.text("y")),
        ("new".into(), "old".into(), "old".into())
    );
    assert_eq!((image.node("b").links, image.node("y").links), (1, 1));
}

#[test]
fn hard_links_may_name_symbolic_links_fifos_and_devices() {
    let layer = Tar::new()
        .symlink("s", "nowhere")
        .hard_link("s2", "s")
        .entry(Header::new("p", b'6'), b"")
        .hard_link("p2", "p")
        .entry(Header::new("c", b'3').device(1, 3), b"")
        .hard_link("c2", "c");
    let image = image(&[layer.end()]);
    for (a, b) in [("s", "s2"), ("p", "p2"), ("c", "c2")] {
        assert_eq!(image.node(a), image.node(b));
        assert_eq!(image.node(a).links, 2);
    }
}

#[test]
fn a_hard_link_to_itself_changes_nothing() {
    let image = image(&[Tar::new().file("a", "1").hard_link("a", "a").end()]);
    assert_eq!((image.text("a").as_str(), image.node("a").links), ("1", 1));
}

#[test]
fn a_hard_link_may_replace_the_directory_that_held_its_target() {
    let image = image(&[Tar::new().file("d/a", "1").hard_link("d", "d/a").end()]);
    assert_eq!((image.text("d").as_str(), image.node("d").links), ("1", 1));
}

#[test]
fn hard_links_to_nothing_and_to_directories_are_refused() {
    assert_fault!(fault(Tar::new().hard_link("b", "a").end()), Fault::HardLinkMissing { target } if target == "a");
    assert_fault!(fault(Tar::new().hard_link("b", "a").file("a", "").end()), Fault::HardLinkMissing { .. });
    assert_fault!(fault(Tar::new().dir("d").hard_link("b", "d").end()), Fault::HardLinkToDirectory { .. });
    assert_fault!(fault(Tar::new().hard_link("b", "/").end()), Fault::HardLinkToDirectory { .. });
    assert_fault!(fault(Tar::new().file("a", "").hard_link("b", "x/../a").end()), Fault::DotDot);
    let layers = [Tar::new().file("a", "").end(), Tar::new().file(".wh.a", "").hard_link("b", "a").end()];
    let (layer, path, fault) = refusal(&layers, &Limits::default());
    assert_eq!((layer.as_str(), path.as_deref()), ("layer1", Some("b")));
    assert_fault!(fault, Fault::HardLinkMissing { .. });
}

#[test]
fn a_parent_that_is_a_link_is_followed_within_the_root() {
    let lower = Tar::new()
        .dir("usr/lib")
        .symlink("lib", "usr/lib")
        .symlink("abs", "/usr/lib")
        .symlink("up", "../../../../usr/lib")
        .symlink("chain", "abs");
    let upper =
        Tar::new().file("lib/1", "").file("abs/2", "").file("up/3", "").file("chain/4", "").dir("lib/d");
    let image = two(lower, upper);
    let below: Vec<_> = image.paths().into_iter().filter_map(|path| path.strip_prefix("usr/lib/")).collect();
    assert_eq!(below, ["1", "2", "3", "4", "d"]);
    assert_eq!(image.node("lib").kind, Kind::Symlink("usr/lib".into()));
}

#[test]
fn a_dangling_parent_link_gets_the_directories_it_names() {
    let image = image(&[Tar::new().symlink("l", "../x/./y").file("l/a", "1").end()]);
    assert_eq!(image.paths(), ["l", "x", "x/y", "x/y/a"]);
}

#[test]
fn dotdot_in_a_links_target_leaves_the_directory_it_really_is_in() {
    let layer = Tar::new().dir("a/b").symlink("l", "a/b").symlink("up", "l/..").file("up/x", "1");
    assert_eq!(image(&[layer.end()]).text("a/x"), "1");
}

#[test]
fn parents_that_are_loops_or_no_directories_are_refused() {
    assert_fault!(fault(Tar::new().symlink("l", "l").file("l/a", "").end()), Fault::SymlinkLoop);
    assert_fault!(
        fault(Tar::new().symlink("l", "m").symlink("m", "l").file("l/a", "").end()),
        Fault::SymlinkLoop
    );
    assert_fault!(fault(Tar::new().file("f", "").file("f/a", "").end()), Fault::ParentNotDirectory);
    let device = Tar::new().entry(Header::new("c", b'3').device(1, 3), b"");
    assert_fault!(fault(device.file("c/a", "").end()), Fault::ParentNotDirectory);
    let name = "n".repeat(256);
    assert_fault!(
        fault(Tar::new().pax(&[("linkpath", name.as_bytes())]).symlink("l", "").file("l/a", "").end()),
        Fault::NameTooLong
    );
}

#[test]
fn no_layers_and_empty_layers_make_an_empty_root() {
    assert_eq!(image(&[]).paths().len(), 0);
    assert_eq!(image(&[Tar::new().end()]).paths().len(), 0);
    assert_eq!(image(&[Vec::new(), vec![0; 512]]).paths().len(), 0);
}

#[test]
fn diff_ids_cover_every_byte_of_each_layer() {
    let mut padded = Tar::new().file("a", "1").end();
    padded.extend_from_slice(b"anything, which isn't read as entries");
    let layers = [Tar::new().file("b", "2").end(), padded];
    let (built, _) = build_file(&layers, &Limits::default()).unwrap();
    assert_eq!(built.diff_ids, layers.map(|layer| cellule_rootfs::Digest::of(&layer)));
}

#[test]
fn equal_trees_give_equal_files_however_they_came_about() {
    let ways = [
        vec![Tar::new().dir("d").file("d/a", "1").file("b", "2").symlink("l", "b").end()],
        vec![Tar::new().symlink("l", "b").file("b", "2").dir("d").file("d/a", "1").end()],
        vec![
            Tar::new().dir("d").file("d/a", "old").file("x", "").end(),
            Tar::new().file("d/a", "1").file("b", "2").symlink("l", "b").file(".wh.x", "").end(),
        ],
        vec![
            Tar::new().file("b", "other").file("b", "2").file("d/a", "1").symlink("l", "b").dir("./d/").end(),
        ],
    ];
    let digests = ways.map(|layers| build_file(&layers, &Limits::default()).unwrap().0.digest);
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}
