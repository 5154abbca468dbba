//! The certificate authorities that this host trusts beyond those of its distribution: a company's, whose proxy is between it and the world.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::Builder;
use crate::Error;

/// Where administrators put them: Debian and Alpine, Red Hat, Arch, SUSE.
const PLACES: [&str; 4] = [
    "/usr/local/share/ca-certificates",
    "/etc/pki/ca-trust/source/anchors",
    "/etc/ca-certificates/trust-source/anchors",
    "/etc/pki/trust/anchors",
];
/// A variable by which users name further ones.
const VARIABLE: &str = "NODE_EXTRA_CA_CERTS";
/// The most that all of them together may have.
const LARGEST: u64 = 1 << 20;
/// How deep directories are looked into.
const DEPTH: usize = 4;
/// What a certificate begins with that is not in the form of a text: a sequence of more than 255 bytes.
const DER: [u8; 2] = [0x30, 0x82];
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// What programs are told of the files that the agent makes, unless they are told otherwise.
const VARIABLES: [(&str, &str); 4] = [
    // OpenSSL, and what is built on it: Python, Ruby, curl.
    ("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"),
    // Python's requests and pip, which have authorities of their own.
    ("REQUESTS_CA_BUNDLE", "/etc/ssl/certs/ca-certificates.crt"),
    ("CURL_CA_BUNDLE", "/etc/ssl/certs/ca-certificates.crt"),
    ("NODE_EXTRA_CA_CERTS", "/etc/ssl/cellule.pem"),
];

impl Builder {
    /// Has programs trust the certificate authorities that this host trusts beyond those of its distribution: what its administrator
    /// added, and what `$NODE_EXTRA_CA_CERTS` names.
    pub fn trust_host_ca(mut self, trusted: bool) -> Self {
        self.network.trust_host_ca = trusted;
        self
    }
}

/// Adds the variables that lead programs to the files.
pub(crate) fn name_in(env: &mut Vec<String>) {
    for (name, value) in VARIABLES {
        let is_set =
            env.iter().any(|variable| variable.split_once('=').is_some_and(|(known, _)| known == name));
        if !is_set {
            env.push(format!("{name}={value}"));
        }
    }
}

/// All of them, as PEM and nothing else.
pub(super) fn of_host() -> Result<String, Error> {
    let mut files = Vec::new();
    for place in PLACES {
        collect(Path::new(place), DEPTH, &mut files)?;
    }
    files.sort_unstable();
    files.extend(std::env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from));
    let mut all = String::new();
    for file in files {
        let failed = |source| Error::Io { doing: format!("read {}", file.display()), source };
        let mut bytes = Vec::new();
        File::open(&file).map_err(failed)?.take(LARGEST).read_to_end(&mut bytes).map_err(failed)?;
        all.push_str(&pem(bytes).map_err(|why| failed(io::Error::new(io::ErrorKind::InvalidData, why)))?);
    }
    if all.len() as u64 > LARGEST {
        let source = io::Error::new(io::ErrorKind::InvalidData, "they are more than 1 MiB");
        return Err(Error::Io { doing: "take this host's certificate authorities".to_owned(), source });
    }
    Ok(all)
}

/// The certificates of a file, as PEM: those in it, or the one that it is.
fn pem(bytes: Vec<u8>) -> Result<String, &'static str> {
    if let [first, second, high, low, rest @ ..] = bytes.as_slice()
        && [*first, *second] == DER
    {
        if rest.len() != usize::from(u16::from_be_bytes([*high, *low])) {
            return Err("it begins like a certificate, and is longer or shorter");
        }
        let digits = BASE64_STANDARD.encode(&bytes);
        let lines: Vec<_> = digits.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
        return Ok(format!("{BEGIN}\n{}\n{END}\n", lines.join("\n")));
    }
    let text = String::from_utf8(bytes).map_err(|_| "it is neither text nor a certificate")?;
    Ok(certificates(&text).fold(String::new(), |all, certificate| all + certificate + "\n"))
}

/// The files of a directory that may have some. One that is not there has none.
fn collect(dir: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), Error> {
    let failed = |source| Error::Io { doing: format!("list {}", dir.display()), source };
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let is_named_so = path.extension().is_some_and(|end| end == "crt" || end == "pem" || end == "cer");
        if path.is_dir() && depth > 0 {
            collect(&path, depth - 1, files)?;
        } else if is_named_so && path.is_file() {
            files.push(path);
        }
    }
    Ok(())
}

/// The certificates of a text, without what stands around them: keys that somebody left there are nobody else's.
fn certificates(text: &str) -> impl Iterator<Item = &str> {
    text.split(BEGIN).skip(1).filter_map(|part| {
        let end = part.find(END)? + END.len();
        // What the split took is before it.
        let start = part.as_ptr() as usize - text.as_ptr() as usize - BEGIN.len();
        text.get(start..start + BEGIN.len() + end)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_certificates_are_taken_of_a_text() {
        let one = format!("{BEGIN}\nQQ==\n{END}");
        let two = format!("{BEGIN}\nQg==\n{END}");
        let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----";
        let text = format!("a comment\n{one}\n{key}\n{two} trailing {BEGIN} without an end");
        assert_eq!(certificates(&text).collect::<Vec<_>>(), [one, two]);
        assert_eq!(certificates("").count(), 0);
    }

    #[test]
    fn a_certificate_that_is_no_text_becomes_one() {
        let der = [&[0x30, 0x82, 1, 4][..], &[7; 260]].concat();
        let made = pem(der.clone()).unwrap();
        assert_eq!(certificates(&made).count(), 1);
        assert!(made.lines().all(|line| line.len() <= 64));
        let digits: String = made.lines().filter(|line| !line.starts_with('-')).collect();
        assert_eq!(BASE64_STANDARD.decode(digits).unwrap(), der);
        assert!(pem(der[..100].to_vec()).is_err());
        assert!(pem(vec![0xff, 0xfe]).is_err());
    }

    #[test]
    fn variables_lead_to_the_files_unless_they_lead_elsewhere() {
        let mut env = vec!["SSL_CERT_FILE=/mine".to_owned()];
        name_in(&mut env);
        assert_eq!(env.len(), VARIABLES.len());
        assert_eq!(env[0], "SSL_CERT_FILE=/mine");
    }

    #[test]
    fn a_directory_gives_what_is_named_as_a_certificate_below_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        for name in ["a.crt", "sub/b.pem", "notes.txt"] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        let mut files = Vec::new();
        collect(dir.path(), DEPTH, &mut files).unwrap();
        collect(&dir.path().join("missing"), DEPTH, &mut files).unwrap();
        files.sort_unstable();
        assert_eq!(files, [dir.path().join("a.crt"), dir.path().join("sub/b.pem")]);
    }
}
