//! Builds root filesystems, and checks what every build promises.

use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;

use cellule_rootfs::{Built, BytesLayer, Error, LayerSource, Limits, build};

use crate::scratch;

/// Small enough that no input takes long.
pub fn limits() -> Limits {
    Limits {
        layer_bytes: 1 << 20,
        total_bytes: 1 << 20,
        entries: 1000,
        path_bytes: 4095,
        xattr_bytes_per_entry: 4 << 10,
        metadata_bytes: 256 << 10,
    }
}

/// Builds once. What a build tells of its progress never falls, and ends at twice what the layers weigh; a build
/// that is asked to stop does.
pub fn build_once(layers: &[Vec<u8>], cancel_after: Option<u32>) -> Result<Built, Error> {
    let sources: Vec<BytesLayer> =
        layers.iter().map(|bytes| BytesLayer::new("layer", bytes.as_slice())).collect();
    let sources: Vec<&dyn LayerSource> = sources.iter().map(|source| source as &dyn LayerSource).collect();
    let mut out = scratch::file();
    let (mut last, mut calls, mut cancelled) = (0, 0, false);
    let built = build(&sources, &mut out, &limits(), &mut |bytes| {
        assert!(bytes >= last, "progress fell from {last} to {bytes}");
        assert!(!cancelled, "asked again after it was cancelled");
        last = bytes;
        calls += 1;
        cancelled = cancel_after.is_some_and(|after| calls > after);
        if cancelled { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(cancelled, matches!(built, Err(Error::Cancelled)));
    if let Ok(built) = &built {
        assert_eq!(last, 2 * layers.iter().map(|layer| layer.len() as u64).sum::<u64>());
        assert_eq!(built.size, out.metadata().expect("the file is open").size());
        assert_eq!(built.size % 4096, 0);
        assert_eq!(built.diff_ids.len(), layers.len());
        // The root is not an entry of any layer.
        assert!(built.entries <= limits().entries + 1, "{} entries", built.entries);
    }
    built
}

/// Builds, and again if that went well: equal layers make equal files.
pub fn build_twice(layers: &[Vec<u8>]) -> Option<Built> {
    let built = build_once(layers, None).ok()?;
    let again = build_once(layers, None).expect("it could be built before");
    assert_eq!(built, again);
    Some(built)
}
