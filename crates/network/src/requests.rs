//! Owns HTTP in the clear where names are held to the rules: not only the first request of a connection is, but each, by the rules
//! as they are when it comes.
//!
//! ```text
//!   guest ── request ──▶ its host is held to the rules ──▶ host
//!                             │ refused
//!                             └──▶ 403 with the reason, and the connection is over
//! ```
//! What goes out is written anew from what was read, so that a host cannot find other requests in it than those that were held to
//! the rules. Nothing is kept but what is on its way: who does not read makes the other side wait.
//!
//! A connection may become something else (WebSocket), whose bytes pass as they are. It may not become something in which there
//! are requests that nobody here could read, like HTTP/2: a guest's offers of that are left out.

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use http_body_util::{Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1 as client;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING, UPGRADE,
};
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::inspect::{self, Refused};
use crate::policy::Name;

/// How long the head of a request or an answer may be; and how long at least, however small the guest's window is.
const HEAD_MAX: usize = 64 << 10;
const HEAD_MIN: usize = 16 << 10;
/// How many fields it may have.
const FIELDS_MAX: usize = 256;
/// How long a guest may go on with what it had begun to send, after its last answer.
const LINGER: Duration = Duration::from_secs(2);

/// Why a connection is over, where that is not a matter of one of its ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// A request is not let through.
    Refused(Refused),
    /// The host broke it off, which is not to be taken for its end.
    Broken,
}

/// Says why a request for a host, or for none that has a name, is refused.
type Judge = Box<dyn Fn(Option<&Name>) -> Result<(), String>>;
type Told = Rc<RefCell<Option<Ending>>>;
type Answer = Response<Either<Incoming, Full<Bytes>>>;
type Broken = Box<dyn Error + Send + Sync>;

/// The requests of a connection on their way. They end with this.
#[derive(Debug)]
pub(crate) struct Requests {
    task: JoinHandle<()>,
    told: Told,
}

impl Requests {
    /// Carries requests from the guest to the host, and answers back. `guest` has what the guest sends, from its first byte; `window` is
    /// what it may send at a time; `judge` says why a request for a host, or for none that has a name, is refused.
    pub(crate) fn carry<H: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        guest: UnixStream,
        host: H,
        window: usize,
        judge: impl Fn(Option<&Name>) -> Result<(), String> + 'static,
    ) -> Self {
        let told = Told::default();
        let tell = Rc::clone(&told);
        let task = tokio::task::spawn_local(async move {
            if let Err(error) = carry(guest, host, window, Box::new(judge), &tell).await {
                tell.borrow_mut().get_or_insert_with(|| {
                    tracing::debug!(%error, "requests ended");
                    Ending::Broken
                });
            }
        });
        Self { task, told }
    }

    /// Why it is over, if that is known.
    pub(crate) fn ending(&self) -> Option<Ending> {
        self.told.borrow().clone()
    }

    /// Whether the host has broken it off.
    pub(crate) fn is_broken(&self) -> bool {
        matches!(*self.told.borrow(), Some(Ending::Broken))
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        // The host may be waited for without an end, by a guest that is long gone.
        self.task.abort();
    }
}

/// What the requests of a connection share.
struct Exchange {
    judge: Judge,
    host: Mutex<client::SendRequest<Incoming>>,
    told: Told,
    /// Something else than HTTP was asked for.
    is_upgrading: Cell<bool>,
    /// Both ends, once they are something else.
    upgraded: RefCell<Option<(OnUpgrade, OnUpgrade)>>,
}

/// Carries requests until one of both sides has ended. It fails only if the host broke off.
async fn carry<H: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    guest: UnixStream,
    host: H,
    window: usize,
    judge: Judge,
    told: &Told,
) -> Result<(), Broken> {
    let head_max = window.clamp(HEAD_MIN, HEAD_MAX);
    let (sender, host) = client::Builder::new()
        .preserve_header_case(true)
        .max_headers(FIELDS_MAX)
        .max_header_size(head_max)
        .max_buf_size(head_max)
        // What a careless server says harms nobody: it is written anew.
        .allow_spaces_after_header_name_in_responses(true)
        .allow_obsolete_multiline_headers_in_responses(true)
        .ignore_invalid_headers_in_responses(true)
        .handshake(TokioIo::new(host))
        .await?;
    let exchange = Rc::new(Exchange {
        judge,
        host: Mutex::new(sender),
        told: Rc::clone(told),
        is_upgrading: Cell::default(),
        upgraded: RefCell::default(),
    });
    let shared = Rc::clone(&exchange);
    let mut guest = server::Builder::new()
        .auto_date_header(false)
        .half_close(true)
        .preserve_header_case(true)
        .header_read_timeout(None)
        .max_headers(FIELDS_MAX)
        .max_header_size(head_max)
        .max_buf_size(head_max)
        .serve_connection(TokioIo::new(guest), service_fn(move |request| Rc::clone(&shared).answer(request)))
        .with_upgrades();
    let (mut host, mut host_ended) = (Box::pin(host.with_upgrades()), None);
    let served = loop {
        tokio::select! {
            served = &mut guest => break served,
            ended = &mut host, if host_ended.is_none() => {
                host_ended = Some(ended);
                // An upgrade ends the host's HTTP as well, before the guest has heard of it.
                if !exchange.is_upgrading.get() {
                    std::pin::Pin::new(&mut guest).graceful_shutdown();
                }
            }
        }
    };
    if let Err(error) = &served
        && error.is_parse()
    {
        exchange.refuse((None, "a request cannot be read".to_owned()));
    }
    if let Some((to_guest, to_host)) = exchange.upgraded.take() {
        served?;
        if host_ended.is_none() {
            host.await?;
        }
        let (guest, host) = futures::future::try_join(to_guest, to_host).await?;
        let (mut guest, mut host) = (TokioIo::new(guest), TokioIo::new(host));
        return unless_ended(tokio::io::copy_bidirectional(&mut guest, &mut host).await);
    }
    unless_ended(host_ended.unwrap_or(Ok(())))?;
    unless_ended(served)?;
    // Nothing goes there any more.
    drop(host);
    if let Some(parts) = guest.into_parts() {
        linger(parts.io.into_inner()).await;
    }
    Ok(())
}

