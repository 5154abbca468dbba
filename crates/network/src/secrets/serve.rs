//! Owns HTTP on a connection that is looked into: one connection of the guest's, one to the host, of the same version.
//!
//! Both last as long as each other. A request that the host breaks off is broken off for the guest too, which so may try again as it
//! would without anybody between; what is refused here is answered with the reason.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use hyper::body::Incoming;
use hyper::client::conn::{http1 as client1, http2 as client2};
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue, UPGRADE};
use hyper::server::conn::{http1 as server1, http2 as server2};
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Mutex, oneshot};
use tokio::task::JoinSet;
use tokio_rustls::{client, server};

use super::Link;
use super::body::{Body, Broken};
use super::raw;
use super::request::{Prepared, Refusal, Stop, prepare};
use super::response::{scrub, swaps};

/// How long the head of a request or an answer may be.
const HEAD_MAX: usize = 64 << 10;
/// How many fields it may have.
const FIELDS_MAX: usize = 256;
/// Exchanges at a time on one connection with HTTP/2.
const STREAMS: u32 = 100;
/// What one of them, and all of a connection, may have sent without being read.
const STREAM_WINDOW: u32 = 128 << 10;
const WINDOW: u32 = 512 << 10;
/// What waits to be sent for each of them.
const SEND_BUFFER: usize = 64 << 10;

/// What carries the bytes of one side.
pub(super) trait Wire: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static {}

impl<T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static> Wire for T {}

/// Runs the parts of a connection, which end with it.
#[derive(Debug, Default)]
pub(super) struct Tasks(Rc<RefCell<JoinSet<()>>>);

/// Starts parts as long as the connection is there.
#[derive(Debug, Clone)]
struct Starter(Weak<RefCell<JoinSet<()>>>);

impl<F: Future + 'static> hyper::rt::Executor<F> for Starter {
    fn execute(&self, future: F) {
        let Some(tasks) = self.0.upgrade() else { return };
        let mut tasks = tasks.borrow_mut();
        // Those that have ended take room until they are asked for.
        while tasks.try_join_next().is_some() {}
        tasks.spawn_local(async move { drop(future.await) });
    }
}

/// The other side.
#[derive(Clone)]
enum Upstream {
    One(Rc<Mutex<client1::SendRequest<Body>>>),
    Two(client2::SendRequest<Body>),
    /// There is none, and why.
    Nobody(Rc<str>),
}

/// Both ends of a connection that is to become something else than HTTP.
type Upgraded = Rc<RefCell<Option<(OnUpgrade, OnUpgrade, Vec<super::replace::Swap>)>>>;

/// What the requests of a connection share.
#[derive(Clone)]
struct Exchange {
    link: Rc<Link>,
    upstream: Upstream,
    upgraded: Upgraded,
    /// Something else than HTTP was asked for.
    is_upgrading: Rc<Cell<bool>>,
}

/// Serves the guest until one of both sides has ended. Without a host there is a reason, which each request is answered with.
pub(super) async fn serve(
    link: Rc<Link>,
    guest: server::TlsStream<UnixStream>,
    host: Result<client::TlsStream<TcpStream>, String>,
) -> Result<(), hyper::Error> {
    let is_two = guest.get_ref().1.alpn_protocol() == Some(b"h2");
    serve_over(link, TokioIo::new(guest), host.map(TokioIo::new), is_two).await
}

/// The same, over whatever is between them.
pub(super) async fn serve_over(
    link: Rc<Link>,
    guest: impl Wire,
    host: Result<impl Wire, String>,
    is_two: bool,
) -> Result<(), hyper::Error> {
    let (tasks, (ended, host_ended)) = (Tasks::default(), oneshot::channel());
    let starter = Starter(Rc::downgrade(&tasks.0));
    let (upstream, _no_end) = match host {
        // Where nobody is, nobody ends.
        Err(why) => (Upstream::Nobody(why.into()), Some(ended)),
        Ok(host) => (connect(&starter, host, is_two, ended).await?, None),
    };
    let exchange = Exchange { link, upstream, upgraded: Rc::default(), is_upgrading: Rc::default() };
    if is_two {
        serve_two(starter, guest, exchange, host_ended).await
    } else {
        serve_one(guest, exchange, host_ended).await
    }
}

