use std::io::Write;

use proptest::prelude::*;

use super::*;

fn sections(build: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Result<Sections> {
    let mut builder = tar::Builder::new(Vec::new());
    build(&mut builder);
    from_bytes(&builder.into_inner().unwrap())
}

fn from_bytes(bytes: &[u8]) -> Result<Sections> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    Sections::read(file, Path::new("a.tar"), 100)
}

fn add(builder: &mut tar::Builder<Vec<u8>>, path: &str, bytes: &[u8]) {
    let mut header = Header::new_gnu();
    header.set_size(bytes.len() as u64);
    builder.append_data(&mut header, path, bytes).unwrap();
}

fn link(builder: &mut tar::Builder<Vec<u8>>, kind: EntryType, path: &str, target: &str) {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(0);
    builder.append_link(&mut header, path, target).unwrap();
}

fn text(sections: &Sections, name: &str) -> Option<String> {
    let mut text = String::new();
    sections.find(name)?.read_to_string(&mut text).unwrap();
    Some(text)
}

#[test]
fn files_are_found_by_name_and_through_links() {
    let long = "d/".repeat(100) + "file";
    let sections = sections(|builder| {
        add(builder, "./a/layer.tar", b"one");
        add(builder, &long, b"two");
        link(builder, EntryType::Symlink, "b/layer.tar", "../a/layer.tar");
        link(builder, EntryType::Link, "c", "a/layer.tar");
        link(builder, EntryType::Symlink, "loop", "loop");
        link(builder, EntryType::Symlink, "out", "../../etc/passwd");
    })
    .unwrap();
    for name in ["a/layer.tar", "b/layer.tar", "c", "./a//layer.tar"] {
        assert_eq!(text(&sections, name).as_deref(), Some("one"), "{name}");
    }
    assert_eq!(text(&sections, &long).as_deref(), Some("two"));
    for name in ["loop", "out", "missing", "", "../a/layer.tar"] {
        assert_eq!(text(&sections, name), None, "{name}");
    }
}

#[test]
fn an_archive_that_is_cut_short_is_refused() {
    let mut builder = tar::Builder::new(Vec::new());
    add(&mut builder, "a", &[7; 2000]);
    let bytes = builder.into_inner().unwrap();
    assert!(from_bytes(&bytes[..1500]).is_err());
    assert!(from_bytes(&[7; 1024]).is_err());
}

#[test]
fn too_many_entries_are_refused() {
    let result = sections(|builder| (0..101).for_each(|n| add(builder, &n.to_string(), b"")));
    assert!(matches!(result, Err(Error::Limit { field: "entries", .. })));
}

proptest! {
    #[test]
    fn no_header_makes_the_reader_panic(at in 0..512_usize, bytes in prop::collection::vec(any::<u8>(), 1..16)) {
        let mut builder = tar::Builder::new(Vec::new());
        add(&mut builder, "a", b"x");
        let mut archive = builder.into_inner().unwrap();
        let end = (at + bytes.len()).min(512);
        archive[at..end].copy_from_slice(&bytes[..end - at]);
        // Half of the time the checksum is made right again, so that the fields are looked at.
        let mut header = Header::from_byte_slice(&archive[..512]).clone();
        header.set_cksum();
        archive[..512].copy_from_slice(header.as_bytes());
        if let Ok(sections) = from_bytes(&archive) {
            let _ = text(&sections, "a");
        }
    }
}