/// A failure, if it is a reset. What else ends a connection is an end.
fn unless_ended<T, E: Into<Broken>>(result: Result<T, E>) -> Result<(), Broken> {
    let Err(error) = result.map_err(Into::into) else { return Ok(()) };
    let mut cause: Option<&(dyn Error + 'static)> = Some(&*error);
    while let Some(error) = cause {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if kind == Some(io::ErrorKind::ConnectionReset) {
            return Err(io::Error::from(io::ErrorKind::ConnectionReset).into());
        }
        cause = error.source();
    }
    Ok(())
}

/// Ends the guest's connection, and waits until it has heard of that: who is cut off while it sends may lose what it was sent.
async fn linger(mut guest: UnixStream) {
    _ = guest.shutdown().await;
    let mut buffer = vec![0; 4 << 10];
    let heard = async { while matches!(guest.read(&mut buffer).await, Ok(1..)) {} };
    _ = timeout(LINGER, heard).await;
}

impl Exchange {
    async fn answer(self: Rc<Self>, mut request: Request<Incoming>) -> Result<Answer, Broken> {
        if let Err(refused) = self.hold(&request) {
            return Ok(self.refuse(refused));
        }
        leave_out_hidden(request.headers_mut());
        let wants_upgrade = request.version() == Version::HTTP_11 && request.headers().contains_key(UPGRADE);
        let guest = wants_upgrade.then(|| hyper::upgrade::on(&mut request));
        self.is_upgrading.set(wants_upgrade);
        let mut sender = self.host.lock().await;
        sender.ready().await?;
        let mut response = match sender.send_request(request).await {
            Ok(response) => response,
            Err(error) if error.is_parse() => {
                self.is_upgrading.set(false);
                return Ok(answer(StatusCode::BAD_GATEWAY, "the server's answer cannot be read"));
            }
            Err(error) => return Err(error.into()),
        };
        let is_upgrade = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        self.is_upgrading.set(is_upgrade);
        if is_upgrade {
            let guest = guest.ok_or("the server switched protocols, which nobody had asked for")?;
            self.upgraded.replace(Some((guest, hyper::upgrade::on(&mut response))));
        }
        if response.headers().contains_key(TRANSFER_ENCODING) {
            response.headers_mut().remove(CONTENT_LENGTH);
        }
        Ok(response.map(Either::Left))
    }

    /// Holds a request to the rules, and to what makes it one that everybody reads in the same way.
    fn hold(&self, request: &Request<Incoming>) -> Result<(), Refused> {
        let refused = |why: &str| Err((None, why.to_owned()));
        if request.method() == Method::CONNECT {
            return refused("CONNECT is not passed on, since what it leads to cannot be held to the rules");
        }
        let authority = request.uri().authority().map(|authority| authority.as_str().as_bytes());
        let headers = request.headers();
        let Ok(host) = inspect::host(authority, headers.get_all(HOST).iter().map(HeaderValue::as_bytes))
        else {
            return refused("the request names several hosts, or none that can be read");
        };
        if is_coded(headers) {
            return refused("the request's transfer coding is another than chunked");
        }
        (self.judge)(host.as_ref()).map_err(|why| (host, why))
    }

    fn refuse(&self, refused: Refused) -> Answer {
        let answer = answer(StatusCode::FORBIDDEN, &refused.1);
        self.told.replace(Some(Ending::Refused(refused)));
        answer
    }
}

/// Whether a body was encoded for the way alone, in another form than pieces.
pub(crate) fn is_coded(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let is_chunked = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    !codings.next().is_none_or(is_chunked) || codings.next().is_some()
}

/// Leaves out the offer to become something in which there are requests that nobody here could read. A server goes on with HTTP/1.1 then.
fn leave_out_hidden(headers: &mut HeaderMap) {
    let is_hidden = |protocol: &str| {
        let protocol = protocol.trim().to_ascii_lowercase();
        let name = protocol.split('/').next().unwrap_or_default();
        matches!(name, "h2" | "h2c" | "http" | "tls")
    };
    let hides = |value: &HeaderValue| value.to_str().map_or(true, |value| value.split(',').any(is_hidden));
    if headers.get_all(UPGRADE).iter().any(hides) {
        headers.remove(UPGRADE);
        headers.remove("http2-settings");
    }
}

/// An answer from here, the last one of the connection.
fn answer(status: StatusCode, why: &str) -> Answer {
    let mut response = Response::new(Either::Right(Full::from(format!("cellule: {why}\n"))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

#[cfg(test)]
mod tests;
