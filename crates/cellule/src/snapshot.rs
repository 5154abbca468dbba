//! Snapshots of sandboxes: making them, and starting sandboxes from them.

use std::collections::BTreeMap;

use cellule_engine::EngineChoice;
use cellule_image::{Error as ImageError, Options};
use cellule_network::policy::{Action, Base, Policy, Rule, Target};
use cellule_snapshot::{Durability, Extent, SavedFiles, SnapshotDraft, SnapshotName};
use cellule_supervisor::{NetworkSpec, SandboxName, SandboxSpec, SaveOutcome, SaveRequest, SavedSandbox};

use crate::copy::{Unstarted, spec_of_copy};
use crate::network::NetworkChanges;
use crate::{Error, Host, Sandbox, get, secrets};

/// A snapshot that was just made.
#[derive(Debug)]
pub struct Snapshotted {
    /// Its name.
    pub name: SnapshotName,
    /// Its files.
    pub files: SavedFiles,
    /// How long the sandbox's programs stood still for it, and what was copied meanwhile.
    pub outcome: SaveOutcome,
}

impl Sandbox {
    /// Saves the sandbox as it is at one moment: its memory, and with it its files and all that runs in it. The sandbox goes
    /// on; one that is paused stays so. Without a name it gets the sandbox's and a number.
    ///
    #[cfg_attr(not(cellule_guest), doc = "```no_run")]
    #[cfg_attr(cellule_guest, doc = "```")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), cellule::Error> {
    /// use std::collections::BTreeMap;
    ///
    /// let mut sandbox = cellule::Sandbox::builder("base")?.start().await?;
    /// sandbox.command("sh").args(["-c", "echo ready > /tmp/state"]).status().await?;
    /// let snapshot = sandbox.snapshot(None, BTreeMap::new()).await?;
    /// let host = sandbox.host().clone();
    /// sandbox.end().await?;
    ///
    /// let again = host.start_from(&snapshot.name, None).await?;
    /// assert_eq!(again.command("cat").arg("/tmp/state").output().await?.stdout, b"ready\n");
    /// again.end().await?;
    /// host.snapshots().remove(&snapshot.name)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The name is taken, or the sandbox cannot be saved.
    pub async fn snapshot(
        &mut self,
        name: Option<SnapshotName>,
        labels: BTreeMap<String, String>,
    ) -> Result<Snapshotted, Error> {
        let snapshots = self.host().snapshots();
        if let Some(name) = &name
            && snapshots.dir().join(name.as_str()).exists()
        {
            return Err(cellule_snapshot::Error::NameTaken(name.to_string()).into());
        }
        let stem = self.name().unwrap_or(self.id()).to_owned();
        let draft = snapshots.draft()?;
        let request = SaveRequest {
            dir: draft.path().to_path_buf(),
            extent: Extent::Changes,
            durability: Durability::Durable,
            labels,
        };
        let outcome = self.link_mut().save(request).await?;
        let (name, files) = publish(draft, name, &stem)?;
        Ok(Snapshotted { name, files, outcome })
    }
}

fn publish(
    draft: SnapshotDraft,
    name: Option<SnapshotName>,
    stem: &str,
) -> Result<(SnapshotName, SavedFiles), Error> {
    Ok(match name {
        Some(name) => {
            let files = draft.publish(&name)?;
            (name, files)
        }
        None => draft.publish_numbered(stem)?,
    })
}

/// A snapshot's network as far as it reaches nothing that only this host can: a snapshot may come from anywhere, and opens
/// neither this host nor its networks, nor says what files and commands of it are secrets.
fn within_reach(network: &NetworkSpec) -> NetworkSpec {
    let opens_networks =
        |rule: &&Rule| rule.action() == Action::Deny || !matches!(rule.target(), Target::Network(_));
    let rules = network.policy.rules().iter().filter(opens_networks).cloned().collect();
    let base = network.policy.base().min(Base::Public);
    NetworkSpec {
        // No more rules than before, which were not too many.
        policy: Policy::new(Some(base), rules).unwrap_or_default(),
        ports: network.ports.clone(),
        bandwidth: network.bandwidth,
        connection_rate: network.connection_rate,
        ..NetworkSpec::default()
    }
}

impl Host {
    /// Starts a sandbox that goes on from a snapshot, and waits until it does. It belongs to this process until it is
    /// [detached](Sandbox::detach).
    ///
    /// It needs the snapshot only now, and no more than that: any number can be started from one.
    ///
    /// # Errors
    /// There is no such snapshot, its image is not here, or this host cannot go on with it; the name is taken.
    pub async fn start_from(
        &self,
        snapshot: &SnapshotName,
        name: Option<SandboxName>,
    ) -> Result<Sandbox, Error> {
        self.start_from_with(snapshot, name, NetworkChanges::default()).await
    }

