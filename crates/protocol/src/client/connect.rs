//! Owns the search for the agent's answer to a preface.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};

use super::ConnectError;
use crate::preface::{FILLER, Preface, Scanner, Side, VERSIONS};

/// How long the first preface may stay unanswered. A repetition only helps where an earlier session ended inside a frame
/// and the guest did not notice; for a guest that still boots it is so much to skip.
const REPEAT_AFTER: Duration = Duration::from_secs(10);

/// Bytes of an earlier session that may precede the answer: what its streams' windows and the port could hold.
const MAX_STALE: u64 = 64 * 1024 * 1024;

/// Greets the agent on `io` until it answers, once or again and again; afterwards the next byte belongs to the session.
pub(super) async fn preface<T>(io: &mut T, limit: Duration, repeat: bool) -> Result<(), ConnectError>
where
    T: AsyncBufRead + AsyncWrite + Unpin,
{
    let deadline = Instant::now() + limit;
    let mut discarded = 0;
    let mut repeat_after = REPEAT_AFTER;
    let mut filler = 0;
    loop {
        let wanted = Preface { versions: VERSIONS, nonce: nonce()? };
        let until = if repeat { deadline.min(Instant::now() + repeat_after) } else { deadline };
        match timeout_at(until, attempt(io, &wanted, filler, &mut discarded)).await {
            Ok(answer) => {
                let agent = answer?.versions;
                let served =
                    Preface { versions: agent.clone(), nonce: wanted.nonce }.shared_version(&VERSIONS);
                return match served {
                    Some(_) => Ok(()),
                    None => Err(ConnectError::Incompatible { host: VERSIONS, agent }),
                };
            }
            Err(_) if until == deadline => return Err(ConnectError::NoAnswer { within: limit, discarded }),
            // A write that was cut off is a frame that ended early, as any earlier session's: the filler covers it.
            Err(_) => {
                repeat_after *= 2;
                filler = FILLER;
            }
        }
    }
}

async fn attempt<T>(
    io: &mut T,
    wanted: &Preface,
    filler: usize,
    discarded: &mut u64,
) -> Result<Preface, ConnectError>
where
    T: AsyncBufRead + AsyncWrite + Unpin,
{
    let mut greeting = vec![0xFF; filler];
    greeting.extend(wanted.encode(Side::Host));
    let mut unsent = greeting.as_slice();
    let mut scanner = Scanner::new(Side::Agent);
    // Both directions at once: an agent that is busy sending what nobody wants any more must not block the greeting.
    poll_fn(|cx| {
        while !unsent.is_empty() {
            match Pin::new(&mut *io).poll_write(cx, unsent)? {
                Poll::Ready(sent) => unsent = &unsent[sent..],
                Poll::Pending => break,
            }
        }
        if unsent.is_empty() {
            let _either_way = Pin::new(&mut *io).poll_flush(cx)?;
        }
        loop {
            let came = ready!(Pin::new(&mut *io).poll_fill_buf(cx))?;
            if came.is_empty() {
                return Poll::Ready(Err(ConnectError::HungUp));
            }
            let len = came.len();
            for (at, byte) in came.iter().enumerate() {
                if let Some(found) = scanner.push(*byte)
                    && found.nonce == wanted.nonce
                {
                    Pin::new(&mut *io).consume(at + 1);
                    return Poll::Ready(Ok(found));
                }
            }
            Pin::new(&mut *io).consume(len);
            *discarded += len as u64;
            if *discarded > MAX_STALE {
                return Poll::Ready(Err(ConnectError::NotAnAgent { discarded: *discarded }));
            }
        }
    })
    .await
}

fn nonce() -> Result<[u8; 16], ConnectError> {
    let mut nonce = [0; 16];
    rustix::rand::getrandom(&mut nonce, rustix::rand::GetRandomFlags::empty())
        .map_err(std::io::Error::from)?;
    Ok(nonce)
}
