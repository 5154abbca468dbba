use std::cell::RefCell;
use std::path::PathBuf;

use super::*;
use crate::base::tests::busybox;
use crate::bzimage::tests::{RELEASE, bzimage, packed_payload};
use crate::decompress::Format;
use crate::modules::tests::package;
use crate::vmlinux::tests::kernel;
use crate::{Damage, Remake};

/// A home, and a kernel with modules to make bundles from.
struct Fixture {
    dir: tempfile::TempDir,
    source: KernelSource,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("vmlinuz");
        fs::write(&image, bzimage(&packed_payload(Format::Zstd, &kernel(RELEASE, true)))).unwrap();
        for (path, bytes) in package() {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        let modules = Some(dir.path().join("lib/modules").join(RELEASE));
        let source = KernelSource::Files { kernel: image, modules };
        Self { dir, source }
    }

    fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// The bundle, and which steps it took.
    fn ensure(&self, agent: &[u8]) -> Result<(Bundle, Vec<Phase>)> {
        let phases = RefCell::new(Vec::new());
        let find = |_: &mut Apt<'_>, _: &Path| Ok(busybox(b"program"));
        let agent = Agent::new(agent);
        let on_progress = |progress: Progress| phases.borrow_mut().push(progress.phase);
        let bundle = ensure_from(&self.home(), &agent, &self.source, &find, &on_progress)?;
        Ok((bundle, phases.into_inner()))
    }

    fn current(&self, agent: &[u8]) -> Current {
        Bundle::open_current(&self.home(), &Agent::new(agent)).unwrap()
    }
}

const WHOLE: [Phase; 3] = [Phase::Unpacking, Phase::MakingBase, Phase::Composing];

#[test]
fn the_first_run_makes_a_bundle_and_the_next_uses_it() {
    let fixture = Fixture::new();
    assert!(matches!(fixture.current(b"agent"), Current::Setup(Remake::Missing)));
    let (bundle, phases) = fixture.ensure(b"agent").unwrap();
    assert_eq!(phases, WHOLE);
    bundle.verify().unwrap();
    assert_eq!(bundle.manifest.contents.kernel.release, RELEASE);
    assert_eq!(bundle.manifest.contents.agent, Agent::new(b"agent").sha256());
    for path in [&bundle.kernel_path, &bundle.initramfs_path, &bundle.base_tar] {
        assert!(path.is_file(), "{}", path.display());
    }

    let (again, phases) = fixture.ensure(b"agent").unwrap();
    assert_eq!((again.id, phases), (bundle.id, Vec::new()));
}

#[test]
fn the_same_input_gives_the_same_bundle_anywhere() {
    let (first, second) = (Fixture::new(), Fixture::new());
    let paths = |fixture: &Fixture| fixture.ensure(b"agent").unwrap().0.manifest.files;
    assert_eq!(paths(&first), paths(&second));
}

#[test]
fn another_agent_needs_no_source() {
    let fixture = Fixture::new();
    let (old, _) = fixture.ensure(b"agent").unwrap();
    fs::remove_file(fixture.dir.path().join("vmlinuz")).unwrap();
    assert!(matches!(fixture.current(b"new agent"), Current::Compose(Remake::OtherAgent)));
    let (new, phases) = fixture.ensure(b"new agent").unwrap();
    assert_eq!(phases, [Phase::Composing]);
    assert_ne!(old.id, new.id);
    // A guest may still be running from it.
    old.verify().unwrap();
}

#[test]
fn a_truncated_bundle_is_made_anew_from_the_cache() {
    let fixture = Fixture::new();
    let (bundle, _) = fixture.ensure(b"agent").unwrap();
    let file = fs::OpenOptions::new().write(true).open(&bundle.kernel_path).unwrap();
    file.set_len(100).unwrap();
    let Current::Compose(Remake::Damaged(error)) = fixture.current(b"agent") else {
        panic!("not found damaged")
    };
    let Error::Damaged { source: Damage::Size { file, .. }, .. } = *error else { panic!("{error}") };
    assert_eq!(file, "kernel");

    let (repaired, phases) = fixture.ensure(b"agent").unwrap();
    assert_eq!((repaired.id.as_str(), phases), (bundle.id.as_str(), vec![Phase::Composing]));
    repaired.verify().unwrap();
}

#[test]
fn a_damaged_cache_is_never_used() {
    let fixture = Fixture::new();
    let (bundle, _) = fixture.ensure(b"agent").unwrap();
    let stores = Stores::new(&fixture.home());
    let cached = stores.kernels.current().unwrap().unwrap();
    let mut bytes = fs::read(cached.path("kernel")).unwrap();
    bytes[3000] ^= 1;
    fs::write(cached.path("kernel"), bytes).unwrap();
    fs::remove_dir_all(bundle.kernel_path.parent().unwrap()).unwrap();

    let (made, phases) = fixture.ensure(b"agent").unwrap();
    assert_eq!((made.id.as_str(), phases), (bundle.id.as_str(), WHOLE.to_vec()));
    made.verify().unwrap();
}

#[test]
fn two_setups_at_once_make_one_bundle() {
    let fixture = Fixture::new();
    let made = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| fixture.ensure(b"agent").unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(made.iter().filter(|(_, phases)| phases.contains(&Phase::Composing)).count(), 1);
    assert!(made.iter().all(|(bundle, _)| bundle.id == made[0].0.id));
}

#[test]
fn a_setup_that_fails_leaves_the_bundle_before_it_and_nothing_else() {
    let fixture = Fixture::new();
    let (bundle, _) = fixture.ensure(b"agent").unwrap();
    let source = KernelSource::Files { kernel: "/etc/passwd".into(), modules: None };
    let error = setup(&fixture.home(), &Agent::new(b"agent"), &source, &|_| ()).unwrap_err();
    assert!(matches!(error, Error::Kernel { .. }), "{error}");
    assert!(matches!(fixture.current(b"agent"), Current::Ready(current) if current.id == bundle.id));
    for store in ["kernels", "bases", "bundles"] {
        assert_eq!(fs::read_dir(fixture.home().join(store)).unwrap().count(), 2, "{store}");
    }
}

#[test]
fn leftovers_of_a_killed_setup_are_removed_by_the_next() {
    let fixture = Fixture::new();
    for store in ["kernels", "bases", "bundles"] {
        let left = fixture.home().join(store).join(".tmp-killed");
        fs::create_dir_all(&left).unwrap();
        fs::write(left.join("kernel"), "half").unwrap();
    }
    fixture.ensure(b"agent").unwrap();
    for store in ["kernels", "bases", "bundles"] {
        assert!(!fixture.home().join(store).join(".tmp-killed").exists(), "{store}");
    }
}
