//! How a client's session begins on our side, and how its calls are served.

use std::io;

use cellule_protocol::mux::MuxStream;
use cellule_protocol::preface::{Preface, Scanner, Side, VERSIONS};
use cellule_protocol::supervisor::v1::supervisor_server::{Supervisor, SupervisorServer};
use hyper::server::conn::http2::Builder;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// A client sends its preface first; what is longer and holds none comes from something else.
const NOISE: usize = 64 << 10;
/// Calls that one client may have under way.
const CALLS: u32 = 32;

/// Waits for a client's preface and answers it.
pub(crate) async fn answer(io: &mut UnixStream) -> io::Result<()> {
    let mut scanner = Scanner::new(Side::Host);
    // Byte by byte, since what follows the preface belongs to the session.
    for _ in 0..NOISE {
        if let Some(preface) = scanner.push(io.read_u8().await?) {
            io.write_all(&Preface { versions: VERSIONS, nonce: preface.nonce }.encode(Side::Agent)).await?;
            return match preface.shared_version(&VERSIONS) {
                Some(_) => Ok(()),
                None => Err(io::Error::other("no version of the protocol is shared")),
            };
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

/// Serves the calls of one stream until it ends.
pub(crate) async fn serve(stream: MuxStream, service: impl Supervisor) {
    let service = TowerToHyperService::new(SupervisorServer::new(service));
    let connection = Builder::new(TokioExecutor::new())
        .max_concurrent_streams(CALLS)
        .serve_connection(TokioIo::new(stream), service);
    // Its errors are the client's to notice.
    _ = connection.await;
}
