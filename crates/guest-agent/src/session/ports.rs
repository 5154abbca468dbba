//! Owns connections from a host to ports on the guest's own loopback.
//!
//! ```text
//!   stream ──▶ connecting ──┬─▶ 0, then bytes both ways ──▶ both ends passed on, or a cut on either side that cuts the other
//!                           └─▶ an error's number, then the end
//! ```

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use cellule_protocol::mux::MuxStream;
use cellule_protocol::pass_through::{Passable, pass_through};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// Connections of one session at a time.
const MAX_PORTS: usize = 256;
/// What is read ahead of a side that writes slowly: twice as much for each connection, of the guest's own memory.
const AHEAD: usize = 32 << 10;
/// How long a connection may take. A program that has no room for one more makes it wait.
const WITHIN: Duration = Duration::from_secs(10);

/// The places for connections.
#[derive(Debug)]
pub(super) struct Ports(Semaphore);

impl Default for Ports {
    fn default() -> Self {
        Self(Semaphore::new(MAX_PORTS))
    }
}

impl Ports {
    /// Connects a stream to a port, and sees to it until either is done.
    pub(super) async fn connect(&self, port: u64, mut stream: MuxStream) {
        let connected = match (self.0.try_acquire(), u16::try_from(port)) {
            (Ok(place), Ok(port)) => connect(port).await.map(|connection| (place, connection)),
            (Ok(_), Err(_)) => Err(libc::EINVAL),
            (Err(_), _) => Err(libc::EAGAIN),
        };
        match connected {
            Ok((_place, connection)) => {
                // Whatever fails is told by dropping both.
                if stream.write_all(&[0]).await.is_ok() && stream.flush().await.is_ok() {
                    let _cut = pass_through(stream, Connection(connection), AHEAD).await;
                }
            }
            Err(number) => {
                // No error of Linux's is larger.
                let number = u8::try_from(number).unwrap_or(u8::MAX);
                if stream.write_all(&[number]).await.is_ok() {
                    let _gone = stream.shutdown().await;
                }
            }
        }
    }
}

/// Connects, over IPv6 where a program listens there alone, or gives an error's number.
async fn connect(port: u16) -> Result<TcpStream, i32> {
    let mut refused = libc::ECONNREFUSED;
    for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        match tokio::time::timeout(WITHIN, TcpStream::connect((address, port))).await {
            Ok(Ok(connection)) => {
                // What a host writes in pieces is meant so. It costs nothing to fail.
                let _delayed = connection.set_nodelay(true);
                return Ok(connection);
            }
            // A kernel without IPv6 says something else of the second.
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Ok(Err(_)) if address.is_ipv6() => {}
            Ok(Err(error)) => return Err(error.raw_os_error().unwrap_or(libc::EIO)),
            Err(_) => refused = libc::ETIMEDOUT,
        }
    }
    Err(refused)
}

/// A connection whose cut is an error and whose end is none.
struct Connection(TcpStream);

impl Passable for Connection {
    fn is_closed(&self) -> bool {
        false
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
