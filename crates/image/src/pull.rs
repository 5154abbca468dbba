//! From a source to an image in the store.

use std::collections::BTreeSet;

use futures::{TryStreamExt, stream};

use crate::{
    Digest, Error, Event, Image, Import, Options, Policy, Reference, Result, Source, Store,
    error::blocking,
    image::{Fetched, check_platform, parse_config},
    import::ImportFrom,
    manifest::{Descriptor, Document, MAX_INDEX_DEPTH, Manifest},
    registry::{Answer, Layer, Registry},
    store::Operation,
};

/// From how many hexadecimal digits on a name that the store does not know may be the beginning of an id.
const SHORT_ID: usize = 12;

impl Store {
    /// Gets the image that `source` names ready to run: it is downloaded or read, merged, and kept.
    ///
    /// The policy is about registries only; layouts, archives, tars and directories are read each time, but what the
    /// store has of them already is not built again. Images of such sources get no name.
    ///
    /// # Errors
    ///
    /// All of [`Error`] but what removing can bring. After an error, or when the future is dropped, what was half made
    /// is removed.
    pub async fn pull(&self, source: &Source, policy: Policy, options: &Options) -> Result<Image> {
        options.progress.event(Event::Resolving { source: source.to_string() });
        match source {
            Source::Registry(reference) => self.pull_reference(reference, policy, options).await,
            Source::OciLayout { dir, tag } => self.read_layout(dir, tag.as_deref(), options).await,
            Source::DockerArchive { file, reference } => {
                self.read_archive(file, reference.as_ref(), options).await
            }
            Source::Tar(path) => self.import(ImportFrom::Tar(path.clone()), Import::default(), options).await,
            Source::Directory(path) => {
                self.import(ImportFrom::Directory(path.clone()), Import::default(), options).await
            }
            Source::Path(path) => self.import(ImportFrom::at(path)?, Import::default(), options).await,
        }
    }

    async fn pull_reference(
        &self,
        reference: &Reference,
        policy: Policy,
        options: &Options,
    ) -> Result<Image> {
        let operation = self.begin().await?;
        let local = self.find_local(&operation, reference, options).await?;
        match (policy, local) {
            (Policy::Missing | Policy::Never, Some((image, _))) => Ok(image),
            (Policy::Never, None) => Err(Error::NoSuchImage { name: reference.familiar() }),
            (_, local) => {
                let registry = Registry::connect(reference, options).await?;
                if let Some((image, Some(known))) = local
                    && registry.digest(&reference.manifest_name()).await? == Some(known)
                {
                    return Ok(image);
                }
                let fetched = self.fetch(&operation, &registry, reference, options).await?;
                self.complete(&operation, fetched, options).await
            }
        }
    }

    /// What the store has under a reference, and the digest that the registry gave for it; as Docker does, also under
    /// an id.
    async fn find_local(
        &self,
        operation: &Operation,
        reference: &Reference,
        options: &Options,
    ) -> Result<Option<(Image, Option<Digest>)>> {
        let (store, wanted) = (self.clone(), reference.clone());
        let found = blocking(move || {
            if let Some((entry, resolved)) = store.find_name(&wanted)? {
                return Ok(Some((entry.digest, resolved)));
            }
            let familiar = wanted.familiar();
            let name = familiar.strip_suffix(":latest").unwrap_or(&familiar);
            let is_id = name.len() >= SHORT_ID && name.bytes().all(|b| b.is_ascii_hexdigit());
            Ok(if is_id { store.inspect(name).ok().map(|info| (info.manifest_digest, None)) } else { None })
        });
        let Some((manifest, resolved)) = found.await? else { return Ok(None) };
        Ok(self.local(operation, manifest, options).await?.map(|image| (image, resolved)))
    }

    /// Downloads what the store lacks of an image.
    async fn fetch(
        &self,
        operation: &Operation,
        registry: &Registry,
        reference: &Reference,
        options: &Options,
    ) -> Result<Fetched> {
        let what = reference.familiar();
        let (answer, manifest, resolved) = resolve(registry, reference, options).await?;
        manifest.check(&options.limits, &what)?;
        let config_bytes = registry.small_blob(&manifest.config).await?;
        let config = parse_config(&config_bytes, &what)?;
        check_platform(&config, options, &what)?;

        options
            .progress
            .event(Event::Resolved { layers: manifest.layers.len(), bytes: manifest.layer_bytes() });
        let (store, pinning) = (self.clone(), operation.clone());
        let digests: Vec<Digest> = manifest.layers.iter().map(|layer| layer.digest).collect();
        blocking(move || pinning.pin_blobs(&store, &digests)).await?;
        let of = manifest.layers.len();
        let (mut seen, mut downloads) = (BTreeSet::new(), Vec::new());
        for (blob, number) in manifest.layers.iter().zip(1..) {
            // The same layer twice is downloaded once.
            if seen.insert(blob.digest) {
                downloads.push(Ok(registry.fetch_layer(self, Layer { blob: blob.clone(), number, of })));
            }
        }
        let parallel = options.network.parallel.max(1);
        stream::iter(downloads).try_buffer_unordered(parallel).try_collect::<()>().await?;

        let descriptor = Descriptor::new(&manifest.media_type, answer.digest, answer.bytes.len() as u64);
        let (store, pinning) = (self.clone(), operation.clone());
        blocking(move || {
            let documents = [answer.bytes, config_bytes];
            pinning.pin_blobs(&store, &documents.each_ref().map(|bytes| Digest::of(bytes)))?;
            documents.iter().try_for_each(|bytes| store.write_document(bytes).map(drop))
        })
        .await?;
        Ok(Fetched {
            descriptor,
            manifest,
            config,
            names: vec![reference.clone()],
            resolved: Some(resolved),
            what,
        })
    }

    pub(crate) async fn begin(&self) -> Result<Operation> {
        let store = self.clone();
        blocking(move || Operation::begin(&store)).await
    }
}

/// Follows the indexes that a name leads to, down to the manifest for the platform. Returns also what the name itself
/// stands for.
async fn resolve(
    registry: &Registry,
    reference: &Reference,
    options: &Options,
) -> Result<(Answer, Manifest, Digest)> {
    let what = reference.familiar();
    let mut answer = registry.manifest(&reference.manifest_name()).await?;
    let resolved = answer.digest;
    for _ in 0..MAX_INDEX_DEPTH {
        match Document::parse(&answer.bytes, answer.content_type.as_deref(), &what)? {
            Document::Manifest(manifest) => return Ok((answer, manifest, resolved)),
            Document::Index(index) => {
                let chosen = index.select(&options.platform, &what)?;
                answer = registry.manifest(&chosen.digest.to_string()).await?;
                let (actual, expected) = (answer.bytes.len() as u64, chosen.size);
                if actual != expected {
                    return Err(Error::SizeMismatch { what, expected, actual, at_least: false });
                }
            }
        }
    }
    Err(Error::Limit {
        what,
        field: "indexes within indexes",
        actual: MAX_INDEX_DEPTH as u64 + 1,
        allowed: MAX_INDEX_DEPTH as u64,
    })
}
