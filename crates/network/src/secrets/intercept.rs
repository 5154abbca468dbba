//! Owns a connection to a host that gets secrets, from the guest's first bytes to the end: both ends of TLS.
//!
//! ```text
//!   guest's first message ──▶ host: TLS, verified ──▶ guest: TLS, the same protocol as the host's ──▶ HTTP (serve)
//!                                  │ failed
//!                                  └──▶ guest: TLS all the same, each request answered with the reason
//! ```
//! What speaks something else than HTTP over TLS to such a host is refused: there is nowhere to put a secret in, and no way to tell.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::server::{Acceptor, NoServerSessionStorage};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ServerConfig};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::{LazyConfigAcceptor, TlsConnector, client};

use super::event::What;
use super::{AuthorityError, Link, Secrets, raw, serve};
use crate::policy::Name;

/// How long each side may take until TLS is agreed upon.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a reason may be.
const WHY_MAX: usize = 400;
const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// Whom a guest talks to.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The host, as the guest said it.
    pub(crate) name: Name,
    /// Whether it begins with TLS.
    pub(crate) tls: bool,
}

/// Why a connection did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InterceptError {
    /// The guest's TLS.
    #[error("the guest's TLS failed")]
    Guest(#[source] io::Error),
    /// The guest did not go on.
    #[error("the guest's TLS took longer than {} seconds", HANDSHAKE.as_secs())]
    Late,
    /// The first message is for another host.
    #[error("the TLS server's name is not the one that the connection is for")]
    Name,
    /// The guest wants something else than HTTP.
    #[error("the TLS client speaks no HTTP, where a secret could be put in")]
    Protocol,
    /// There is no certificate to show.
    #[error("there is no certificate for the host")]
    Certificate(#[from] AuthorityError),
    /// TLS could not be set up.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    /// One of both sides broke it off, or spoke no HTTP.
    #[error("HTTP was broken off")]
    Http(#[from] hyper::Error),
}

/// Carries a connection of the guest's to a host that gets secrets. `guest` has what the guest sends, from its first byte, and
/// `host` is connected. Dropping it ends both.
pub(crate) async fn intercept(
    secrets: Rc<Secrets>,
    guest: UnixStream,
    host: TcpStream,
    target: Target,
) -> Result<(), InterceptError> {
    // It is never closed.
    let _one_of_them = secrets.connections.acquire().await;
    let link = Link::new(Rc::clone(&secrets), target.name);
    if !target.tls {
        raw::plain(&link, guest, host).await;
        return Ok(());
    }
    let hello = LazyConfigAcceptor::new(Acceptor::default(), guest);
    let guest = in_time(hello).await?.map_err(InterceptError::Guest)?;
    let hello = guest.client_hello();
    let name = hello.server_name().map(|name| Name::from_wire(name.as_bytes()));
    if name.as_ref() != Some(&Ok(link.host.clone())) {
        return Err(InterceptError::Name);
    }
    let offered: Option<Vec<Vec<u8>>> = hello.alpn().map(|all| all.map(<[u8]>::to_vec).collect());
    let key = secrets.authority.certify(&link.host)?;
    let both = [HTTP2, HTTP1].map(<[u8]>::to_vec);
    let protocols: Vec<Vec<u8>> =
        both.iter().filter(|one| offered.iter().flatten().any(|other| other == *one)).cloned().collect();
    if offered.is_some() && protocols.is_empty() {
        // TLS has an alert for it.
        _ = in_time(guest.into_stream(server_config(key, both.to_vec())?)).await?;
        return Err(InterceptError::Protocol);
    }
    let host = connect(&secrets, &link.host, host, protocols.clone()).await;
    let protocol = match &host {
        Ok(host) => host.get_ref().1.alpn_protocol().map(<[u8]>::to_vec),
        Err(why) => {
            link.tell(None, What::Unverified(why.clone()));
            protocols.last().cloned()
        }
    };
    let host = host.map_err(|why| format!("{} cannot be trusted with a secret: {why}", link.host));
    let config = server_config(key, protocol.into_iter().collect())?;
    let guest = in_time(guest.into_stream(config)).await?.map_err(InterceptError::Guest)?;
    Ok(serve::serve(link, guest, host).await?)
}

async fn in_time<T>(work: impl Future<Output = T>) -> Result<T, InterceptError> {
    timeout(HANDSHAKE, work).await.map_err(|_| InterceptError::Late)
}

/// Agrees upon TLS with the host, or says why not.
async fn connect(
    secrets: &Secrets,
    name: &Name,
    host: TcpStream,
    protocols: Vec<Vec<u8>>,
) -> Result<client::TlsStream<TcpStream>, String> {
    let name = ServerName::try_from(name.to_string()).map_err(|error| error.to_string())?;
    // What is sent is small, and is waited for.
    _ = host.set_nodelay(true);
    let mut config = ClientConfig::clone(&secrets.client);
    config.alpn_protocols = protocols;
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, host);
    match timeout(HANDSHAKE, connecting).await {
        // A certificate's names are in it, of which there may be many.
        Ok(connected) => connected.map_err(|error| error.to_string().chars().take(WHY_MAX).collect()),
        Err(_) => Err(format!("TLS took longer than {} seconds", HANDSHAKE.as_secs())),
    }
}

fn server_config(
    key: Arc<CertifiedKey>,
    protocols: Vec<Vec<u8>>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    config.alpn_protocols = protocols;
    // Nothing is worth resuming: the host's end would be agreed upon anew.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}
