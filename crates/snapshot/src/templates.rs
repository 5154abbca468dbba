//! The templates of one host: found by what they are made of, made by one process at a time, bounded in what they take.
//!
//! ```text
//!               find                          publish
//!   (nothing) ───────▶ Missing ──lock──▶ Draft ───────▶ Ready ──used──▶ Ready, its time of use set
//!                         ▲               │ dropped       │ set aside          │ room is needed, or removed
//!                         └───────────────┘               ▼                    ▼
//!                         └──────────────────────────── Failed ◀──        (nothing)
//! ```
//! Removing one harms nobody: a machine that was restored has the memory open, and whoever looks for it afterwards makes it
//! anew.

mod draft;
mod room;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub use self::draft::{Draft, Making};
use crate::Damage;
use crate::directory::{self, disk_bytes, entries};
use crate::error::Error;
use crate::files::{MANIFEST, Manifest, SavedFiles};
use crate::key::{TemplateId, TemplateKey};

const FAILED: &str = ".failed";
const LOCK: &str = ".lock";
const CAUSE: &str = "cause";
/// How much of a cause is kept, in characters.
const CAUSE_MAX: usize = 4 << 10;

/// A directory of templates.
#[derive(Debug, Clone)]
pub struct Templates {
    dir: PathBuf,
    /// Bytes on disk that all of them may take.
    limit: u64,
}

/// A template, or what is left of one.
#[derive(Debug, Clone)]
pub struct Template {
    /// Its name.
    pub id: TemplateId,
    /// Whether it can be used.
    pub state: TemplateState,
    /// What it says of itself, if that can be read.
    pub manifest: Option<Manifest>,
    /// Bytes that it takes on disk.
    pub disk_bytes: u64,
    /// When it was last used, or made.
    pub used: SystemTime,
}

/// Whether a template can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplateState {
    /// It can, as far as one sees without using it.
    Ready,
    /// It was set aside, and why.
    Failed(String),
}

impl Templates {
    /// The templates in `dir`, which need not exist yet; together they may take `limit` bytes.
    pub fn new(dir: impl Into<PathBuf>, limit: u64) -> Self {
        Self { dir: dir.into(), limit }
    }

    /// Where they are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The one that is made of this, if there is one. It counts as used now.
    ///
    /// # Errors
    /// [`Error::Damaged`] if it cannot be used: [set it aside](Self::set_aside).
    pub fn find(&self, key: &TemplateKey) -> Result<Option<SavedFiles>, Error> {
        let dir = self.ready(&key.id());
        let files = match SavedFiles::open(&dir) {
            Ok(files) => files,
            Err(error) if error.is_missing() && !dir.exists() => return Ok(None),
            Err(error) if error.is_missing() => {
                let source = io::ErrorKind::NotFound.into();
                let damage = Damage::Unreadable { file: MANIFEST, source };
                return Err(Error::Damaged { path: dir, damage });
            }
            Err(error) => return Err(error),
        };
        if files.manifest().template().is_none_or(|template| template.key != *key) {
            return Err(Error::Damaged { path: dir, damage: Damage::OtherKey });
        }
        // Who uses it last is removed last. That it cannot be noted is no reason not to use it.
        _ = File::open(dir.join(MANIFEST)).and_then(|manifest| manifest.set_modified(SystemTime::now()));
        Ok(Some(files))
    }

    /// Takes one out of use, so that it is made anew, and keeps why.
    ///
    /// # Errors
    /// It cannot be moved.
    pub fn set_aside(&self, id: &TemplateId, cause: &str) -> Result<(), Error> {
        let (ready, failed) = (self.ready(id), self.failed(id));
        directory::remove(&failed)?;
        match fs::rename(&ready, &failed) {
            // Another process was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            renamed => renamed.map_err(Error::io("set aside", &ready))?,
        }
        // What is large goes; the manifest and the cause tell the rest.
        for entry in entries(&failed)? {
            if entry.file_name() != Some(MANIFEST.as_ref()) {
                fs::remove_file(&entry).map_err(Error::io("remove", &entry))?;
            }
        }
        let cause: String = cause.chars().take(CAUSE_MAX).collect();
        let path = failed.join(CAUSE);
        fs::write(&path, cause).map_err(Error::io("write", &path))
    }

    /// All of them, those last that were not used for longest.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn list(&self) -> Result<Vec<Template>, Error> {
        let mut all = Vec::new();
        for path in entries(&self.dir)? {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let (id, failed) = match name.strip_suffix(FAILED) {
                Some(id) => (id, true),
                None => (name, false),
            };
            let Ok(id) = id.parse::<TemplateId>() else { continue };
            all.extend(look(id, &path, failed));
        }
        all.sort_by(|a, b| b.used.cmp(&a.used).then_with(|| a.id.cmp(&b.id)));
        Ok(all)
    }

    /// The one whose id begins so.
    ///
    /// # Errors
    /// None does, or several.
    pub fn resolve(&self, prefix: &str) -> Result<Template, Error> {
        let fits = |template: &Template| !prefix.is_empty() && template.id.as_str().starts_with(prefix);
        let mut found: Vec<Template> = self.list()?.into_iter().filter(fits).collect();
        // What is left of a former one has the same id.
        found.dedup_by(|second, first| second.id == first.id);
        match (found.pop(), found.len()) {
            (Some(template), 0) => Ok(template),
            (None, _) => Err(Error::NoSuchTemplate(prefix.to_owned())),
            (Some(_), others) => Err(Error::Ambiguous { prefix: prefix.to_owned(), count: others + 1 }),
        }
    }

    /// Removes one, and what is left of a former one. Returns the bytes that it took.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(&self, id: &TemplateId) -> Result<u64, Error> {
        let mut bytes = 0;
        for dir in [self.ready(id), self.failed(id)] {
            bytes += entries(&dir)?.iter().map(|file| disk_bytes(file)).sum::<u64>();
            directory::remove(&dir)?;
        }
        Ok(bytes)
    }

    fn ready(&self, id: &TemplateId) -> PathBuf {
        self.dir.join(id.as_str())
    }

    fn failed(&self, id: &TemplateId) -> PathBuf {
        self.dir.join(format!("{id}{FAILED}"))
    }

    fn lock_file(&self, id: &TemplateId) -> PathBuf {
        self.dir.join(format!("{id}{LOCK}"))
    }
}

/// What is at `path`; nothing if it has just gone.
fn look(id: TemplateId, path: &Path, failed: bool) -> Option<Template> {
    let opened = SavedFiles::open(path);
    let state = match &opened {
        _ if failed => TemplateState::Failed(fs::read_to_string(path.join(CAUSE)).unwrap_or_default()),
        Ok(_) => TemplateState::Ready,
        Err(error) if error.is_missing() && !path.exists() => return None,
        Err(error) => TemplateState::Failed(reason(error)),
    };
    let marker = path.join(if failed { CAUSE } else { MANIFEST });
    let used = fs::metadata(marker).and_then(|file| file.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    let disk_bytes = entries(path).map_or(0, |files| files.iter().map(|file| disk_bytes(file)).sum());
    Some(Template {
        id,
        state,
        manifest: opened.ok().map(|files| files.manifest().clone()),
        disk_bytes,
        used,
    })
}

/// An error and its causes in a line.
pub(crate) fn reason(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
