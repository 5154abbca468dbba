//! The initramfs: the agent as `/init`, and the modules with their load order.
//!
//! ```text
//! /init                              the agent
//! /dev/console                       standard streams of PID 1, before it mounts anything
//! /lib/cellule/modules.order         a line for each module: "<file> required" or "<file> optional"
//! /lib/cellule/modules/<NN>-<name>.ko
//! ```
//! Uncompressed, since unpacking under emulation is dear, and the same bytes for the same input.

use std::io::{self, Write};

use cpio::newc::{Builder, ModeFileType};

use crate::modules::ModuleRecord;

/// The optional modules are there if they take no more than this together: what the guest's kernel copies at each
/// boot should be little. Debian's take some 700 KB.
const OPTIONAL_LIMIT: u64 = 2 << 20;

/// Which of a kernel's modules go into the initramfs: those needed at boot, and the others if they are small.
pub(crate) fn chosen(modules: &[ModuleRecord]) -> Vec<ModuleRecord> {
    use crate::Need::{Optional, Required};
    let optional = modules.iter().filter(|module| module.need == Optional);
    let all = optional.map(|module| module.size).sum::<u64>() <= OPTIONAL_LIMIT;
    modules.iter().filter(|module| all || module.need == Required).cloned().collect()
}

/// Writes the initramfs. `modules` is in load order, each with its bytes.
pub(crate) fn write(out: impl Write, agent: &[u8], modules: &[(ModuleRecord, Vec<u8>)]) -> io::Result<()> {
    let mut order = String::new();
    for (module, _) in modules {
        order.extend([&module.file, " ", module.need.as_str(), "\n"]);
    }

    let mut archive = Archive { out, inode: 0 };
    archive.directory("dev")?;
    archive.console()?;
    archive.file("init", 0o755, agent)?;
    archive.directory("lib")?;
    archive.directory("lib/cellule")?;
    archive.directory("lib/cellule/modules")?;
    for (module, bytes) in modules {
        archive.file(&format!("lib/cellule/modules/{}", module.file), 0o644, bytes)?;
    }
    archive.file("lib/cellule/modules.order", 0o644, order.as_bytes())?;
    cpio::newc::trailer(archive.out)?.flush()
}

/// An archive under way. Everything belongs to root and is as old as time.
struct Archive<W> {
    out: W,
    inode: u32,
}

impl<W: Write> Archive<W> {
    fn entry(&mut self, path: &str, mode: u32, kind: ModeFileType) -> Builder {
        self.inode += 1;
        Builder::new(path).ino(self.inode).mode(mode).set_mode_file_type(kind)
    }

    fn directory(&mut self, path: &str) -> io::Result<()> {
        let entry = self.entry(path, 0o755, ModeFileType::Directory).nlink(2);
        entry.write(&mut self.out, 0).finish().map(drop)
    }

    fn console(&mut self) -> io::Result<()> {
        let entry = self.entry("dev/console", 0o600, ModeFileType::Char).rdev_major(5).rdev_minor(1);
        entry.write(&mut self.out, 0).finish().map(drop)
    }

    fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) -> io::Result<()> {
        let size = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        let mut file = self.entry(path, mode, ModeFileType::Regular).write(&mut self.out, size);
        file.write_all(bytes)?;
        file.finish().map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::Need;

    fn record(name: &str, need: Need, size: u64) -> ModuleRecord {
        ModuleRecord { name: name.into(), file: format!("00-{name}.ko"), need, size }
    }

    #[test]
    fn the_archive_holds_init_the_modules_and_their_order() {
        let modules = [
            (record("virtio_mmio", Need::Required, 5), b"mmio!".to_vec()),
            (record("virtio_rng", Need::Optional, 3), b"rng".to_vec()),
        ];
        let mut archive = Vec::new();
        write(&mut archive, b"the agent", &modules).unwrap();
        let mut again = Vec::new();
        write(&mut again, b"the agent", &modules).unwrap();
        assert!(archive == again);

        let mut found = Vec::new();
        let mut rest = archive.as_slice();
        loop {
            let mut entry = cpio::newc::Reader::new(rest).unwrap();
            if entry.entry().is_trailer() {
                break;
            }
            let (name, mode) = (entry.entry().name().to_owned(), entry.entry().mode());
            assert_eq!((entry.entry().mtime(), entry.entry().uid()), (0, 0));
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            found.push((name, mode, String::from_utf8(bytes).unwrap()));
            rest = entry.finish().unwrap();
        }
        let expected = [
            ("dev", 0o40755, ""),
            ("dev/console", 0o20600, ""),
            ("init", 0o100_755, "the agent"),
            ("lib", 0o40755, ""),
            ("lib/cellule", 0o40755, ""),
            ("lib/cellule/modules", 0o40755, ""),
            ("lib/cellule/modules/00-virtio_mmio.ko", 0o100_644, "mmio!"),
            ("lib/cellule/modules/00-virtio_rng.ko", 0o100_644, "rng"),
            (
                "lib/cellule/modules.order",
                0o100_644,
                "00-virtio_mmio.ko required\n00-virtio_rng.ko optional\n",
            ),
        ];
        let expected = expected.map(|(name, mode, text)| (name.to_owned(), mode, text.to_owned()));
        assert_eq!(found, expected);
    }

    #[test]
    fn large_optional_modules_stay_outside() {
        let modules = [record("erofs", Need::Required, 9 << 20), record("virtiofs", Need::Optional, 3 << 20)];
        assert_eq!(chosen(&modules), [modules[0].clone()]);
        let modules = [record("erofs", Need::Required, 9 << 20), record("virtiofs", Need::Optional, 1 << 20)];
        assert_eq!(chosen(&modules), modules);
    }
}
