//! Owns the host's side of the guest's files.
//!
//! A call says what is to be done, and a stream of its own carries the contents. What the guest tells is hostile, as
//! everywhere here: names, kinds and sizes are checked, and what ends without the guest's word that it is whole is an error.
//!
//! Paths are the guest's, absolute, as its root sees them. Operations are root's.

mod download;
mod error;
mod info;
mod listing;
mod upload;
mod watch;

use std::io;

use tonic::codegen::http::Uri;
use tonic::{Response, Status, Streaming};

pub use self::download::FileReader;
pub use self::error::FileError;
pub use self::info::{DirEntry, FileInfo, FileKind};
pub use self::listing::Listing;
use self::upload::Upload;
pub use self::upload::{FileWriter, TarSummary, TarWriter};
pub use self::watch::{Watch, WatchEvent};
use super::{Channel, HostStream, Session, id};
use crate::stream::{StreamHeader, StreamKind};
use crate::v1;
use crate::v1::files_client::FilesClient;

/// The largest message of the guest's.
const MAX_MESSAGE: usize = 256 * 1024;
/// What [`Files::list`] gathers at most, in bytes.
const MAX_LISTED: usize = 64 * 1024 * 1024;
/// What an entry takes beside its name.
const ENTRY: usize = size_of::<DirEntry>();

/// The files of a guest. Cheap to clone and to make.
#[derive(Debug, Clone)]
pub struct Files {
    session: Session,
    client: FilesClient<Channel>,
}

/// Which part of a file is read. By default all of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadRange {
    /// From which byte on. Beyond the end there is nothing, which is no error.
    pub offset: u64,
    /// How many bytes at most; none: to the end.
    pub length: Option<u64>,
}

/// How a file is written. By default it is replaced in one step, and keeps its mode and owner.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Adds to its end instead. Then it is not replaced, and what came of a write that failed stays.
    pub append: bool,
    /// Its permissions; none: what it has, or 0644 for a new one.
    pub mode: Option<u32>,
    /// Its user and group; none: what it has, or root for a new one.
    pub owner: Option<(u32, u32)>,
    /// Refuses if there is something already.
    pub create_new: bool,
    /// Whether it is to be on the guest's disk when the write is finished.
    pub sync: bool,
}

/// How a tar is unpacked. By default each entry gets the owner that the archive says, and replaces what is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TarInOptions {
    /// Whom all of it is given to, as user and group.
    pub owner: Option<(u32, u32)>,
    /// Refuses to replace a directory by something else, and the other way round.
    pub keep_kinds: bool,
}

impl Session {
    /// The guest's files.
    pub fn files(&self) -> Files {
        let client = FilesClient::with_origin(self.channel.clone(), Uri::from_static("http://agent"));
        Files { session: self.clone(), client: client.max_decoding_message_size(MAX_MESSAGE) }
    }
}

impl Files {
    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// When the guest can't, or what is there is no regular file; when the session is lost or the agent silent.
    pub async fn read(&self, path: impl AsRef<[u8]>, range: ReadRange) -> Result<FileReader, FileError> {
        let (transfer_id, stream) = self.open().await?;
        let request = v1::ReadRequest {
            transfer_id,
            path: path.as_ref().to_vec(),
            offset: range.offset,
            length: range.length.unwrap_or(u64::MAX),
        };
        let mut client = self.client.clone();
        let events = promptly(&self.session, async move { client.read(request).await }).await?;
        FileReader::opened(&self.session, stream, events).await
    }

    /// Begins to write a file. Its directory must be there; a symbolic link is written through.
    ///
    /// # Errors
    /// When the session is lost or holds too many streams. What the guest can't do shows in the writes, or when they are
    /// finished.
    pub async fn write(
        &self,
        path: impl AsRef<[u8]>,
        options: WriteOptions,
    ) -> Result<FileWriter, FileError> {
        let (transfer_id, stream) = self.open().await?;
        let request = v1::WriteRequest {
            transfer_id,
            path: path.as_ref().to_vec(),
            append: options.append,
            mode: options.mode,
            owner: options.owner.map(owner),
            create_new: options.create_new,
            sync: options.sync,
        };
        let mut client = self.client.clone();
        let call = async move { client.write(request).await };
        Ok(FileWriter(Upload::new(&self.session, stream, call)))
    }

