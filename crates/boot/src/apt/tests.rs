use std::cell::RefCell;
use std::os::unix::fs::PermissionsExt;

use super::*;

const DEB: &str = "the package";

/// A host whose apt is two shell scripts, which write down how they are called.
struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    fn new(apt_cache: &str, apt_get: &str) -> Self {
        let host = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(host.path("scratch")).unwrap();
        for (name, body) in [("apt-cache", apt_cache), ("apt-get", apt_get)] {
            let script =
                format!("#!/bin/sh\necho \"{name} $*\" >> {}\n{body}\n", host.path("calls").display());
            fs::write(host.path(name), script).unwrap();
            fs::set_permissions(host.path(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn fetch(&self, wanted: Wanted<'_>, on_progress: OnProgress<'_>) -> Result<(Package, Option<PathBuf>)> {
        let scratch = self.path("scratch");
        let mut apt = Apt { programs: self.path(""), ..Apt::new(&scratch, on_progress) };
        apt.fetch(wanted, &|_| false)
    }

    /// The programs and their last words, without options.
    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.path("calls")).unwrap();
        let last = |line: &str| line.rsplit(' ').next().unwrap_or_default().to_owned();
        calls.lines().map(|line| format!("{} {}", line.split(' ').next().unwrap(), last(line))).collect()
    }
}

fn stanza(sha256: &str) -> String {
    format!(
        "case \"$*\" in\n\
         *meta-old*) echo 'Version: 1\nSize: 1\nSHA256: 00\nDepends: libc6 (>= 2), image-6.1 (= 6.1-1)';;\n\
         *image-6.1*) echo 'Version: 6.1-1\nSize: {}\nSHA256: {sha256}\nDescription: x\n\nVersion: other';;\n\
         *) echo 'E: No packages found' >&2; exit 100;;\nesac",
        DEB.len()
    )
}

fn sha256() -> String {
    hex::encode(Sha256::digest(DEB))
}

const WANTED: Wanted<'_> = Wanted::DependencyOf { metas: &["meta-new", "meta-old"], prefix: "image-" };

#[test]
fn the_first_meta_package_that_exists_leads_to_the_package() {
    let host = Host::new(&stanza(&sha256()), &format!("printf '%s' '{DEB}' > image.deb"));
    let seen = RefCell::new(Vec::new());
    let (package, deb) = host.fetch(WANTED, &|progress| seen.borrow_mut().push(progress)).unwrap();
    assert_eq!((package.name.as_str(), package.version.as_str()), ("image-6.1", "6.1-1"));
    assert_eq!(fs::read_to_string(deb.unwrap()).unwrap(), DEB);
    assert_eq!(
        host.calls(),
        ["apt-cache meta-new", "apt-cache meta-old", "apt-cache image-6.1", "apt-get image-6.1=6.1-1"]
    );
    let size = DEB.len() as u64;
    let end = Progress { phase: Phase::Downloading, done: size, total: Some(size) };
    assert_eq!(seen.borrow().last(), Some(&end));
}

#[test]
fn a_package_that_is_known_is_not_downloaded() {
    let host = Host::new(&stanza(&sha256()), "exit 1");
    let scratch = host.path("scratch");
    let mut apt = Apt { programs: host.path(""), ..Apt::new(&scratch, &|_| ()) };
    let (_, deb) = apt.fetch(WANTED, &|package| package.version == "6.1-1").unwrap();
    assert_eq!(deb, None);
}

#[test]
fn empty_lists_of_the_host_are_replaced_by_our_own() {
    let shown = format!("case \"$*\" in *Dir::State=*) ;; *) exit 0;; esac\n{}", stanza(&sha256()));
    let host =
        Host::new(&shown, &format!("case \"$*\" in *update) ;; *) printf '%s' '{DEB}' > image.deb;; esac"));
    host.fetch(Wanted::Named("image-6.1"), &|_| ()).unwrap();
    let expected =
        ["apt-cache image-6.1", "apt-get update", "apt-cache image-6.1", "apt-get image-6.1=6.1-1"];
    assert_eq!(host.calls(), expected);
}

#[test]
fn a_package_gone_from_the_archive_is_looked_up_anew() {
    let get = format!(
        "case \"$*\" in *update) ;; *Dir::State=*) printf '%s' '{DEB}' > image.deb;;\n\
         *) echo 'E: Failed to fetch http://x 404 Not Found' >&2; exit 100;; esac"
    );
    let host = Host::new(&stanza(&sha256()), &get);
    host.fetch(Wanted::Named("image-6.1"), &|_| ()).unwrap();
}

#[test]
fn a_package_that_no_list_has_is_named_after_one_update() {
    let host = Host::new(&stanza(""), "exit 0");
    let error = host.fetch(Wanted::Named("image-7"), &|_| ()).unwrap_err();
    assert!(matches!(&error, Error::Apt(AptError::NotFound { names }) if names == &["image-7"]), "{error}");
    assert_eq!(host.calls().iter().filter(|call| *call == "apt-get update").count(), 1);
}

#[test]
fn without_network_no_update_is_tried() {
    let host = Host::new(&stanza(&sha256()), "echo \"Err: Temporary failure resolving 'x'\" >&2; exit 100");
    let error = host.fetch(WANTED, &|_| ()).unwrap_err();
    assert!(matches!(error, Error::Apt(AptError::NoNetwork(_))), "{error}");
    assert!(!host.calls().contains(&"apt-get update".to_owned()));
}

#[test]
fn a_full_disk_is_called_so() {
    let host = Host::new(&stanza(&sha256()), "echo 'E: write (28: No space left on device)' >&2; exit 100");
    let error = host.fetch(WANTED, &|_| ()).unwrap_err();
    assert!(matches!(error, Error::DiskFull { .. }), "{error}");
}

#[test]
fn a_package_with_other_bytes_than_listed_is_refused() {
    let get = format!("printf '%s' '{DEB}' > image.deb");
    let host = Host::new(&stanza("00"), &get);
    let error = host.fetch(WANTED, &|_| ()).unwrap_err();
    assert!(matches!(error, Error::Apt(AptError::Damaged { what: "its SHA-256", .. })), "{error}");
    let host = Host::new(&stanza(&sha256()), &get.replace(DEB, "short"));
    let error = host.fetch(WANTED, &|_| ()).unwrap_err();
    assert!(matches!(error, Error::Apt(AptError::Damaged { what: "its size", .. })), "{error}");
}

#[test]
fn a_host_without_apt_is_told_so() {
    let host = Host::new("", "");
    fs::remove_file(host.path("apt-cache")).unwrap();
    let error = host.fetch(WANTED, &|_| ()).unwrap_err();
    assert!(matches!(error, Error::Apt(AptError::Command(CommandError::NotInstalled { .. }))), "{error}");
}

/// Some package, for those who need one.
pub(crate) fn package() -> Package {
    let text = "Version: 6.12-1\nSize: 1\nSHA256: 00\n";
    Package::parse(text, "linux-image-test").unwrap()
}
