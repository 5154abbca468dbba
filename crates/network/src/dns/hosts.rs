//! Names from the host's hosts file, for those who ask for that.

use std::{collections::HashMap, net::IpAddr, path::PathBuf};

use hickory_proto::rr::RecordType;

use super::{question::Question, watched::Watched};

/// A name with more addresses has the first of them.
const MAX_ADDRESSES: usize = 64;
/// The host's loopback is not the guest's: there, these names are its own.
const LOOPBACK: [&str; 5] = ["localhost", "localhost4", "localhost6", "ip6-localhost", "ip6-loopback"];

/// The file.
#[derive(Debug)]
pub(super) struct HostsFile(Watched<Names>);

type Names = HashMap<String, Vec<IpAddr>>;

impl HostsFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(Watched::new(path, parse))
    }

    /// All addresses of the question's name, if it is in the file and the question is one that it answers: also for
    /// services, which could lead elsewhere.
    pub(super) fn find(&self, question: &Question) -> Option<Vec<IpAddr>> {
        match question.kind() {
            RecordType::A | RecordType::AAAA | RecordType::HTTPS | RecordType::SVCB => {
                self.0.get().get(question.text()).cloned()
            }
            _ => None,
        }
    }
}

/// As in hosts(5): an address and its names on each line, `#` before comments.
fn parse(text: &[u8]) -> Names {
    let mut names = Names::new();
    for line in text.split(|byte| *byte == b'\n') {
        let line = line.split(|byte| *byte == b'#').next().unwrap_or_default();
        let Ok(line) = str::from_utf8(line) else { continue };
        let mut words = line.split_ascii_whitespace();
        // An address with a scope is on a link of the host's that the guest is not on, and does not parse.
        let Some(address) = words.next().and_then(|word| word.parse().ok()) else { continue };
        for name in words.map(|word| word.trim_end_matches('.').to_ascii_lowercase()) {
            if !is_loopback(&name) {
                let addresses = names.entry(name).or_default();
                if addresses.len() < MAX_ADDRESSES && !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }
    }
    names
}

fn is_loopback(name: &str) -> bool {
    let first = name.split('.').next().unwrap_or_default();
    LOOPBACK.contains(&first) || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_have_the_addresses_of_their_lines() {
        let text = b"127.0.0.1 localhost localhost.localdomain x.localhost\n127.0.1.1 Box box.example. # a name\n\
                     fd00::1\tbox\n#10.0.0.1 old\nfe80::1%eth0 link\nnonsense line\n10.0.0.2 caf\xff\n10.0.0.3\n";
        let names = parse(text);
        assert_eq!(names["box"], ["127.0.1.1".parse::<IpAddr>().unwrap(), "fd00::1".parse().unwrap()]);
        assert_eq!(names["box.example"].len(), 1);
        assert_eq!(names.len(), 2);
    }

    proptest! {
        #[test]
        fn no_file_makes_the_parser_panic(text in prop::collection::vec(any::<u8>(), 0..200)) {
            parse(&text);
        }
    }
}
