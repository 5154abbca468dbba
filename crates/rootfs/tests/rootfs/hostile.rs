//! Layers made to do harm.

use std::sync::atomic::{AtomicU32, Ordering};
use std::{fs::File, io, ops::ControlFlow};

use cellule_rootfs::{Error, Fault, LayerSource, Limits, build};

use crate::support::{Header, Kind, Tar, assert_fault, fault, image, refusal};

#[test]
fn absolute_paths_are_taken_relative_to_the_root() {
    let image = image(&[Tar::new().file("/etc/passwd", "1").file("//etc//./shadow", "2").end()]);
    assert_eq!(image.paths(), ["etc", "etc/passwd", "etc/shadow"]);
}

#[test]
fn paths_with_dotdot_are_refused() {
    for path in ["../x", "a/../../x", "a/..", "..", "/../x", "a/../b"] {
        assert_fault!(fault(Tar::new().file(path, "").end()), Fault::DotDot);
        assert_fault!(fault(Tar::new().dir(path).end()), Fault::DotDot);
        assert_fault!(fault(Tar::new().file("a", "").hard_link("b", path).end()), Fault::DotDot);
    }
}

#[test]
fn a_link_out_of_the_root_leads_nowhere_on_the_host() {
    let scratch = tempfile::tempdir().unwrap();
    let outside = scratch.path().to_str().unwrap();
    let layer = Tar::new()
        .pax(&[("linkpath", outside.as_bytes())])
        .symlink("out", "")
        .file("out/absolute", "1")
        .symlink("up", &"../".repeat(30))
        .file("up/relative", "2");
    let image = image(&[layer.end()]);
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
    assert_eq!(image.text(&format!("{}/absolute", &outside[1..])), "1");
    assert_eq!(image.text("relative"), "2");
    assert_eq!(image.node("out").kind, Kind::Symlink(outside.into()));
}

#[test]
fn whiteouts_of_parents_and_of_nothing_are_refused() {
    for path in [".wh.", ".wh..", ".wh...", "a/.wh.", "a/.wh...", "a/.wh..", ".wh.a/b"] {
        assert_fault!(fault(Tar::new().dir("a").file(path, "").end()), Fault::Whiteout);
    }
    assert_fault!(fault(Tar::new().file("../.wh.etc", "").end()), Fault::DotDot);
    assert_fault!(fault(Tar::new().file("a/../../.wh..wh..opq", "").end()), Fault::DotDot);
}

#[test]
fn the_root_can_be_nothing_but_a_directory() {
    for entry in [Header::new("/", b'0'), Header::new("./", b'2').link("x"), Header::new(".", b'6')] {
        assert_fault!(fault(Tar::new().entry(entry, b"").end()), Fault::Root);
    }
    assert_fault!(
        fault(Tar::new().file("a", "").hard_link("./", "a").end()),
        Fault::HardLinkToDirectory { .. } | Fault::Root
    );
}

#[test]
fn nul_bytes_and_empty_names_are_refused() {
    assert_fault!(fault(Tar::new().pax(&[("path", b"a\0b")]).file("x", "").end()), Fault::Name);
    assert_fault!(fault(Tar::new().pax(&[("linkpath", b"a\0b")]).symlink("x", "").end()), Fault::Name);
    assert_fault!(fault(Tar::new().pax(&[("linkpath", b"a\0b")]).hard_link("x", "").end()), Fault::Name);
    assert_fault!(fault(Tar::new().file("", "").end()), Fault::Name);
    assert_fault!(fault(Tar::new().symlink("l", "").end()), Fault::Name);
    assert_fault!(fault(Tar::new().hard_link("h", "").end()), Fault::Name);
}

#[test]
fn a_name_of_255_bytes_is_kept_and_a_longer_one_refused() {
    let name = "n".repeat(255);
    assert_eq!(image(&[Tar::new().pax(&[("path", name.as_bytes())]).file("x", "").end()]).paths(), [&name]);
    let name = "n".repeat(256);
    assert_fault!(
        fault(Tar::new().pax(&[("path", name.as_bytes())]).file("x", "").end()),
        Fault::NameTooLong
    );
    let inner = format!("a/{name}/b");
    assert_fault!(
        fault(Tar::new().pax(&[("path", inner.as_bytes())]).file("x", "").end()),
        Fault::NameTooLong
    );
}

#[test]
fn names_are_any_bytes_and_printed_escaped() {
    let layer = Tar::new().file("new\nline\u{1b}[31m", "1").end();
    assert_eq!(image(&[layer]).paths(), ["new\nline\u{1b}[31m"]);
    let (_, path, _) = refusal(&[Tar::new().file("../\u{1b}[2J", "").end()], &Limits::default());
    let error = Error::Layer { layer: "l".into(), path, offset: 0, source: Fault::DotDot };
    assert_eq!(error.to_string(), "layer l, entry \"../\\u{1b}[2J\", at byte 0 of its tar");
}

#[test]
fn a_tree_as_deep_as_paths_allow_is_built() {
    let path = "d/".repeat(2000) + "f";
    let image = image(&[Tar::new().pax(&[("path", path.as_bytes())]).file("x", "deep").end()]);
    assert_eq!(image.text(&path), "deep");
}

#[test]
fn links_that_multiply_each_other_stay_cheap() {
    // Each link doubles the way: 2^30 steps if nothing stopped them.
    let mut layer = Tar::new().dir("d0");
    for i in 1..=30 {
        layer = layer.symlink(&format!("d{i}"), &format!("d{0}/../d{0}", i - 1));
    }
    assert_fault!(fault(layer.file("d30/x", "").end()), Fault::SymlinkLoop);
}