    /// What is at a path; with `follow`, what a symbolic link there leads to.
    ///
    /// # Errors
    /// When there is nothing; when the session is lost or the agent silent.
    pub async fn stat(&self, path: impl AsRef<[u8]>, follow: bool) -> Result<FileInfo, FileError> {
        let request = v1::StatRequest { path: path.as_ref().to_vec(), follow };
        let mut client = self.client.clone();
        let answer = promptly(&self.session, async move { client.stat(request).await }).await?;
        FileInfo::checked(answer.info)
    }

    /// Whether there is something at a path, at the end of links.
    ///
    /// # Errors
    /// When that can't be told; when the session is lost or the agent silent.
    pub async fn exists(&self, path: impl AsRef<[u8]>) -> Result<bool, FileError> {
        match self.stat(path, true).await {
            Ok(_) => Ok(true),
            Err(FileError::Failed {
                kind: io::ErrorKind::NotFound | io::ErrorKind::NotADirectory, ..
            }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What is in a directory, in no order.
    ///
    /// # Errors
    /// When it can't be read, or holds more than can be had at once; when the session is lost or the agent silent.
    pub async fn list(&self, path: impl AsRef<[u8]>) -> Result<Vec<DirEntry>, FileError> {
        let mut listing = self.list_stream(path).await?;
        let mut entries = Vec::new();
        let mut size = 0;
        while let Some(entry) = listing.next().await.transpose()? {
            size += ENTRY + entry.name.len() + entry.info.target.as_ref().map_or(0, Vec::len);
            if size > MAX_LISTED {
                let message = "the directory has too many entries to be listed at once".to_owned();
                return Err(FileError::Failed { errno: None, kind: io::ErrorKind::FileTooLarge, message });
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    /// What is in a directory, as it comes.
    ///
    /// # Errors
    /// When it can't be read; when the session is lost or the agent silent.
    pub async fn list_stream(&self, path: impl AsRef<[u8]>) -> Result<Listing, FileError> {
        let request = v1::ListRequest { path: path.as_ref().to_vec() };
        let mut client = self.client.clone();
        let batches = promptly(&self.session, async move { client.list(request).await }).await?;
        Ok(Listing::new(&self.session, batches))
    }

    /// Makes a directory; with `parents`, those above it too, and it may be there already. Without a mode it gets 0755.
    ///
    /// # Errors
    /// When it can't be made; when the session is lost or the agent silent.
    pub async fn make_dir(
        &self,
        path: impl AsRef<[u8]>,
        parents: bool,
        mode: Option<u32>,
    ) -> Result<(), FileError> {
        let request = v1::MakeDirectoryRequest { path: path.as_ref().to_vec(), parents, mode };
        let mut client = self.client.clone();
        promptly(&self.session, async move { client.make_directory(request).await }).await?;
        Ok(())
    }

    /// Removes what is at a path: a link rather than what it leads to, a directory if it is empty, or, with `recursive`, with
    /// all in it. Takes as long as the guest does; dropped, it stops in the midst.
    ///
    /// # Errors
    /// When something can't be removed; when the session is lost.
    pub async fn remove(&self, path: impl AsRef<[u8]>, recursive: bool) -> Result<(), FileError> {
        let request = v1::RemoveRequest { path: path.as_ref().to_vec(), recursive };
        let mut client = self.client.clone();
        patiently(&self.session, async move { client.remove(request).await }).await?;
        Ok(())
    }

    /// Gives what is at a path another name on the same file system. With `no_replace` there must be nothing of that name.
    ///
    /// # Errors
    /// When it can't be renamed; when the session is lost or the agent silent.
    pub async fn rename(
        &self,
        from: impl AsRef<[u8]>,
        to: impl AsRef<[u8]>,
        no_replace: bool,
    ) -> Result<(), FileError> {
        let (from, to) = (from.as_ref().to_vec(), to.as_ref().to_vec());
        let request = v1::RenameRequest { from, to, no_replace };
        let mut client = self.client.clone();
        promptly(&self.session, async move { client.rename(request).await }).await?;
        Ok(())
    }

    /// Copies a file, or with `recursive` a directory, to exactly the path `to`, with mode, owner, times and links as they are.
    /// A file there is replaced; a directory there is added to. Takes as long as the guest does; dropped, it stops in the midst.
    ///
    /// # Errors
    /// When something can't be copied; when the session is lost.
    pub async fn copy(
        &self,
        from: impl AsRef<[u8]>,
        to: impl AsRef<[u8]>,
        recursive: bool,
    ) -> Result<(), FileError> {
        let (from, to) = (from.as_ref().to_vec(), to.as_ref().to_vec());
        let request = v1::CopyRequest { from, to, recursive };
        let mut client = self.client.clone();
        patiently(&self.session, async move { client.copy(request).await }).await?;
        Ok(())
    }

    /// Sets the permissions of what a path leads to.
    ///
    /// # Errors
    /// When they can't be set; when the session is lost or the agent silent.
    pub async fn set_mode(&self, path: impl AsRef<[u8]>, mode: u32) -> Result<(), FileError> {
        let request = v1::SetModeRequest { path: path.as_ref().to_vec(), mode };
        let mut client = self.client.clone();
        promptly(&self.session, async move { client.set_mode(request).await }).await?;
        Ok(())
    }

    /// Sets the owner of what a path leads to, or, with `no_follow`, of a link itself: `user`, `user:group` or `:group`, names of
    /// the guest's or numbers.
    ///
    /// # Errors
    /// When the guest knows no such user or group, or can't set it; when the session is lost or the agent silent.
    pub async fn set_owner(
        &self,
        path: impl AsRef<[u8]>,
        owner: &str,
        no_follow: bool,
    ) -> Result<(), FileError> {
        let request =
            v1::SetOwnerRequest { path: path.as_ref().to_vec(), owner: owner.to_owned(), no_follow };
        let mut client = self.client.clone();
        promptly(&self.session, async move { client.set_owner(request).await }).await?;
        Ok(())
    }

    /// Makes a symbolic link at `path` that leads to `target`, whatever that is.
    ///
    /// # Errors
    /// When it can't be made; when the session is lost or the agent silent.
    pub async fn symlink(&self, target: impl AsRef<[u8]>, path: impl AsRef<[u8]>) -> Result<(), FileError> {
        let (target, path) = (target.as_ref().to_vec(), path.as_ref().to_vec());
        let request = v1::SymlinkRequest { target, path };
        let mut client = self.client.clone();
        promptly(&self.session, async move { client.symlink(request).await }).await?;
        Ok(())
    }

    /// Where a symbolic link leads.
    ///
    /// # Errors
    /// When there is none; when the session is lost or the agent silent.
    pub async fn read_link(&self, path: impl AsRef<[u8]>) -> Result<Vec<u8>, FileError> {
        let request = v1::ReadLinkRequest { path: path.as_ref().to_vec() };
        let mut client = self.client.clone();
        Ok(promptly(&self.session, async move { client.read_link(request).await }).await?.target)
    }

    /// Opens a tar of what is at a path, which is called `name` in it; without a name, of a directory's contents alone,
    /// beneath `.`. With `follow`, of what a link at the path leads to.
    ///
    /// # Errors
    /// When the guest can't make it; when the session is lost or the agent silent.
    pub async fn tar_out(
        &self,
        path: impl AsRef<[u8]>,
        name: &[u8],
        follow: bool,
    ) -> Result<FileReader, FileError> {
        let (transfer_id, stream) = self.open().await?;
        let request =
            v1::TarOutRequest { transfer_id, path: path.as_ref().to_vec(), name: name.to_vec(), follow };
        let mut client = self.client.clone();
        let events = promptly(&self.session, async move { client.tar_out(request).await }).await?;
        FileReader::opened(&self.session, stream, events).await
    }

    /// Begins to unpack a tar into a directory that is there. Nothing of it lands outside of that.
    ///
    /// # Errors
    /// When the session is lost or holds too many streams. What the guest can't do shows in the writes, or when they are
    /// finished.
    pub async fn tar_in(
        &self,
        path: impl AsRef<[u8]>,
        options: TarInOptions,
    ) -> Result<TarWriter, FileError> {
        let (transfer_id, stream) = self.open().await?;
        let request = v1::TarInRequest {
            transfer_id,
            path: path.as_ref().to_vec(),
            owner: options.owner.map(owner),
            keep_kinds: options.keep_kinds,
        };
        let mut client = self.client.clone();
        let call = async move { client.tar_in(request).await };
        Ok(TarWriter(Upload::new(&self.session, stream, call)))
    }

    /// Watches what is at a path, or with `recursive` all beneath it. What happens after this has returned is told. It takes as
    /// long as the guest needs to look through the tree.
    ///
    /// # Errors
    /// When the guest can't watch it; when the session is lost.
    pub async fn watch(&self, path: impl AsRef<[u8]>, recursive: bool) -> Result<Watch, FileError> {
        let request = v1::WatchRequest { path: path.as_ref().to_vec(), recursive };
        let mut client = self.client.clone();
        let events = patiently(&self.session, async move { client.watch(request).await }).await?;
        Watch::ready(&self.session, events).await
    }

    /// Opens the stream of a transfer, and gives it its name.
    async fn open(&self) -> Result<(u64, HostStream), FileError> {
        let Some(mut room) = self.session.link.reserve(1) else {
            let message = "the streams of this session to the guest are all in use".to_owned();
            return Err(FileError::Failed { errno: None, kind: io::ErrorKind::ResourceBusy, message });
        };
        let id = id::random();
        let header = StreamHeader { kind: StreamKind::Data, id };
        let stream = self.session.link.open(header, &mut room).await.map_err(FileError::lost)?;
        Ok((id, stream))
    }
}

fn owner((uid, gid): (u32, u32)) -> v1::Owner {
    v1::Owner { uid, gid }
}

/// Waits for the answer of a call that the guest can give at once.
async fn promptly<T>(
    session: &Session,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, FileError> {
    match tokio::time::timeout(session.answer, patiently(session, call)).await {
        Ok(answer) => answer,
        Err(_) => Err(download::silent(session)),
    }
}

/// Waits for the answer of a call that takes as long as what it does.
async fn patiently<T>(
    session: &Session,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, FileError> {
    let answer = tokio::select! {
        // An answer that came before the end counts.
        biased;
        answer = call => answer,
        lost = session.ended() => return Err(FileError::lost(lost)),
    };
    match answer {
        Ok(response) => Ok(response.into_inner()),
        Err(status) => Err(FileError::of(session, &status).await),
    }
}

/// Waits for the next message of a call that has more than one.
async fn message<T>(session: &Session, messages: &mut Streaming<T>) -> Result<Option<T>, FileError> {
    let next = async {
        tokio::select! {
            biased;
            message = messages.message() => Ok(message),
            lost = session.ended() => Err(FileError::lost(lost)),
        }
    };
    match tokio::time::timeout(session.answer, next).await {
        Ok(Ok(Ok(message))) => Ok(message),
        Ok(Ok(Err(status))) => Err(FileError::of(session, &status).await),
        Ok(Err(lost)) => Err(lost),
        Err(_) => Err(download::silent(session)),
    }
}
