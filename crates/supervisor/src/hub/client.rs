//! One client's stream of a main program's input or output.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Semaphore, mpsc, watch};

use super::{CHUNK, Piece, Present, Sink, Stage};
use cellule_protocol::pass_through::Passable;

/// Tells whoever waits for this client that it is gone.
struct Leaving(Arc<Semaphore>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Writes to a client what comes for it. Returning without a shutdown cuts the stream.
pub(super) async fn output(
    mut stream: impl Passable,
    mut pieces: mpsc::UnboundedReceiver<Piece>,
    room: Arc<Semaphore>,
    present: Present,
) {
    let leaving = Leaving(room);
    // Nothing is expected of it, but a client that goes away shows here.
    let (mut unexpected, mut listening) = ([0; 64], true);
    loop {
        tokio::select! {
            piece = pieces.recv() => match piece {
                Some(Piece::Bytes(bytes)) => {
                    if stream.write_all(&bytes).await.is_err() || stream.flush().await.is_err() {
                        break;
                    }
                    leaving.0.add_permits(1);
                }
                Some(Piece::End) => {
                    _ = stream.shutdown().await;
                    break;
                }
                None => break,
            },
            read = stream.read(&mut unexpected), if listening => match read {
                Ok(0) if !stream.is_closed() => listening = false,
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            },
        }
    }
    drop(leaving);
    drop(stream);
    drop(present);
}

/// Writes what a client sends to the program's input, once there is one. `closes` if its end is the input's.
pub(super) async fn input(
    mut stream: impl Passable,
    sink: Sink,
    closes: bool,
    mut stage: watch::Receiver<Stage>,
    present: Present,
) {
    if stage.wait_for(|stage| *stage >= Stage::Flowing).await.is_ok() {
        tokio::select! {
            () = copy(&mut stream, &sink, closes) => {}
            // The program has ended, and reads nothing more.
            _ = stage.wait_for(|stage| *stage >= Stage::Draining) => {}
        }
    }
    drop(stream);
    drop(present);
}

async fn copy(stream: &mut impl Passable, sink: &Sink, closes: bool) {
    let mut buffer = vec![0; CHUNK];
    loop {
        match stream.read(&mut buffer).await {
            // A client that was cut off did not mean to end anything.
            Ok(0) if stream.is_closed() => return,
            Ok(0) => {
                if closes && let Some(mut sink) = sink.lock().await.take() {
                    _ = sink.shutdown().await;
                }
                _ = stream.shutdown().await;
                return;
            }
            Ok(length) => {
                let mut sink = sink.lock().await;
                let Some(open) = sink.as_mut() else { return };
                if open.write_all(&buffer[..length]).await.is_err() || open.flush().await.is_err() {
                    // The program closed its input. That is the client's to know, and every other's.
                    *sink = None;
                    return;
                }
            }
            Err(_) => return,
        }
    }
}
