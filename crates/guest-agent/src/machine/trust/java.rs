//! Owns Java's stores of authorities, which have a form of their own.
//!
//! ```text
//!   JKS:  magic  version  count   count × (kind, alias, time, "X.509", length, certificate)   SHA-1 of a password and all that
//! ```
//! A store of that form gets ours behind its own. One of another form (PKCS 12, since Java 18) is replaced by one with the authorities that the
//! distribution has: Java reads either.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha1::{Digest as _, Sha1};

const MAGIC: [u8; 4] = [0xfe, 0xed, 0xfe, 0xed];
const VERSION: u32 = 2;
/// What is before the first entry.
const HEAD: usize = 12;
/// The sum at the end.
const SUM: usize = 20;
/// A certificate and nothing else.
const TRUSTED: u32 = 2;
/// What all of them have as their password: it keeps no secret.
const PASSWORD: &str = "changeit";
/// What Java's own authors put behind it.
const WORDS: &[u8] = b"Mighty Aphrodite";
/// More than any store has.
const MOST: u32 = 10_000;

/// Where stores are: Debian's, which all Javas of its packages share, and those that come with a Java.
const SHARED: &str = "/etc/ssl/certs/java/cacerts";
const HOMES: [&str; 4] = ["/usr/lib/jvm", "/opt/java", "/opt", "/usr/local"];
const WITHIN: [&str; 2] = ["lib/security/cacerts", "jre/lib/security/cacerts"];
/// How many directories are looked into.
const DIRECTORIES: usize = 64;

/// The stores of an image.
pub(super) fn stores() -> Vec<PathBuf> {
    stores_at(Path::new(SHARED), &HOMES.map(PathBuf::from))
}

/// Names for one file are one file.
fn stores_at(shared: &Path, homes: &[PathBuf]) -> Vec<PathBuf> {
    let mut stores = vec![shared.to_path_buf()];
    for home in homes {
        let entries = fs::read_dir(home).into_iter().flatten().flatten().take(DIRECTORIES);
        for dir in entries.map(|entry| entry.path()).chain([home.clone()]) {
            stores.extend(WITHIN.map(|within| dir.join(within)));
        }
    }
    let mut stores: Vec<PathBuf> = stores.iter().filter_map(|path| fs::canonicalize(path).ok()).collect();
    stores.sort_unstable();
    stores.dedup();
    stores
}

/// A store with `ours` (PEM) besides its own, or besides the distribution's (PEM) if its own cannot be read; none if nothing is known that
/// it would have to keep.
pub(super) fn with(store: &[u8], distributions: &[u8], ours: &[u8]) -> Option<Vec<u8>> {
    let added = certificates(ours);
    if let Some((count, end)) = entries(store) {
        return Some(written(count, &store[HEAD..end], &added));
    }
    let own = certificates(distributions);
    (!own.is_empty()).then(|| written(0, &[], &[own, added].concat()))
}

/// How many entries a store has, and where they end.
fn entries(store: &[u8]) -> Option<(u32, usize)> {
    let end = store.len().checked_sub(SUM).filter(|end| *end >= HEAD)?;
    let mut reader = Reader { rest: store.get(..end)? };
    if reader.take(4)? != MAGIC || reader.number()? != VERSION {
        return None;
    }
    let count = reader.number().filter(|count| *count <= MOST)?;
    for _ in 0..count {
        if reader.number()? != TRUSTED {
            return None;
        }
        reader.text()?;
        reader.take(8)?;
        reader.text()?;
        let length = usize::try_from(reader.number()?).ok()?;
        reader.take(length)?;
    }
    reader.rest.is_empty().then_some((count, end))
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = u16::from_be_bytes(self.take(2)?.try_into().ok()?);
        self.take(length.into())
    }
}

