//! What the tests share: a writer of tars that obeys no rule, and a reader of EROFS files.

pub(crate) mod archive;
pub(crate) mod erofs;

use std::fs::File;
use std::ops::ControlFlow;

use cellule_rootfs::{Built, BytesLayer, Error, Fault, LayerSource, Limits, build};

pub(crate) use archive::{Header, Tar};
pub(crate) use erofs::{Image, Kind};

/// Builds from layers in memory, the bottom first.
pub(crate) fn build_file(layers: &[Vec<u8>], limits: &Limits) -> Result<(Built, File), Error> {
    let layers: Vec<BytesLayer> = layers
        .iter()
        .enumerate()
        .map(|(i, bytes)| BytesLayer::new(format!("layer{i}"), bytes.as_slice()))
        .collect();
    let layers: Vec<&dyn LayerSource> = layers.iter().map(|layer| layer as &dyn LayerSource).collect();
    let mut out = tempfile::tempfile().unwrap();
    let built = build(&layers, &mut out, limits, &mut |_| ControlFlow::Continue(()))?;
    Ok((built, out))
}

/// Builds what must succeed, and reads it back.
pub(crate) fn image(layers: &[Vec<u8>]) -> Image {
    let (built, out) = build_file(layers, &Limits::default()).unwrap();
    Image::read(&out, &built)
}

/// Builds what must be refused, and gives the layer, the path and the fault.
pub(crate) fn refusal(layers: &[Vec<u8>], limits: &Limits) -> (String, Option<String>, Fault) {
    match build_file(layers, limits) {
        Ok(_) => panic!("nothing was refused"),
        Err(Error::Layer { layer, path, source, .. }) => (layer, path, source),
        Err(other) => panic!("not a fault of a layer: {other:?}"),
    }
}

/// The fault for which a single layer is refused with the default limits.
pub(crate) fn fault(layer: Vec<u8>) -> Fault {
    refusal(&[layer], &Limits::default()).2
}

/// Checks a fault against a pattern and prints it if it is another.
macro_rules! assert_fault {
    ($fault:expr, $pattern:pat $(if $guard:expr)?) => {
        match $fault {
            $pattern $(if $guard)? => {}
            other => panic!("another fault: {other:?}"),
        }
    };
}
pub(crate) use assert_fault;
