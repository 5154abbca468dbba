//! Gets all that a sandbox needs, so that it only has to be made.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use cellule_boot::Bundle;
use cellule_image::Image;
use cellule_supervisor::{Entry, SandboxDir, SandboxName, SandboxSpec, SecretValues};

use super::{Builder, Progress, ProgressSink};
use crate::{Error, Host, Sandbox, get, secrets};

impl Builder {
    /// Gets everything that the sandbox needs: boot bundle, image, an engine that works. Makes no sandbox yet.
    ///
    /// # Errors
    /// Something cannot be had, or what is asked for cannot be.
    pub async fn prepare(mut self) -> Result<Prepared, Error> {
        let progress = Arc::clone(&self.progress);
        let sink = Arc::clone(&progress);
        let told = Arc::clone(&self.options.progress);
        self.options.progress = Arc::new(move |event: cellule_image::Event| {
            told.event(event.clone());
            sink(&Progress::Image(event));
        });
        self.host.networks().check(self.network.networks())?;
        let engine = self.engine.engine(self.host.qemu().map(PathBuf::from));
        // A host without an engine is known before an image is downloaded for nothing. Where all is here already, nobody waits
        // for the engine to say its version: the launch asks for it too.
        let (bundle, image) = {
            let mut got = Box::pin(self.bundle_and_image(&progress));
            tokio::select! {
                biased;
                checked = engine.check() => {
                    checked.map_err(Error::Engine)?;
                    got.await?
                }
                got = &mut got => got?,
            }
        };
        let (spec, secrets) = self.spec(engine.name(), &bundle, &image)?;
        Ok(Prepared {
            host: self.host,
            name: self.name,
            spec,
            secrets,
            image,
            emulated: engine.emulates_cpu(),
        })
    }

    async fn bundle_and_image(&self, progress: &ProgressSink) -> Result<(Bundle, Image), Error> {
        let begun = Instant::now();
        let bundle = get::bundle(self.host.home(), progress).await?;
        progress(&Progress::Step { name: "boot bundle", took: begun.elapsed() });
        let begun = Instant::now();
        let store = self.host.images()?;
        let image = get::image(&store, &bundle, &self.image, self.pull, &self.options).await?;
        progress(&Progress::Step { name: "image", took: begun.elapsed() });
        Ok((bundle, image))
    }
}

/// A sandbox that only has to be made: its image is here and held.
#[derive(Debug)]
pub struct Prepared {
    host: Host,
    name: Option<SandboxName>,
    spec: SandboxSpec,
    secrets: SecretValues,
    image: Image,
    emulated: bool,
}

impl Prepared {
    /// What it will be made of.
    pub fn spec(&self) -> &SandboxSpec {
        &self.spec
    }

    /// The values of its secrets, as far as its supervisor cannot get them.
    pub(crate) fn secrets(&self) -> &SecretValues {
        &self.secrets
    }

    /// Where it will be.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Whether the guest's processor is emulated in software.
    pub fn emulates_cpu(&self) -> bool {
        self.emulated
    }

    /// Makes the sandbox without starting it.
    ///
    /// # Errors
    /// The name is taken, its directory cannot be made, or a secret has a value that would be lost.
    pub fn create(self) -> Result<Entry, Error> {
        // As it will be when it is started.
        secrets::again(&self.spec)?;
        let sandboxes = self.host.sandboxes()?;
        let dir = sandboxes.create(&self.spec, self.name.as_ref())?;
        drop(dir);
        Ok(sandboxes.find(self.spec.id.as_str())?)
    }

    /// Makes the sandbox and starts its machine; [`Sandbox::ready`] waits for it.
    ///
    /// # Errors
    /// The name is taken, its directory cannot be made, or the supervisor not started.
    pub async fn launch(self) -> Result<Sandbox, Error> {
        let sandboxes = self.host.sandboxes()?;
        // What others left is no reason not to start.
        _ = sandboxes.sweep();
        self.host.sweep_templates();
        let dir: SandboxDir = sandboxes.create(&self.spec, self.name.as_ref())?;
        Sandbox::launch(self.host, self.spec, self.name, dir, self.secrets, Some(self.image)).await
    }
}