/// A store with these entries, and these certificates behind them.
fn written(count: u32, entries: &[u8], added: &[Vec<u8>]) -> Vec<u8> {
    let mut store = MAGIC.to_vec();
    let all = count.saturating_add(u32::try_from(added.len()).unwrap_or(u32::MAX));
    store.extend(VERSION.to_be_bytes());
    store.extend(all.to_be_bytes());
    store.extend(entries);
    for (number, certificate) in added.iter().enumerate() {
        store.extend(TRUSTED.to_be_bytes());
        text(&mut store, &format!("cellule-{number}"));
        store.extend([0; 8]);
        text(&mut store, "X.509");
        store.extend(u32::try_from(certificate.len()).unwrap_or(u32::MAX).to_be_bytes());
        store.extend(certificate);
    }
    let password: Vec<u8> = PASSWORD.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let sum = Sha1::new().chain_update(password).chain_update(WORDS).chain_update(&store).finalize();
    store.extend(sum);
    store
}

fn text(store: &mut Vec<u8>, text: &str) {
    store.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    store.extend(text.bytes());
}

/// The certificates of a PEM text. What cannot be read is none.
fn certificates(pem: &[u8]) -> Vec<Vec<u8>> {
    let text = String::from_utf8_lossy(pem);
    let parts = text.split("-----BEGIN CERTIFICATE-----").skip(1);
    let digits = parts.filter_map(|part| part.split_once("-----END CERTIFICATE-----"));
    digits
        .filter_map(|(digits, _)| {
            let digits: String = digits.split_ascii_whitespace().collect();
            BASE64_STANDARD.decode(digits).ok().filter(|certificate| !certificate.is_empty())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(certificates: &[&[u8]]) -> Vec<u8> {
        let one = |bytes: &&[u8]| {
            let digits = BASE64_STANDARD.encode(bytes);
            format!("# a comment\n-----BEGIN CERTIFICATE-----\n{digits}\n-----END CERTIFICATE-----\n")
                .into_bytes()
        };
        certificates.iter().flat_map(one).collect()
    }

    #[test]
    fn ours_stand_behind_what_a_store_has() {
        let first = with(&[], &pem(&[b"one", b"two"]), &pem(&[b"ours"])).unwrap();
        assert_eq!(entries(&first), Some((3, first.len() - SUM)));
        let again = with(&first, &[], &pem(&[b"more"])).unwrap();
        assert_eq!(entries(&again), Some((4, again.len() - SUM)));
        assert!(again[HEAD..].starts_with(&first[HEAD..first.len() - SUM]));
        assert_eq!(with(&first, &[], &[]), Some(first.clone()), "none of ours is as it was");
    }

    #[test]
    fn a_store_that_cannot_be_read_is_replaced_only_where_it_is_known_what_by() {
        for store in [&b"\x30\x82 PKCS 12"[..], b"", &MAGIC, &[0xff; 40]] {
            assert_eq!(with(store, &[], &pem(&[b"ours"])), None);
            assert!(with(store, &pem(&[b"theirs"]), &pem(&[b"ours"])).is_some());
        }
        let good = written(0, &[], &[b"one".to_vec()]);
        for length in 0..good.len() {
            assert_eq!(entries(&good[..length]), None, "{length}");
        }
        let mut endless = good;
        endless[8..12].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(entries(&endless), None);
    }

    #[test]
    fn a_store_has_the_sum_that_java_expects() {
        let empty = written(0, &[], &[]);
        assert_eq!(empty[..HEAD], [0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2, 0, 0, 0, 0]);
        let sum: String = empty[HEAD..].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(sum, "e2686e45fb43dfa4d992dd41ceb6b21c6330d792");
    }

    #[test]
    fn a_store_of_several_names_is_found_once() {
        let top = tempfile::tempdir().unwrap();
        let (shared, home) = (top.path().join("shared"), top.path().join("jvm"));
        for (dir, within) in [("a", "lib/security"), ("b", "jre/lib/security"), ("none", "lib")] {
            fs::create_dir_all(home.join(dir).join(within)).unwrap();
        }
        fs::write(&shared, "").unwrap();
        std::os::unix::fs::symlink(&shared, home.join("a/lib/security/cacerts")).unwrap();
        let own = home.join("b/jre/lib/security/cacerts");
        fs::write(&own, "").unwrap();
        let expected = [own, shared.clone()].map(|path| fs::canonicalize(path).unwrap());
        assert_eq!(stores_at(&shared, &[home, top.path().join("absent")]), expected);
    }
}
