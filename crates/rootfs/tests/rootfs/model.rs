//! Random layers against a model that says what a merge is in a few lines.

use std::collections::BTreeMap;

use cellule_rootfs::{BytesLayer, LayerSource, Limits, build};
use proptest::prelude::*;

use crate::support::{Header, Image, Kind, Tar, build_file};

#[derive(Debug, Clone)]
enum Step {
    Directory { mode: u16 },
    File { contents: Vec<u8>, mode: u16, uid: u32 },
    Symlink { target: &'static str },
    Fifo,
    Device { major: u32, minor: u32 },
    HardLink { target: String },
    Whiteout,
    Opaque,
}

type Layer = Vec<(String, Step)>;

/// Few names, so that paths meet often.
fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c", "-", "longer name"]), 1..4)
        .prop_map(|names| names.join("/"))
}

fn step() -> impl Strategy<Value = Step> {
    let contents = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        (any::<u8>(), prop::sample::select(vec![2048_usize, 4032, 4096, 5000, 9000]))
            .prop_map(|(b, n)| vec![b; n]),
    ];
    prop_oneof![
        3 => (0_u16..0o10000).prop_map(|mode| Step::Directory { mode }),
        5 => (contents, 0_u16..0o10000, 0_u32..100_000)
            .prop_map(|(contents, mode, uid)| Step::File { contents, mode, uid }),
        1 => Just(Step::Symlink { target: "nowhere/.." }),
        1 => Just(Step::Fifo),
        1 => (0_u32..4096, 0_u32..1 << 20).prop_map(|(major, minor)| Step::Device { major, minor }),
        3 => path().prop_map(|target| Step::HardLink { target }),
        2 => Just(Step::Whiteout),
        1 => Just(Step::Opaque),
    ]
}

fn layers() -> impl Strategy<Value = Vec<Layer>> {
    prop::collection::vec(prop::collection::vec((path(), step()), 0..12), 1..4)
}

/// What is at a path, and which inode that is: hard links share the number.
#[derive(Debug, Clone, PartialEq)]
struct Found {
    inode: usize,
    kind: Kind,
    mode: u16,
    uid: u32,
}

/// The merged tree as a map of paths. `merge` drops the steps that a layer can't hold, and returns the
/// others.
#[derive(Default)]
struct Model {
    tree: BTreeMap<String, Found>,
    inodes: usize,
}

fn below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
}

impl Model {
    fn merge(&mut self, layer: &Layer) -> Layer {
        for (path, step) in layer {
            if matches!(step, Step::Whiteout | Step::Opaque) {
                self.tree.retain(|p, _| !below(p, path) && (p != path || matches!(step, Step::Opaque)));
            }
        }
        layer.iter().filter(|(path, step)| self.apply(path, step)).cloned().collect()
    }

    fn apply(&mut self, path: &str, step: &Step) -> bool {
        let parents: Vec<&str> = path.match_indices('/').map(|(end, _)| &path[..end]).collect();
        let is_other = |found: Option<&Found>| found.is_some_and(|found| found.kind != Kind::Directory);
        if !matches!(step, Step::Whiteout | Step::Opaque)
            && parents.iter().any(|p| is_other(self.tree.get(*p)))
        {
            return false;
        }
        self.inodes += 1;
        let new = |kind, mode, uid| Found { inode: self.inodes, kind, mode, uid };
        let found = match step {
            Step::Whiteout | Step::Opaque => return true,
            Step::Directory { mode } => new(Kind::Directory, *mode, 0),
            Step::File { contents, mode, uid } => new(Kind::File(contents.clone()), *mode, *uid),
            Step::Symlink { target } => new(Kind::Symlink((*target).into()), 0o777, 0),
            Step::Fifo => new(Kind::Fifo, 0o644, 0),
            Step::Device { major, minor } => new(Kind::Char(*major, *minor), 0o644, 0),
            Step::HardLink { target } => match self.tree.get(target) {
                Some(found) if found.kind != Kind::Directory => found.clone(),
                _ => return false,
            },
        };
        if found.kind != Kind::Directory || is_other(self.tree.get(path)) {
            self.tree.retain(|p, _| !below(p, path));
        }
        for parent in parents {
            self.inodes += 1;
            let made = Found { inode: self.inodes, kind: Kind::Directory, mode: 0o755, uid: 0 };
            self.tree.entry(parent.into()).or_insert(made);
        }
        self.tree.insert(path.into(), found);
        true
    }
}

