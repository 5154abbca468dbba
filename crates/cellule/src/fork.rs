//! Running copies of a running sandbox.
//!
//! ```text
//!   directories made ──▶ the parent saved into the first ──▶ linked to the others ──▶ each started, some at a time
//!                        (whole: all share it)
//! ```
//! Whoever dies on the way leaves nothing: a directory that was not started is nobody's.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::time::Duration;

use cellule_snapshot::{Durability, Extent, SavedFiles};
use cellule_supervisor::{SandboxName, SaveOutcome, SaveRequest, SecretValues};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::copy::{Unstarted, spec_of_copy};
use crate::{Error, Sandbox};

/// What a fork made.
#[derive(Debug)]
pub struct Forked {
    /// The copies, each with its main program going on. They belong to this process until they are
    /// [detached](Sandbox::detach).
    pub sandboxes: Vec<Sandbox>,
    /// For how long the parent's programs stood still. Nothing if it was paused.
    pub paused: Duration,
    /// Bytes of the parent's memory that were copied meanwhile.
    pub copied_bytes: u64,
}

impl Sandbox {
    /// Makes running copies of this sandbox, which goes on.
    ///
    /// All that is in it goes on in each of them: its main program, what else runs in it, its files. Their memory is shared
    /// until one writes to it. Each copy has its own random numbers, machine id and host name, unless that was chosen; and a
    /// program learns that it is in a copy from a change of `/etc/machine-id`.
    ///
    #[cfg_attr(not(cellule_guest), doc = "```no_run")]
    #[cfg_attr(cellule_guest, doc = "```")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), cellule::Error> {
    /// let mut parent = cellule::Sandbox::builder("base")?.start().await?;
    /// parent.command("sh").args(["-c", "echo loaded > /tmp/model"]).status().await?;
    ///
    /// for child in parent.fork(2).await?.sandboxes {
    ///     let model = child.command("cat").arg("/tmp/model").output().await?;
    ///     assert_eq!(model.stdout, b"loaded\n");
    ///     child.end().await?;
    /// }
    /// # parent.end().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The sandbox cannot be saved, or a copy not be started; then there are none.
    pub async fn fork(&mut self, count: usize) -> Result<Forked, Error> {
        self.fork_as(&vec![None; count]).await
    }

    /// Makes a running copy for each of these names, as [`fork`](Self::fork) does.
    ///
    /// # Errors
    /// As of [`fork`](Self::fork), and if a name is taken.
    pub async fn fork_as(&mut self, names: &[Option<SandboxName>]) -> Result<Forked, Error> {
        let host = self.host().clone();
        let parent = self.name().unwrap_or(self.id()).to_owned();
        // As it is now: others may have changed what it may reach.
        let current = host.find(self.id())?.spec;
        let mut copies = Vec::with_capacity(names.len());
        for name in names {
            let spec = spec_of_copy(&current, format!("a fork of {parent}"))?;
            copies.push(Unstarted::make(&host, spec, name.clone())?);
        }
        let Some(first) = copies.first() else {
            return Ok(Forked { sandboxes: Vec::new(), paused: Duration::ZERO, copied_bytes: 0 });
        };
        let dir = first.dir.saved();
        let made = DirBuilder::new().mode(0o700).create(&dir);
        made.map_err(|source| Error::Io { doing: format!("make {}", dir.display()), source })?;
        let request = SaveRequest {
            dir: dir.clone(),
            extent: Extent::Whole,
            durability: Durability::Ephemeral,
            labels: std::collections::BTreeMap::new(),
        };
        let SaveOutcome { paused, copied_bytes } = self.link_mut().save(request).await?;
        let files = SavedFiles::open(&dir)?;
        for other in &copies[1..] {
            files.link_to(&other.dir.saved())?;
        }
        // Each start keeps a processor busy.
        let at_once = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        // Most have none, and need not ask.
        let secrets = if current.network.secrets.is_empty() {
            SecretValues::default()
        } else {
            self.link_mut().secrets().await?
        };
        let starts = copies.into_iter().map(|copy| {
            let secrets = secrets.clone();
            async { copy.launch(&host, secrets, None).await?.up().await }
        });
        let sandboxes = stream::iter(starts).buffered(at_once).try_collect().await?;
        Ok(Forked { sandboxes, paused, copied_bytes })
    }
}