async fn connect(
    starter: &Starter,
    host: impl Wire,
    is_two: bool,
    ended: oneshot::Sender<()>,
) -> Result<Upstream, hyper::Error> {
    use hyper::rt::Executor;
    if is_two {
        let (sender, connection) = client2::Builder::new(starter.clone())
            .max_header_list_size(u32::try_from(HEAD_MAX).unwrap_or(u32::MAX))
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .handshake(host)
            .await?;
        starter.execute(async move {
            _ = connection.await;
            drop(ended);
        });
        return Ok(Upstream::Two(sender));
    }
    let (sender, connection) = client1::Builder::new()
        .preserve_header_case(true)
        .max_headers(FIELDS_MAX)
        .max_header_size(HEAD_MAX)
        .max_buf_size(2 * HEAD_MAX)
        .handshake(host)
        .await?;
    starter.execute(async move {
        _ = connection.with_upgrades().await;
        drop(ended);
    });
    Ok(Upstream::One(Rc::new(Mutex::new(sender))))
}

async fn serve_two(
    starter: Starter,
    guest: impl Wire,
    exchange: Exchange,
    mut host_ended: oneshot::Receiver<()>,
) -> Result<(), hyper::Error> {
    let service = service_fn(move |request| exchange.clone().answer(request));
    let connection = server2::Builder::new(starter)
        .auto_date_header(false)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(HEAD_MAX).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .serve_connection(guest, service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        _ = &mut host_ended => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

async fn serve_one(
    guest: impl Wire,
    exchange: Exchange,
    mut host_ended: oneshot::Receiver<()>,
) -> Result<(), hyper::Error> {
    let (upgraded, is_upgrading) = (Rc::clone(&exchange.upgraded), Rc::clone(&exchange.is_upgrading));
    let link = Rc::clone(&exchange.link);
    let service = service_fn(move |request| exchange.clone().answer(request));
    let connection = server1::Builder::new()
        .auto_date_header(false)
        .half_close(true)
        .preserve_header_case(true)
        .header_read_timeout(None)
        .max_headers(FIELDS_MAX)
        .max_header_size(HEAD_MAX)
        .max_buf_size(2 * HEAD_MAX)
        .serve_connection(guest, service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => ended?,
        _ = &mut host_ended => {
            // An upgrade ends the host's HTTP as well, before the guest has heard of it.
            if !is_upgrading.get() {
                connection.as_mut().graceful_shutdown();
            }
            connection.await?;
        }
    }
    let Some((guest, host, forms)) = upgraded.take() else { return Ok(()) };
    let (guest, host) = futures::future::try_join(guest, host).await?;
    raw::relay(&link, TokioIo::new(guest), TokioIo::new(host), swaps(&link, forms)).await;
    Ok(())
}

impl Exchange {
    async fn answer(self, mut request: Request<Incoming>) -> Result<Response<Body>, Broken> {
        let version = request.version();
        if let Upstream::Nobody(why) = &self.upstream {
            return Ok(refused(&Refusal::new(StatusCode::BAD_GATEWAY, &**why), version));
        }
        let wants_upgrade = version == Version::HTTP_11 && request.headers().contains_key(UPGRADE);
        let guest = wants_upgrade.then(|| hyper::upgrade::on(&mut request));
        self.is_upgrading.set(wants_upgrade);
        let Prepared { mut request, has_values, forms } = match prepare(&self.link, request).await {
            Ok(prepared) => prepared,
            Err(Stop::Refused(refusal)) => return Ok(refused(&refusal, version)),
            Err(Stop::Broken(error)) => return Err(error),
        };
        let mut response = match self.upstream {
            Upstream::One(sender) => {
                *request.version_mut() = Version::HTTP_11;
                let mut sender = sender.lock().await;
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Upstream::Two(mut sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Upstream::Nobody(why) => return Err(why.as_ref().into()),
        };
        let is_upgrade = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        self.is_upgrading.set(is_upgrade);
        if is_upgrade {
            let guest = guest.ok_or("the server switched protocols, which nobody had asked for")?;
            let host = hyper::upgrade::on(&mut response);
            self.upgraded.replace(Some((guest, host, forms.clone())));
        }
        let scrubbed = scrub(&self.link, response, forms, has_values).await?;
        Ok(scrubbed.unwrap_or_else(|refusal| refused(&refusal, version)))
    }
}

/// An answer from here.
fn refused(refusal: &Refusal, version: Version) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("cellule: {}\n", refusal.why)));
    *response.status_mut() = refusal.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if version != Version::HTTP_2 {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