fn tar(layer: &Layer) -> Vec<u8> {
    let mut tar = Tar::new();
    for (path, step) in layer {
        let (parent, name) =
            path.rsplit_once('/').map_or(("", path.as_str()), |(parent, name)| (parent, name));
        tar = match step {
            Step::Directory { mode } => tar.entry(Header::new(path, b'5').mode(u32::from(*mode)), b""),
            Step::File { contents, mode, uid } => {
                let header =
                    Header::new(path, b'0').size(contents.len() as u64).mode(u32::from(*mode)).owner(*uid, 0);
                tar.entry(header, contents)
            }
            Step::Symlink { target } => tar.symlink(path, target),
            Step::Fifo => tar.entry(Header::new(path, b'6'), b""),
            Step::Device { major, minor } => {
                tar.entry(Header::new(path, b'3').device(u64::from(*major), u64::from(*minor)), b"")
            }
            Step::HardLink { target } => tar.hard_link(path, target),
            Step::Whiteout => tar.file(&format!("{parent}/.wh.{name}"), ""),
            Step::Opaque => tar.file(&format!("{path}/.wh..wh..opq"), ""),
        };
    }
    tar.end()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_build_reads_back_as_the_models_merge(layers in layers()) {
        let mut model = Model::default();
        let layers: Vec<Vec<u8>> = layers.iter().map(|layer| tar(&model.merge(layer))).collect();
        let (built, file) = build_file(&layers, &Limits::default()).unwrap();
        let image = Image::read(&file, &built);
        let paths: Vec<&str> = model.tree.keys().map(String::as_str).collect();
        prop_assert_eq!(image.paths(), paths);
        let mut nids = BTreeMap::new();
        for (path, found) in &model.tree {
            let node = image.node(path);
            prop_assert_eq!((&node.kind, node.mode, node.uid), (&found.kind, found.mode, found.uid), "{}", path);
            prop_assert_eq!(*nids.entry(found.inode).or_insert(node.nid), node.nid, "{}", path);
        }
    }

    #[test]
    fn any_bytes_are_built_or_refused(layers in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 0..3)) {
        let _ = build_file(&layers, &Limits::default());
    }

    #[test]
    fn any_damage_to_a_layer_is_built_or_refused(
        layers in layers(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        sealed in any::<bool>(),
    ) {
        let mut model = Model::default();
        let mut layers: Vec<Vec<u8>> = layers.iter().map(|layer| tar(&model.merge(layer))).collect();
        for (at, byte) in &damage {
            let which = at.index(layers.len());
            let layer = &mut layers[which];
            let at = at.index(layer.len());
            layer[at] = *byte;
            if sealed {
                seal(layer, at);
            }
        }
        if let Ok((built, file)) = build_file(&layers, &small()) {
            // The reader's own checks need names that are text.
            if layers.iter().all(|layer| std::str::from_utf8(layer).is_ok()) {
                Image::read(&file, &built);
            }
        }
    }
}

/// Damaged numbers must not make a test write gigabytes.
fn small() -> Limits {
    Limits { layer_bytes: 1 << 20, total_bytes: 1 << 20, ..Limits::default() }
}

/// Makes the checksum of the damaged block right, so that the damage is read as a header.
fn seal(layer: &mut [u8], at: usize) {
    let start = at / 512 * 512;
    if let Some(block) = layer.get_mut(start..start + 512) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

#[test]
fn layers_of_any_source_may_be_mixed() {
    let blob = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(blob.path(), crate::compression::gzip(&Tar::new().file("a", "1").end())).unwrap();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("b"), "2").unwrap();
    let file = cellule_rootfs::FileLayer::new(blob.path());
    let bytes = BytesLayer::new("bytes", Tar::new().file("c", "3").end());
    let host = cellule_rootfs::DirectoryLayer::new(directory.path());
    let layers: [&dyn LayerSource; 3] = [&file, &bytes, &host];
    let mut out = tempfile::tempfile().unwrap();
    let built =
        build(&layers, &mut out, &Limits::default(), &mut |_| std::ops::ControlFlow::Continue(())).unwrap();
    assert_eq!(Image::read(&out, &built).paths(), ["a", "b", "c"]);
}
