//! Owns connections that are no HTTP that could be changed: without TLS, or become something else (WebSocket).
//!
//! Nothing is put in there. What a host sends is still looked into, and a value in it ends the connection: to replace it would break
//! whatever the bytes are.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::Link;
use super::body::STALLED;
use super::event::What;
use super::replace::{Replacer, Swap};

const BUFFER: usize = 16 << 10;

/// Carries bytes both ways until both have ended, or one has broken off.
pub(super) async fn relay(
    link: &Rc<Link>,
    guest: impl AsyncRead + AsyncWrite,
    host: impl AsyncRead + AsyncWrite,
    swaps: Arc<[Swap]>,
) {
    let ((from_guest, to_guest), (from_host, to_host)) = (tokio::io::split(guest), tokio::io::split(host));
    let guest = pass(from_guest, to_host, watch(link, &[]));
    let host = pass(from_host, to_guest, Held { link, replacer: Replacer::new(swaps) });
    // Whichever way broke off: there is nobody to tell why.
    _ = futures::future::try_join(guest, host).await;
}

/// Carries bytes of a connection without TLS, and tells which placeholders are in them.
pub(super) async fn plain(
    link: &Rc<Link>,
    guest: impl AsyncRead + AsyncWrite,
    host: impl AsyncRead + AsyncWrite,
) {
    let ((from_guest, to_guest), (from_host, to_host)) = (tokio::io::split(guest), tokio::io::split(host));
    let placeholders: Vec<Swap> = (link.secrets.entries.iter().enumerate())
        .filter_map(|(number, entry)| Swap::new(number, entry.placeholder.as_bytes(), b""))
        .collect();
    let guest = pass(from_guest, to_host, watch(link, &placeholders));
    let host = pass(from_host, to_guest, watch(link, &[]));
    _ = futures::future::try_join(guest, host).await;
}

/// What is done with bytes on their way.
trait Watch {
    /// What is passed on of a piece; an error ends the connection.
    fn take(&mut self, piece: &[u8]) -> io::Result<Vec<u8>>;
    /// What is left at the end.
    fn rest(&mut self) -> Vec<u8> {
        Vec::new()
    }
    /// Whether something waits that can be had by `show`.
    fn waits(&self) -> bool {
        false
    }
    fn show(&mut self) -> Vec<u8> {
        Vec::new()
    }
}

/// All bytes pass at once.
struct Passing<'a> {
    link: &'a Rc<Link>,
    replacer: Replacer,
}

fn watch<'a>(link: &'a Rc<Link>, placeholders: &[Swap]) -> Passing<'a> {
    Passing { link, replacer: Replacer::new(placeholders.into()) }
}

impl Watch for Passing<'_> {
    fn take(&mut self, piece: &[u8]) -> io::Result<Vec<u8>> {
        self.replacer.push(piece);
        if let Some(secret) = self.replacer.found() {
            self.link.tell(Some(secret), What::Plain);
        }
        Ok(piece.to_vec())
    }
}

/// Bytes pass once they can be no value.
struct Held<'a> {
    link: &'a Rc<Link>,
    replacer: Replacer,
}

impl Watch for Held<'_> {
    fn take(&mut self, piece: &[u8]) -> io::Result<Vec<u8>> {
        let passed = self.replacer.push(piece);
        match self.replacer.found() {
            None => Ok(passed),
            Some(secret) => {
                self.link.tell(Some(secret), What::Leaked);
                Err(io::ErrorKind::InvalidData.into())
            }
        }
    }

    fn rest(&mut self) -> Vec<u8> {
        self.replacer.finish()
    }

    fn waits(&self) -> bool {
        self.replacer.can_show()
    }

    fn show(&mut self) -> Vec<u8> {
        self.replacer.show()
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut watch: impl Watch,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer);
        let read = if watch.waits() { timeout(STALLED, read).await } else { Ok(read.await) };
        let Ok(count) = read else {
            to.write_all(&watch.show()).await?;
            to.flush().await?;
            continue;
        };
        let count = count?;
        if count == 0 {
            to.write_all(&watch.rest()).await?;
            return to.shutdown().await;
        }
        to.write_all(&watch.take(&buffer[..count])?).await?;
        to.flush().await?;
    }
}
