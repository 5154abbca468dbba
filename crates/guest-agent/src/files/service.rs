//! Owns the calls on files: who does what is asked, and where.

use std::pin::Pin;
use std::sync::Arc;

use cellule_protocol::v1;
use cellule_protocol::v1::read_event::Event;
use cellule_protocol::v1::{FileInfo, FilesDone, ReadEvent};
use futures::{Stream, stream};
use tokio::sync::mpsc;
use tonic::{Code, Request, Response, Status};

use super::failure::Failure;
use super::list::Listing;
use super::pack::Packing;
use super::path::GuestPath;
use super::pump::{Source, receive, send};
use super::read::Reading;
use super::unpack::Unpacking;
use super::watch::Events;
use super::workers::{Stop, Workers};
use super::write::Writing;
use super::{change, copy, remove};
use crate::session::{Agent, Session};

/// Events of a transfer: it began, it ended.
const EVENTS: usize = 2;

/// Serves the calls of one session.
#[derive(Debug)]
pub(crate) struct Service {
    agent: Arc<Agent>,
    session: Arc<Session>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Answer<T> = Result<Response<T>, Status>;

impl Service {
    pub(crate) fn new(agent: Arc<Agent>, session: Arc<Session>) -> Self {
        Self { agent, session }
    }

    fn workers(&self) -> Result<&Arc<Workers>, Failure> {
        if self.agent.has_root() {
            Ok(&self.agent.workers)
        } else {
            Err(Failure::new(Code::FailedPrecondition, "this machine has no root filesystem"))
        }
    }

    async fn step<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Answer<T> {
        Ok(Response::new(self.workers()?.step(work).await?))
    }

    async fn done(&self, work: impl FnOnce() -> Result<(), Failure> + Send + 'static) -> Answer<FilesDone> {
        self.step(move || work().map(|()| FilesDone {})).await
    }

    async fn job(
        &self,
        work: impl FnOnce(&Stop) -> Result<(), Failure> + Send + 'static,
    ) -> Answer<FilesDone> {
        self.workers()?.job(work).await?;
        Ok(Response::new(FilesDone {}))
    }

    /// Opens a source and sends it on the stream of its transfer.
    async fn transfer<S: Source>(
        &self,
        id: u64,
        open: impl FnOnce() -> Result<(S, FileInfo), Failure> + Send + 'static,
    ) -> Answer<Answers<ReadEvent>> {
        let workers = Arc::clone(self.workers()?);
        // First, so that it ends with whatever fails.
        let stream = self.session.transfers.take(id).await?;
        let (source, info) = workers.step(open).await?;
        let (events, receiver) = mpsc::channel(EVENTS);
        tokio::spawn(async move {
            let event = |event| Ok(ReadEvent { event: Some(event) });
            let transfer = async {
                let _told = events.send(event(Event::Opened(info))).await;
                let last = match send(&workers, source, stream).await {
                    Ok(count) => event(Event::Done(count)),
                    Err(failure) => Err(failure.into()),
                };
                let _told = events.send(last).await;
            };
            tokio::select! {
                () = transfer => {}
                // The call was given up.
                () = events.closed() => {}
            }
        });
        Ok(Response::new(received(receiver)))
    }
}

#[async_trait::async_trait]
impl v1::files_server::Files for Service {
    type ReadStream = Answers<ReadEvent>;
    type ListStream = Answers<v1::ListResponse>;
    type TarOutStream = Answers<ReadEvent>;
    type WatchStream = Answers<v1::WatchEvent>;

    async fn read(&self, request: Request<v1::ReadRequest>) -> Answer<Self::ReadStream> {
        let v1::ReadRequest { transfer_id, path, offset, length } = request.into_inner();
        let open = move || Reading::open(GuestPath::new("read", path)?, offset, length);
        self.transfer(transfer_id, open).await
    }

    async fn write(&self, request: Request<v1::WriteRequest>) -> Answer<v1::WriteResponse> {
        let mut request = request.into_inner();
        let workers = self.workers()?;
        let id = request.transfer_id;
        let mut stream = self.session.transfers.take(id).await?;
        let path = GuestPath::new("write", std::mem::take(&mut request.path))?;
        let writing = workers.step(move || Writing::begin(path, &request)).await?;
        let writing = receive(workers, writing, &mut stream).await?;
        let bytes = workers.step(move || writing.finish()).await?;
        Ok(Response::new(v1::WriteResponse { bytes }))
    }

