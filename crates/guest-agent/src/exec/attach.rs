//! Owns the joining of streams to an exec: its owner's, and those of whoever attaches later.

use std::sync::Arc;

use cellule_protocol::mux::MuxStream;
use cellule_protocol::v1::exec_event::Event;
use cellule_protocol::v1::{AttachRequest, Attached, Dropped, ExecEvent};
use tokio::io::AsyncWriteExt;

use super::pump;
use super::ring::{Reader, Ring};
use super::{Events, Exec, tell};
use crate::session::Stdio;

/// Joins the streams of the call that made the exec, before anything was written.
pub(super) fn owner(exec: &Arc<Exec>, streams: Stdio, events: &Events) {
    feed(exec, streams.stdin);
    for (ring, stream, stderr) in
        [(Some(&exec.stdout), streams.stdout, false), (exec.stderr.as_ref(), streams.stderr, true)]
    {
        if let (Some(ring), Some(stream)) = (ring, stream) {
            let (reader, _) = ring.reader(0);
            tokio::spawn(pump::forward(Arc::new(reader), stream, events.downgrade(), stderr));
        }
    }
}

/// Joins the streams of an attachment from where it asks for them, and tells `events` until the exec's exit.
pub(crate) async fn attach(exec: Arc<Exec>, request: AttachRequest, streams: Stdio, events: Events) {
    let reader = |ring: Option<&Arc<Ring>>, offset| ring.map(|ring| ring.reader(offset));
    let stdout = reader(Some(&exec.stdout), request.stdout_offset);
    let stderr = reader(exec.stderr.as_ref(), request.stderr_offset);
    let from = |reader: &Option<(Reader, u64)>| reader.as_ref().map_or(0, |(_, from)| *from);
    let attached = Attached { stdout_from: from(&stdout), stderr_from: from(&stderr), pid: exec.pid() };
    tell(&events, Event::Attached(attached)).await;
    feed(&exec, streams.stdin);
    let mut readers = Vec::new();
    for (reader, stream, stderr) in [(stdout, streams.stdout, false), (stderr, streams.stderr, true)] {
        let Some(mut stream) = stream else { continue };
        let Some((reader, _)) = reader else {
            // What the exec does not have has ended.
            let _session_over = stream.shutdown().await;
            continue;
        };
        let reader = Arc::new(reader);
        readers.push((Arc::clone(&reader), stderr));
        tokio::spawn(pump::forward(reader, stream, events.downgrade(), stderr));
    }
    let end = async {
        let exited = exec.exited().await;
        for (reader, stderr) in readers {
            if reader.ring().is_lossless() {
                continue;
            }
            // Nothing is pushed out after this, so what was missed by now is all that ever will be.
            reader.ring().closed().await;
            if let Some(gap) = reader.skip_gap() {
                let dropped = Dropped { stderr, offset: gap.offset, bytes: gap.bytes };
                let _gone = events.send(Ok(ExecEvent { event: Some(Event::Dropped(dropped)) })).await;
            }
        }
        tell(&events, Event::Exited(exited)).await;
    };
    tokio::select! {
        () = end => {}
        // The exec goes on, and so do the streams until the host cuts them.
        () = events.closed() => {}
    }
}

/// Lets a stream write to the exec's standard input. Its end is the input's, and so is its cut, unless others may come.
fn feed(exec: &Arc<Exec>, stream: Option<MuxStream>) {
    let Some(stream) = stream else { return };
    // Without an input the stream is dropped, which says so.
    if exec.stdin.is_none() {
        return;
    }
    let exec = Arc::clone(exec);
    tokio::spawn(async move {
        let Some(stdin) = &exec.stdin else { return };
        let ended = stdin.feed(stream).await;
        if !exec.has_terminal() && (ended || !exec.is_detached()) {
            stdin.close();
        }
    });
}
