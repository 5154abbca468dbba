//! Owns the certificate authority of one sandbox, which its guest trusts, and the certificates of the hosts that are intercepted.
//!
//! Its key is made at start and is nowhere but in memory, unless who saves the machine keeps it beside the memory that trusts it. The authority may speak for the secrets' hosts and no others: a guest
//! trusts it for nothing else.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P256_SHA256,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SigningKey};

use super::secret::Secret;
use crate::policy::{Name, Pattern};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long a host's certificate lasts, and before now begins: guests' clocks may be off.
const LASTS: Duration = Duration::from_secs(7 * 24 * 3600);
/// When another is made.
const RENEWED: Duration = Duration::from_secs(3 * 24 * 3600);
/// As long as any sandbox.
const AUTHORITY_LASTS: Duration = Duration::from_secs(3650 * 24 * 3600);
/// The most certificates that are kept.
const KEPT: usize = 256;

/// No certificate could be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// The certificate.
    #[error("cannot make a certificate")]
    Certificate(#[from] rcgen::Error),
    /// Its key.
    #[error("cannot use the key of a certificate")]
    Key(#[from] rustls::Error),
}

/// Speaks for the hosts that are intercepted.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
    /// The key of all hosts' certificates: it is as secret as the authority's.
    host_key: KeyPair,
    signing_key: Arc<dyn SigningKey>,
    made: RefCell<HashMap<Name, Made>>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("made", &self.made.borrow().len()).finish_non_exhaustive()
    }
}

struct Made {
    key: Arc<CertifiedKey>,
    at: SystemTime,
    used: SystemTime,
}

impl Authority {
    /// An authority for these hosts, with a key that there was before or a new one. With the same key it is the same to who trusts it.
    pub(super) fn new<'a>(
        hosts: impl Iterator<Item = &'a Pattern>,
        key: Option<&Secret>,
    ) -> Result<Self, AuthorityError> {
        let now = SystemTime::now();
        let mut params = params("Cellule: secrets of one sandbox", now, AUTHORITY_LASTS);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.name_constraints = Some(constraints(hosts));
        let key = match key {
            Some(key) => {
                let key = PrivatePkcs8KeyDer::from(key.expose());
                KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ECDSA_P256_SHA256)?
            }
            None => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?,
        };
        let certificate = params.self_signed(&key)?;
        let host_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(host_key.serialize_der()));
        let signing_key = rustls::crypto::ring::sign::any_supported_type(&der)?;
        Ok(Self {
            issuer: Issuer::new(params, key),
            pem: certificate.pem(),
            certificate: certificate.der().clone(),
            host_key,
            signing_key,
            made: RefCell::default(),
        })
    }

    /// What the guest is to trust.
    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    /// Its key.
    pub(super) fn key(&self) -> Secret {
        Secret::made(self.issuer.key().serialize_der())
    }

    /// A certificate for a host, with its key.
    pub(super) fn certify(&self, host: &Name) -> Result<Arc<CertifiedKey>, AuthorityError> {
        let now = SystemTime::now();
        let mut all = self.made.borrow_mut();
        if let Some(made) = all.get_mut(host) {
            // A clock that was set back makes it too new.
            if now.duration_since(made.at).is_ok_and(|age| age < RENEWED) {
                made.used = now;
                return Ok(Arc::clone(&made.key));
            }
        }
        let mut params = params("Cellule", now, LASTS);
        params.subject_alt_names = vec![rcgen::SanType::DnsName(host.as_str().try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&self.host_key, &self.issuer)?;
        let chain = vec![certificate.der().clone(), self.certificate.clone()];
        let key = Arc::new(CertifiedKey::new(chain, Arc::clone(&self.signing_key)));
        if all.len() >= KEPT && !all.contains_key(host) {
            let oldest = all.iter().min_by_key(|(_, made)| made.used).map(|(name, _)| name.clone());
            oldest.map(|name| all.remove(&name));
        }
        all.insert(host.clone(), Made { key: Arc::clone(&key), at: now, used: now });
        Ok(key)
    }
}

fn params(name: &str, now: SystemTime, lasts: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = (now - DAY).into();
    params.not_after = (now + lasts).into();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// A name in a certificate's constraints stands for all names below it too, so that `*.example.com` becomes a bit more.
fn constraints<'a>(hosts: impl Iterator<Item = &'a Pattern>) -> NameConstraints {
    let names: BTreeSet<&Name> = hosts
        .map(|pattern| match pattern {
            Pattern::Exact(name) | Pattern::Below(name) => name,
        })
        .collect();
    let permitted_subtrees = names.iter().map(|name| GeneralSubtree::DnsName(name.to_string())).collect();
    // What nothing is said of is permitted: addresses would be.
    let excluded_subtrees = [CidrSubnet::from_v4_prefix([0; 4], 0), CidrSubnet::from_v6_prefix([0; 16], 0)];
    NameConstraints {
        permitted_subtrees,
        excluded_subtrees: excluded_subtrees.map(GeneralSubtree::IpAddress).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority(hosts: &[&str]) -> Authority {
        let hosts: Vec<Pattern> = hosts.iter().map(|host| host.parse().unwrap()).collect();
        Authority::new(hosts.iter(), None).unwrap()
    }

    fn is_trusted(authority: &Authority, host: &str) -> bool {
        is_trusted_by(authority, authority, host)
    }

    fn is_trusted_by(root: &Authority, authority: &Authority, host: &str) -> bool {
        use rustls::client::WebPkiServerVerifier;
        use rustls::client::danger::ServerCertVerifier;
        use rustls::pki_types::{ServerName, UnixTime};
        let mut roots = rustls::RootCertStore::empty();
        roots.add(root.certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
        let key = authority.certify(&host.parse().unwrap()).unwrap();
        let name = ServerName::try_from(host.to_owned()).unwrap();
        verifier.verify_server_cert(&key.cert[0], &[], &name, &[], UnixTime::now()).is_ok()
    }

    #[test]
    fn an_authority_is_trusted_for_the_secrets_hosts_and_no_others() {
        let authority = authority(&["api.example.com", "*.example.org"]);
        assert!(is_trusted(&authority, "api.example.com"));
        assert!(is_trusted(&authority, "a.b.example.org"));
        assert!(!is_trusted(&authority, "example.com"));
        assert!(!is_trusted(&authority, "www.example.com"));
        assert!(authority.pem().starts_with("-----BEGIN CERTIFICATE-----"));
    }

    #[test]
    fn an_authority_with_the_key_of_another_is_trusted_as_the_other_is() {
        let first = authority(&["a.com"]);
        let hosts = ["a.com".parse().unwrap()];
        let second = Authority::new(hosts.iter(), Some(&first.key())).unwrap();
        assert!(is_trusted_by(&first, &second, "a.com"));
        assert!(!is_trusted_by(&authority(&["a.com"]), &second, "a.com"));
        let no_key = Secret::made(b"no key".to_vec());
        assert!(Authority::new(hosts.iter(), Some(&no_key)).is_err());
    }

    #[test]
    fn a_host_has_one_certificate_and_not_too_many_are_kept() {
        let authority = authority(&["*.example.com"]);
        let certify = |host: &str| authority.certify(&host.parse().unwrap()).unwrap();
        let first = certify("a.example.com");
        assert!(Arc::ptr_eq(&first, &certify("a.example.com")));
        for number in 0..KEPT {
            certify(&format!("b{number}.example.com"));
        }
        assert_eq!(authority.made.borrow().len(), KEPT);
        assert!(!Arc::ptr_eq(&first, &certify("a.example.com")));
    }
}
