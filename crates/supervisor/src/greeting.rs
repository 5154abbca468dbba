//! How a client's session begins on our side, and how a call of it is served.

use std::io;

use cellule_protocol::call;
use cellule_protocol::mux::MuxStream;
use cellule_protocol::preface::{Preface, Scanner, Side, VERSIONS};
use cellule_protocol::supervisor::v1::supervisor_server::{Supervisor, SupervisorServer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// A client sends its preface first; what is longer and holds none comes from something else.
const NOISE: usize = 64 << 10;

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

/// Serves the call on one stream.
pub(crate) async fn serve(stream: MuxStream, service: impl Supervisor) {
    // Its failure is the client's to notice.
    _ = call::serve::serve(stream, SupervisorServer::new(service)).await;
}