    /// The same, with another network than the snapshot's.
    ///
    /// # Errors
    /// As of [`start_from`](Self::start_from).
    pub async fn start_from_with(
        &self,
        snapshot: &SnapshotName,
        name: Option<SandboxName>,
        network: NetworkChanges,
    ) -> Result<Sandbox, Error> {
        self.launch_from_with(snapshot, name, network).await?.up().await
    }

    /// Starts the machine of such a sandbox; [`Sandbox::ready`] waits for it, and [`Sandbox::start_main`] joins its main
    /// program.
    ///
    /// # Errors
    /// There is no such snapshot, or its image is not here; the name is taken.
    pub async fn launch_from(
        &self,
        snapshot: &SnapshotName,
        name: Option<SandboxName>,
    ) -> Result<Sandbox, Error> {
        self.launch_from_with(snapshot, name, NetworkChanges::default()).await
    }

    /// The same, with another network than the snapshot's.
    ///
    /// # Errors
    /// As of [`launch_from`](Self::launch_from).
    pub async fn launch_from_with(
        &self,
        snapshot: &SnapshotName,
        name: Option<SandboxName>,
        network: NetworkChanges,
    ) -> Result<Sandbox, Error> {
        let files = self.snapshots().find(snapshot)?;
        let text = |source| Error::SnapshotText { name: snapshot.to_string(), source };
        let saved = SavedSandbox::of(&files).map_err(text)?;
        let spec = spec_of_copy(&saved.spec, format!("the snapshot {snapshot}"))?;
        let (mut spec, image) = self.at_home(spec, snapshot).await?;
        let secrets = secrets::put(&network.secrets, &saved.spec.network.secrets, &mut spec)?;
        spec.network = network.of(spec.network);
        let copy = Unstarted::make(self, spec, name)?;
        files.link_to(&copy.dir.saved())?;
        copy.launch(self, secrets, Some(image)).await
    }

    /// Takes a snapshot in that was [exported](cellule_snapshot::Snapshots::export), here or elsewhere. Without a name it gets
    /// its sandbox's and a number. Its image does not come with it.
    ///
    /// # Errors
    /// It is damaged, of another version, or of a host that this one cannot go on with; the name is taken.
    pub async fn import_snapshot(
        &self,
        from: impl std::io::Read + Send + 'static,
        name: Option<SnapshotName>,
    ) -> Result<(SnapshotName, SavedFiles), Error> {
        let snapshots = self.snapshots();
        let read = snapshots.clone();
        let draft = tokio::task::spawn_blocking(move || read.import(from));
        let draft = draft.await.map_err(|error| Error::Io {
            doing: "read the archive".to_owned(),
            source: std::io::Error::other(error),
        })??;
        let files = draft.files()?;
        let text = |source| Error::SnapshotText { name: "of the archive".to_owned(), source };
        let saved = SavedSandbox::of(&files).map_err(text)?;
        let engine = saved.spec.engine.parse::<EngineChoice>().unwrap_or_default();
        let here = engine.engine(self.qemu().map(std::path::PathBuf::from)).origin().await;
        here.map_err(Error::Engine)?.check(&files.manifest().origin).map_err(Error::SnapshotElsewhere)?;
        let stem = files.manifest().sandbox().map(|sandbox| sandbox.name.clone()).unwrap_or_default();
        publish(draft, name, &stem)
    }

    /// Whatever of a specification leads to something on a host leads to what is here: a snapshot may come from anywhere.
    async fn at_home(
        &self,
        spec: SandboxSpec,
        snapshot: &SnapshotName,
    ) -> Result<(SandboxSpec, cellule_image::Image), Error> {
        let missing = || Error::SnapshotImage {
            name: snapshot.to_string(),
            image: spec.image.clone(),
            id: spec.image_digest.clone(),
        };
        let (store, options) = (self.images()?, Options::default());
        let bundle = get::bundle(self.home(), &(std::sync::Arc::new(|_: &crate::Progress| ()) as _)).await?;
        let image = match store.get(&spec.image_digest, &options).await {
            Ok(image) => image,
            // It needs no registry.
            Err(ImageError::NoSuchImage { .. }) if spec.image == get::BASE => {
                get::base(&store, &bundle, &options).await?
            }
            Err(ImageError::NoSuchImage { .. }) => return Err(missing()),
            Err(error) => return Err(Error::Image { name: spec.image.clone(), source: Box::new(error) }),
        };
        if image.rootfs.digest.to_string() != spec.rootfs_digest {
            return Err(missing());
        }
        let network = within_reach(&spec.network);
        let spec = SandboxSpec {
            network,
            // Whom to trust is this host's to say.
            authorities: String::new(),
            engine_program: self.qemu().map(std::path::PathBuf::from),
            kernel: bundle.kernel_path.clone(),
            initramfs: bundle.initramfs_path.clone(),
            rootfs: image.rootfs.path.clone(),
            ..spec
        };
        Ok((spec, image))
    }
}
