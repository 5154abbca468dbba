//! Owns what fuzz targets reach of secrets: the replacing itself, and HTTP on a connection without TLS around it.

use std::rc::Rc;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::DuplexStream;
use tokio::sync::Semaphore;

use super::authority::Authority;
use super::live::Live;
use super::replace::{Replacer, Swap};
use super::secret::Secret;
use super::source::Fetched;
use super::spec::{SecretSpec, Source};
use super::{CONNECTIONS, Entry, Link, ROOM, Secrets, serve};
use crate::policy::{Name, Pattern};

/// A secret, and the one host that gets it.
#[derive(Debug)]
pub struct Holder<'a> {
    /// What the guest has.
    pub placeholder: &'a str,
    /// What the host gets: at most 64 KiB, and not empty.
    pub value: &'a [u8],
    /// The host's name.
    pub host: &'a str,
    /// Whether bodies are looked through.
    pub in_body: bool,
}

fn swaps(texts: &[(&[u8], &[u8])]) -> Arc<[Swap]> {
    texts.iter().filter_map(|(from, to)| Swap::new(0, from, to)).collect()
}

/// A stream with texts replaced. After a piece that says so nothing comes for a while.
pub fn replaced(texts: &[(&[u8], &[u8])], pieces: &[(&[u8], bool)]) -> Vec<u8> {
    let mut replacer = Replacer::new(swaps(texts));
    let mut passed = Vec::new();
    for (piece, waits) in pieces {
        passed.extend(replacer.push(piece));
        if *waits {
            passed.extend(replacer.show());
        }
    }
    passed.extend(replacer.finish());
    passed
}

/// A text with others replaced in it.
pub fn replaced_whole(texts: &[(&[u8], &[u8])], text: &[u8]) -> Vec<u8> {
    Replacer::whole(swaps(texts), text).0
}

/// Serves a guest that is connected to the host of the first secret, with HTTP/1, in a set of local tasks.
///
/// # Panics
/// The secrets are not as they must be.
pub async fn connection(holders: &[Holder<'_>], guest: DuplexStream, host: DuplexStream) {
    let hosts: Vec<Pattern> =
        holders.iter().map(|holder| holder.host.parse().expect("a host is a pattern")).collect();
    let entries = holders.iter().zip(&hosts).map(|(holder, host)| Entry {
        spec: SecretSpec {
            name: "TOKEN".to_owned(),
            source: Source::Value,
            hosts: vec![host.clone()],
            in_body: holder.in_body,
        },
        placeholder: holder.placeholder.to_owned(),
        live: Live::new(Fetched {
            value: Secret::new(holder.value.to_vec()).expect("a value is not empty"),
            life: None,
        }),
    });
    // Nobody is connected to with it.
    let client = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("there are versions of TLS")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let secrets = Secrets {
        entries: entries.collect(),
        authority: Authority::new(hosts.iter(), None).expect("there is an authority"),
        client: Arc::new(client),
        report: Box::new(drop),
        connections: Semaphore::new(CONNECTIONS),
        room: Arc::new(Semaphore::new(ROOM)),
    };
    let name = Name::from_wire(holders[0].host.as_bytes()).expect("a host has a name");
    let link = Link::new(Rc::new(secrets), name);
    // Both sides break off as they like.
    _ = serve::serve_over(link, TokioIo::new(guest), Ok(TokioIo::new(host)), false).await;
}
