//! Frames of yamux, with what goes over a session's streams inside.

use std::time::Duration;

use arbitrary::Arbitrary;
use cellule_protocol::stream::{StreamHeader, StreamKind};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::call::Piece;

/// What one side does, one step after the other.
#[derive(Debug, Arbitrary)]
pub enum Step {
    /// Sends pieces of a call on a stream of the multiplexer; few streams, mostly the first.
    Call { stream: u8, end: bool, pieces: Vec<Piece> },
    /// Opens a stream as a host does, with the first pieces of what goes over it.
    Open { stream: u8, kind: u8, exec_id: u8, call: bool, pieces: Vec<Piece> },
    /// Sends bytes on a stream, with flags: 1 opens, 2 agrees, 4 closes, 8 resets.
    Data { stream: u8, flags: u8, body: Vec<u8> },
    /// Any frame, whose length may lie.
    Frame { version: u8, kind: u8, flags: u8, stream: u32, length: u32, body: Vec<u8> },
    /// Gives room.
    Window { stream: u8, flags: u8, by: u32 },
    /// Asks for an answer.
    Ping { answer: bool, value: u32 },
    /// Ends the session.
    GoAway(u8),
    /// Anything.
    Bytes(Vec<u8>),
    /// Reads what has come.
    Read,
    /// Does nothing for a while.
    Wait(u16),
}

fn number(stream: u8) -> u32 {
    let odd = u32::from(stream % 6) * 2 + 1;
    match stream {
        0..=127 => 1,
        128..=247 => odd,
        248.. => odd - 1,
    }
}

fn frame(version: u8, kind: u8, flags: u8, stream: u32, length: u32, body: &[u8]) -> Vec<u8> {
    let head = [&[version, kind, 0, flags][..], &stream.to_be_bytes(), &length.to_be_bytes()].concat();
    [&head, body].concat()
}

fn data(flags: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    frame(0, 0, flags, stream, body.len() as u32, body)
}

impl Step {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Call { stream, end, pieces } => {
                let mut body = Vec::new();
                pieces.iter().for_each(|piece| piece.write(&mut body));
                data(if *end { 4 } else { 0 }, number(*stream), &body)
            }
            Self::Open { stream, kind, exec_id, call, pieces } => {
                let kinds = [
                    StreamKind::Calls,
                    StreamKind::Stdin,
                    StreamKind::Stdout,
                    StreamKind::Stderr,
                    StreamKind::Supervisor,
                ];
                let kind = if *call { StreamKind::Calls } else { kinds[usize::from(kind % 5)] };
                let header = StreamHeader { kind, id: (exec_id % 4).into() };
                let mut body = header.encode().to_vec();
                pieces.iter().for_each(|piece| piece.write(&mut body));
                data(1, number(*stream), &body)
            }
            Self::Data { stream, flags, body } => data(flags & 15, number(*stream), body),
            Self::Frame { version, kind, flags, stream, length, body } => {
                frame(version % 2, kind % 5, *flags, *stream, *length, body)
            }
            Self::Window { stream, flags, by } => frame(0, 1, flags & 15, number(*stream), *by, &[]),
            Self::Ping { answer, value } => frame(0, 2, 1 + u8::from(*answer), 0, *value, &[]),
            Self::GoAway(code) => frame(0, 3, 0, 0, u32::from(code % 4), &[]),
            Self::Bytes(bytes) => bytes.clone(),
            Self::Read | Self::Wait(_) => Vec::new(),
        }
    }
}

/// Plays the steps on `io`, until the other side hangs up.
pub async fn play(io: &mut (impl AsyncRead + AsyncWrite + Unpin), steps: &[Step]) {
    let mut sink = vec![0; 4096];
    for step in steps {
        let done = match step {
            Step::Read => {
                let read = tokio::time::timeout(Duration::from_millis(1), io.read(&mut sink)).await;
                !matches!(read, Ok(Ok(0) | Err(_)))
            }
            // All waits of a long input together are shorter than what its target takes for a hang.
            Step::Wait(ms) => {
                tokio::time::sleep(Duration::from_millis((*ms / 64).into())).await;
                true
            }
            // Both sides may be full, so this waits no longer than the other side would.
            step => {
                let sent = tokio::time::timeout(Duration::from_secs(60), io.write_all(&step.bytes())).await;
                matches!(sent, Ok(Ok(())))
            }
        };
        if !done {
            return;
        }
    }
}

/// Reads until the other side hangs up.
pub async fn drain(io: &mut (impl AsyncRead + Unpin)) {
    let mut sink = vec![0; 4096];
    while io.read(&mut sink).await.is_ok_and(|count| count > 0) {}
}
