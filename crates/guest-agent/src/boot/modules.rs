//! Owns the loading of kernel modules, in the order that the boot bundle gives.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::fault::{Context, Fault, report};

const ORDER: &str = "/lib/cellule/modules.order";
const DIRECTORY: &str = "/lib/cellule/modules";
const NO_PARAMETERS: &CStr = c"";

/// Loads what the bundle lists; fails with the first required module that does not load, after trying the rest.
/// The files are removed, for they lie in the machine's memory.
pub(super) fn load_all() -> Result<(), Fault> {
    let order = match fs::read_to_string(ORDER) {
        Ok(order) => order,
        // A kernel with all it needs built in.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).context(format_args!("read {ORDER}")),
    };
    let mut result = Ok(());
    for (name, required) in entries(&order) {
        let loaded = load(name);
        match loaded {
            Err(fault) if required => result = result.and(Err(fault)),
            Err(fault) => report(fault),
            Ok(()) => {}
        }
    }
    result
}

/// File names with whether they are required; lines of another form count as required, so that they show.
fn entries(order: &str) -> impl Iterator<Item = (&str, bool)> {
    order.lines().filter(|line| !line.trim().is_empty()).map(|line| {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap_or_default();
        (name, words.next() != Some("optional"))
    })
}

fn load(name: &str) -> Result<(), Fault> {
    let path = Path::new(DIRECTORY).join(name);
    let file = File::open(&path).context(format_args!("open module {name}"))?;
    match rustix::system::finit_module(&file, NO_PARAMETERS, 0) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error).context(format_args!("load module {name}")),
    }
    let _kept = fs::remove_file(&path);
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_the_word_optional_makes_a_module_optional() {
        let order = "virtio_mmio.ko required\n\noverlay.ko\nfuse.ko optional\n";
        let entries: Vec<_> = super::entries(order).collect();
        assert_eq!(entries, [("virtio_mmio.ko", true), ("overlay.ko", true), ("fuse.ko", false)]);
    }
}