    async fn stat(&self, request: Request<v1::StatRequest>) -> Answer<v1::StatResponse> {
        let request = request.into_inner();
        self.step(move || change::stat(request)).await
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Answer<Self::ListStream> {
        let path = GuestPath::new("list", request.into_inner().path)?;
        let workers = Arc::clone(self.workers()?);
        let listing = workers.step(move || Listing::open(path)).await?;
        // One batch after another, when the one before was taken.
        let batches = stream::unfold(Some(listing), move |listing| {
            let workers = Arc::clone(&workers);
            async move {
                let mut listing = listing?;
                let step = move || {
                    let batch = listing.batch()?;
                    Ok((batch, listing))
                };
                match workers.step(step).await {
                    Ok((batch, listing)) => batch.map(|batch| (Ok(batch), Some(listing))),
                    Err(failure) => Some((Err(failure.into()), None)),
                }
            }
        });
        Ok(Response::new(Box::pin(batches)))
    }

    async fn make_directory(&self, request: Request<v1::MakeDirectoryRequest>) -> Answer<FilesDone> {
        let request = request.into_inner();
        self.done(move || change::make_directory(request)).await
    }

    async fn remove(&self, request: Request<v1::RemoveRequest>) -> Answer<FilesDone> {
        let v1::RemoveRequest { path, recursive } = request.into_inner();
        let path = GuestPath::new("remove", path)?;
        self.job(move |stop| remove::remove(&path, recursive, stop)).await
    }

    async fn rename(&self, request: Request<v1::RenameRequest>) -> Answer<FilesDone> {
        let request = request.into_inner();
        self.done(move || change::rename(request)).await
    }

    async fn copy(&self, request: Request<v1::CopyRequest>) -> Answer<FilesDone> {
        let v1::CopyRequest { from, to, recursive } = request.into_inner();
        let (from, to) = (GuestPath::new("copy", from)?, GuestPath::new("copy", to)?);
        self.job(move |stop| copy::copy(&from, &to, recursive, stop)).await
    }

    async fn set_mode(&self, request: Request<v1::SetModeRequest>) -> Answer<FilesDone> {
        let request = request.into_inner();
        self.done(move || change::set_mode(request)).await
    }

    async fn set_owner(&self, request: Request<v1::SetOwnerRequest>) -> Answer<FilesDone> {
        let request = request.into_inner();
        self.done(move || change::set_owner(request)).await
    }

    async fn symlink(&self, request: Request<v1::SymlinkRequest>) -> Answer<FilesDone> {
        let v1::SymlinkRequest { target, path } = request.into_inner();
        self.done(move || change::symlink(&target, path)).await
    }

    async fn read_link(&self, request: Request<v1::ReadLinkRequest>) -> Answer<v1::ReadLinkResponse> {
        let path = request.into_inner().path;
        self.step(move || change::read_link(path)).await
    }

    async fn tar_out(&self, request: Request<v1::TarOutRequest>) -> Answer<Self::TarOutStream> {
        let v1::TarOutRequest { transfer_id, path, name, follow } = request.into_inner();
        let open = move || Packing::open(GuestPath::new("pack", path)?, name, follow);
        self.transfer(transfer_id, open).await
    }

    async fn tar_in(&self, request: Request<v1::TarInRequest>) -> Answer<v1::TarInResponse> {
        let v1::TarInRequest { transfer_id, path, owner, keep_kinds } = request.into_inner();
        let workers = self.workers()?;
        let owner = owner.map(|owner| (owner.uid, owner.gid));
        let mut stream = self.session.transfers.take(transfer_id).await?;
        let begin = move || Unpacking::open(&GuestPath::new("unpack into", path)?, owner, keep_kinds);
        let unpacking = workers.step(begin).await?;
        let unpacking = receive(workers, unpacking, &mut stream).await?;
        let (entries, bytes) = workers.step(move || unpacking.finish()).await?;
        Ok(Response::new(v1::TarInResponse { entries, bytes }))
    }

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Answer<Self::WatchStream> {
        let v1::WatchRequest { path, recursive } = request.into_inner();
        let path = GuestPath::new("watch", path)?;
        let events = Events::begin(Arc::clone(self.workers()?), path, recursive).await?;
        // The kernel keeps what comes while nobody asks.
        let events = stream::unfold(events, |mut events| async move {
            let event = events.next().await?;
            Some((event.map_err(Status::from), events))
        });
        Ok(Response::new(Box::pin(events)))
    }
}

/// The messages of a channel, until its last sender is gone.
fn received<T: Send + 'static>(mut receiver: mpsc::Receiver<Result<T, Status>>) -> Answers<T> {
    Box::pin(stream::poll_fn(move |cx| receiver.poll_recv(cx)))
}
