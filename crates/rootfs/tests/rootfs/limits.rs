//! Each limit is refused by name, with the layer and the path.

use cellule_rootfs::{Fault, Limit, Limits};

use crate::support::{Tar, build_file, refusal};

/// Builds with a limit that just suffices, then with one less.
#[track_caller]
fn check(
    layers: &[Vec<u8>],
    limit: Limit,
    enough: u64,
    set: fn(&mut Limits, u64),
    expected_path: Option<&str>,
) {
    let limits = |value| {
        let mut limits = Limits::default();
        set(&mut limits, value);
        limits
    };
    build_file(layers, &limits(enough)).unwrap();
    let (layer, path, fault) = refusal(layers, &limits(enough - 1));
    assert_eq!(layer, format!("layer{}", layers.len() - 1));
    assert_eq!(path.as_deref(), expected_path);
    match fault {
        Fault::Limit { limit: found, allowed } => assert_eq!((found, allowed), (limit, enough - 1)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_size_of_a_layer() {
    let layer = Tar::new().file("a", "1").end();
    let size = layer.len() as u64;
    check(&[layer], Limit::LayerBytes, size, |limits, n| limits.layer_bytes = n, None);
}

#[test]
fn the_size_of_all_files_replaced_ones_included() {
    let layers = [Tar::new().file("a", "123").end(), Tar::new().file("a", "45").file("b", "6").end()];
    check(&layers, Limit::TotalBytes, 6, |limits, n| limits.total_bytes = n, Some("b"));
}

#[test]
fn the_number_of_entries_whiteouts_and_made_parents_included() {
    let layers =
        [Tar::new().file("a", "").file("b", "").end(), Tar::new().file(".wh.a", "").file("x/y/z", "").end()];
    check(&layers, Limit::Entries, 6, |limits, n| limits.entries = n, Some("x/y/z"));
}

#[test]
fn the_length_of_paths_and_link_targets() {
    let set = |limits: &mut Limits, n| limits.path_bytes = n;
    check(
        &[Tar::new().file("path/of/20/bytes/xxx", "").end()],
        Limit::PathBytes,
        20,
        set,
        Some("path/of/20/bytes/xxx"),
    );
    check(&[Tar::new().symlink("l", "12345678").end()], Limit::PathBytes, 8, set, Some("l"));
    check(
        &[Tar::new().file("a", "").hard_link("h", "/////////a").end()],
        Limit::PathBytes,
        10,
        set,
        Some("h"),
    );
}

#[test]
fn the_size_of_an_entrys_attributes() {
    let layer =
        Tar::new().pax(&[("SCHILY.xattr.user.name", b"value"), ("SCHILY.xattr.user.b", b"")]).file("a", "");
    check(&[layer.end()], Limit::XattrBytesPerEntry, 24, |limits, n| limits.xattr_bytes_per_entry = n, None);
}

#[test]
fn what_all_paths_targets_and_attributes_take_together() {
    let layer = Tar::new()
        .file("abc", "")
        .symlink("l", "target")
        .pax(&[("SCHILY.xattr.user.name", b"value")])
        .file("z", "");
    check(&[layer.end()], Limit::MetadataBytes, 3 + 7 + 10, |limits, n| limits.metadata_bytes = n, Some("z"));
}

#[test]
fn the_links_followed_on_the_way_to_all_entries() {
    let mut layer = Tar::new().symlink("l", "12345678");
    for i in 0..20 {
        layer = layer.file(&format!("l/{i}"), "");
    }
    // The paths and the target take less.
    check(&[layer.end()], Limit::MetadataBytes, 20 * 8, |limits, n| limits.metadata_bytes = n, Some("l/19"));
}

#[test]
fn attributes_beyond_what_erofs_stores_are_refused_whatever_the_limit() {
    let limits = Limits { xattr_bytes_per_entry: u64::MAX, ..Limits::default() };
    let value = vec![b'v'; 65_535];
    let pax = |values: usize| {
        let names: Vec<String> = (0..values).map(|i| format!("SCHILY.xattr.user.{i}")).collect();
        let records: Vec<(&str, &[u8])> =
            names.iter().map(|name| (name.as_str(), value.as_slice())).collect();
        Tar::new().pax(&records).file("a", "").end()
    };
    build_file(&[pax(3)], &limits).unwrap();
    assert!(matches!(refusal(&[pax(4)], &limits).2, Fault::Limit { limit: Limit::XattrBytesPerEntry, .. }));
    let long = format!("SCHILY.xattr.user.{}", "n".repeat(256));
    let layer = Tar::new().pax(&[(&long, b"")]).file("a", "").end();
    assert!(matches!(refusal(&[layer], &limits).2, Fault::Limit { limit: Limit::XattrBytesPerEntry, .. }));
    let layer = Tar::new().pax(&[("SCHILY.xattr.user.a", &vec![b'v'; 65_536])]).file("a", "").end();
    assert!(matches!(refusal(&[layer], &limits).2, Fault::Limit { limit: Limit::XattrBytesPerEntry, .. }));
}
