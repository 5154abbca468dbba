//! What a guest is told of the sandbox that it is: names, addresses, and what no two may share.

use cellule_protocol::network::{GUEST_V4, GUEST_V6, Mac};
use cellule_protocol::v1;
use sha2::{Digest as _, Sha256};

use crate::failure::{Failure, FailureKind};
use crate::spec::SandboxSpec;

/// What every guest is told whose sandbox is not known yet: all that a later configuration replaces has its place then.
pub(crate) fn nobodys() -> v1::Configuration {
    v1::Configuration {
        mac: mac("cellule").to_vec(),
        ..named("cellule", "0".repeat(32), "00000000-0000-0000-0000-000000000000".to_owned())
    }
}

/// The hardware address of a sandbox's card. On its own network it meets no other; but programs make names of it that are to
/// be unlike everybody else's.
pub(super) fn mac(id: &str) -> Mac {
    let mut mac = [0; 6];
    // One that an administrator gives, and one card's.
    mac[0] = 0x02;
    mac[1..].copy_from_slice(&Sha256::digest(id)[..5]);
    mac
}

fn named(hostname: &str, machine_id: String, boot_id: String) -> v1::Configuration {
    let hosts = format!(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{GUEST_V4}\t{hostname}\n{GUEST_V6}\t{hostname}\n"
    );
    v1::Configuration {
        hostname: hostname.to_owned(),
        hosts: hosts.into_bytes(),
        // Nobody's guest asks for names.
        resolv_conf: b"# no name server\n".to_vec(),
        machine_id,
        boot_id,
        ..v1::Configuration::default()
    }
}

/// What the sandbox's guest is told. It trusts `authority` too, a certificate that is its secrets'.
pub(super) fn configuration(
    spec: &SandboxSpec,
    authority: Option<&str>,
) -> Result<v1::Configuration, Failure> {
    let mut random = [0; 32];
    let drawn = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    drawn.map_err(|error| {
        let error = std::io::Error::from(error);
        Failure::new(FailureKind::Supervisor, "the host has no random numbers to give", Some(&error))
    })?;
    let (machine_id, boot_id) = random.split_at(16);
    Ok(v1::Configuration {
        mac: mac(spec.id.as_str()).to_vec(),
        resolv_conf: spec.network.resolv_conf().into_bytes(),
        authorities: [&*spec.authorities, authority.unwrap_or_default()].concat().into_bytes(),
        read_only: spec.read_only,
        tmpfs: spec
            .tmpfs
            .iter()
            .map(|tmpfs| v1::Tmpfs { path: tmpfs.path.clone().into_bytes(), options: tmpfs.options.clone() })
            .collect(),
        ..named(&spec.hostname, hex::encode(machine_id), uuid(boot_id))
    })
}

/// Random bytes as a UUID of version 4.
fn uuid(random: &[u8]) -> String {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(random);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex::encode(bytes);
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sandbox_has_a_hardware_address_of_its_own_that_is_no_groups() {
        let first = mac("0123456789ab");
        assert_eq!((first[0], first), (0x02, mac("0123456789ab")));
        assert_ne!(first, mac("0123456789ac"));
    }

    #[test]
    fn a_boot_id_is_a_random_uuid_by_its_own_words() {
        assert_eq!(uuid(&[0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(uuid(&[0; 16]), "00000000-0000-4000-8000-000000000000");
    }
}