#[test]
fn a_size_beyond_the_tar_is_refused() {
    assert_fault!(
        fault(Tar::new().entry(Header::new("a", b'0').size(1 << 20), b"short").end()),
        Fault::Truncated
    );
    let largest = Header::new("a", b'0').raw(124, b"777777777777");
    assert_fault!(fault(Tar::new().entry(largest, b"").end()), Fault::Limit { .. } | Fault::Truncated);
    for size in ["18446744073709551615", "18446744073709551104", "9223372036854775807"] {
        assert_fault!(
            fault(Tar::new().pax(&[("size", size.as_bytes())]).file("a", "").end()),
            Fault::Limit { .. }
        );
    }
}

/// Gives each reader other bytes.
struct Fickle([Vec<u8>; 2], AtomicU32);

impl LayerSource for Fickle {
    fn open(&self) -> io::Result<Box<dyn io::Read + Send>> {
        let turn = self.1.fetch_add(1, Ordering::Relaxed) as usize;
        Ok(Box::new(io::Cursor::new(self.0[turn.min(1)].clone())))
    }

    fn describe(&self) -> String {
        "fickle".into()
    }
}

fn build_fickle(first: Vec<u8>, second: Vec<u8>) -> Result<(), Error> {
    let mut out: File = tempfile::tempfile().unwrap();
    let source = Fickle([first, second], AtomicU32::new(0));
    build(&[&source], &mut out, &Limits::default(), &mut |_| ControlFlow::Continue(())).map(drop)
}

#[test]
fn a_source_that_changes_between_the_passes_is_refused() {
    let first = Tar::new().file("a", "12345").file("b", "1").end();
    assert!(build_fickle(first.clone(), first.clone()).is_ok());
    for second in [
        Tar::new().file("a", "54321").file("b", "1").end(),
        Tar::new().file("a", "1".repeat(99_999)).file("b", "1").end(),
        Tar::new().dir("a").file("b", "1").end(),
        Tar::new().end(),
        Vec::new(),
    ] {
        let error = build_fickle(first.clone(), second).unwrap_err();
        assert!(matches!(error, Error::Layer { source: Fault::Changed, .. }), "{error:?}");
    }
}

/// Fails to open, or while it is read.
struct Broken(Option<Vec<u8>>);

impl LayerSource for Broken {
    fn open(&self) -> io::Result<Box<dyn io::Read + Send>> {
        struct Fails;
        impl io::Read for Fails {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("the disk is gone"))
            }
        }
        let bytes = self.0.clone().ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(io::Read::chain(io::Cursor::new(bytes), Fails)))
    }

    fn describe(&self) -> String {
        "broken".into()
    }
}

#[test]
fn a_failing_source_is_told_from_a_damaged_layer() {
    let build = |source: &Broken| {
        let mut out = tempfile::tempfile().unwrap();
        match build(&[source], &mut out, &Limits::default(), &mut |_| ControlFlow::Continue(())) {
            Err(Error::Layer { source, .. }) => source,
            other => panic!("{other:?}"),
        }
    };
    assert_fault!(build(&Broken(None)), Fault::Open(_));
    assert_fault!(build(&Broken(Some(Tar::new().file("a", "1").0))), Fault::Read(_));
    let gzip = crate::compression::gzip(&Tar::new().file("a", "1".repeat(100_000)).end());
    assert_fault!(build(&Broken(Some(gzip[..gzip.len() / 2].to_vec()))), Fault::Read(_));
}

#[test]
fn a_build_can_be_cancelled_at_every_report() {
    let layer =
        cellule_rootfs::BytesLayer::new("l", Tar::new().file("a", "1".repeat(400_000)).dir("d").end());
    let limits = Limits::default();
    let run = |stop_at: usize| {
        let (mut out, mut calls) = (tempfile::tempfile().unwrap(), 0);
        let result = build(&[&layer], &mut out, &limits, &mut |_| {
            calls += 1;
            if calls > stop_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        (result, calls)
    };
    let (whole, calls) = run(usize::MAX);
    assert!(whole.is_ok() && calls > 4);
    for stop_at in 0..calls {
        let (result, stopped_at) = run(stop_at);
        assert!(matches!(result, Err(Error::Cancelled)));
        assert_eq!(stopped_at, stop_at + 1, "nothing is reported after a cancellation");
    }
}

#[test]
fn a_build_can_be_cancelled_while_one_read_of_the_source_unpacks_for_long() {
    let blob = crate::compression::gzip(&Tar::new().file("zeros", vec![0; 48 << 20]).end());
    let layer = cellule_rootfs::BytesLayer::new("bomb", blob);
    let (mut out, mut last, mut silent) = (tempfile::tempfile().unwrap(), 0, 0);
    let result = build(&[&layer], &mut out, &Limits::default(), &mut |done| {
        silent += u32::from(done == last);
        last = done;
        if silent == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(result, Err(Error::Cancelled)));
}

#[test]
fn progress_never_falls_and_ends_at_twice_the_sources_sizes() {
    let layers =
        [Tar::new().file("a", "1".repeat(1 << 20)).file("b", "1").end(), Tar::new().file(".wh.a", "").end()];
    let sources = layers.clone().map(|layer| cellule_rootfs::BytesLayer::new("l", layer));
    let sources: Vec<&dyn LayerSource> = sources.iter().map(|source| source as &dyn LayerSource).collect();
    let (mut out, mut last, mut steps) = (tempfile::tempfile().unwrap(), 0, 0);
    build(&sources, &mut out, &Limits::default(), &mut |done| {
        assert!(done >= last);
        steps += u32::from(done > last);
        last = done;
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(steps > 8, "only {steps} steps");
    assert_eq!(last, 2 * layers.iter().map(|layer| layer.len() as u64).sum::<u64>());
}
