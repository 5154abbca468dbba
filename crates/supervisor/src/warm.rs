//! Decides how a machine starts: from a template, or by booting. Makes the template where there is none yet.
//!
//! ```text
//!   template? ──there──▶ restore ─────────────────────────────────────────▶ warm
//!      │ none              ▲  │ it does not work: set aside, made anew once
//!      ▼                   │  ▼
//!   make, or wait for who makes it: boot, rest, save, publish
//!      │ that does not work either
//!      ▼
//!   boot ─────────────────────────────────────────────────────────────────▶ cold, and why is noted
//! ```
//! What is wrong with a template never fails a start. What is in it is a guest that has booted and was told nothing: names,
//! files, variables and programs come after the restore. A cold start warms up by itself, unless that is what failed. One with a
//! disk that was used before goes with no template, and starts again only what lives on.

pub(crate) mod warm_up;

use std::fs::File;
use std::time::{Duration, Instant};

use cellule_engine::LaunchError;
use cellule_snapshot::{Draft, Making, SavedFiles, TemplateKey, Templates};
use tokio::time::sleep;

use crate::disk::DiskSize;
use crate::failure::{Failure, FailureKind};
use crate::inherited::complain;
use crate::machine::{Launcher, Running, apart, nobodys, session};
use crate::record::StartRecord;
use crate::spec::{TemplateCache, WarmUp};

/// How often a template that does not work is made anew.
const TRIES: usize = 2;
/// How long the template may take that another process makes, its warm-up not counted, and how often is looked.
const MADE_WITHIN: Duration = Duration::from_secs(120);
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);
/// How long a guest gets to notice that its host is gone, before it is saved.
const REST: Duration = Duration::from_millis(50);
/// How long a guest that could not be saved may take to answer again.
const BACK_WITHIN: Duration = Duration::from_secs(20);

/// Starts a machine, to an agent that was heard.
pub(crate) async fn start(launcher: &Launcher) -> Result<(Running, StartRecord), Failure> {
    let note = launcher.has_used_disk.then(|| "its disk was used before".to_owned());
    let Some(cache) = &launcher.spec.templates else {
        return Ok((launcher.boot().await?, StartRecord { note, ..StartRecord::default() }));
    };
    let warm = Warm {
        cache,
        templates: Templates::new(&cache.dir, cache.limit),
        key: key(launcher, cache),
        launcher,
    };
    if let Some(note) = note {
        // What the commands left is on the disk, with what became of it since.
        let lives_on = WarmUp { commands: Vec::new(), ..cache.warm_up.clone() };
        let (running, failed) = warm.boot(&lives_on).await?;
        let note = Some(failed.map_or_else(|| note.clone(), |why| format!("{note}; {why}")));
        return Ok((running, StartRecord { note, ..StartRecord::default() }));
    }
    let mut note = None;
    for _ in 0..TRIES {
        let files = match warm.template().await? {
            Found::There(files) => files,
            Found::Made(files) => {
                note.get_or_insert_with(|| "its template was made first".to_owned());
                files
            }
            Found::Not { instead, why } => {
                complain(&why);
                let running = match instead {
                    Instead::Booted(running) => *running,
                    Instead::Boot => launcher.boot().await?,
                    Instead::BootAndWarmUp => warm.cold().await?,
                };
                return Ok((running, StartRecord { note: Some(why), ..StartRecord::default() }));
            }
        };
        match warm.restore(files).await? {
            Ok(running) => {
                let template = Some(warm.key.id().to_string());
                return Ok((running, StartRecord { template, note, saved: None }));
            }
            Err(why) => {
                let why = format!("its template did not work: {why}");
                complain(&why);
                warm.set_aside(&why).await?;
                note = Some(why);
            }
        }
    }
    Ok((warm.cold().await?, StartRecord { note, ..StartRecord::default() }))
}

fn key(launcher: &Launcher, cache: &TemplateCache) -> TemplateKey {
    let spec = &launcher.spec;
    TemplateKey {
        engine: spec.engine.clone(),
        program: spec.engine_program.clone(),
        cpus: spec.cpus,
        memory_mib: spec.memory_mib,
        disk_mib: spec.disk.map_or(0, DiskSize::mib),
        boot: cache.boot.clone(),
        rootfs: spec.rootfs_digest.clone(),
        warm_up: if cache.warm_up.is_empty() {
            String::new()
        } else {
            // It has nothing but texts and numbers, which all have a form in JSON.
            serde_json::to_string(&cache.warm_up).unwrap_or_default()
        },
    }
}

/// What came of the search for a template.
enum Found {
    There(SavedFiles),
    /// This process made it.
    Made(SavedFiles),
    /// There is none, and none could be made.
    Not {
        instead: Instead,
        why: String,
    },
}

/// What is used where there is no template.
enum Instead {
    /// The machine that was booted for it.
    Booted(Box<Running>),
    /// Another one: the warm-up failed, and what it left is in that one.
    Boot,
    /// Another one, which warms up first.
    BootAndWarmUp,
}

struct Warm<'a> {
    cache: &'a TemplateCache,
    templates: Templates,
    key: TemplateKey,
    launcher: &'a Launcher,
}

impl Warm<'_> {
    /// Finds the template, or makes it, or waits for who makes it.
    async fn template(&self) -> Result<Found, Failure> {
        let begun = Instant::now();
        let within = MADE_WITHIN + warm_up::limit(&self.cache.warm_up);
        let not = |why| Ok(Found::Not { instead: Instead::BootAndWarmUp, why });
        loop {
            let (templates, key) = (self.templates.clone(), self.key.clone());
            let making = apart(move || {
                Ok(match templates.find(&key) {
                    Ok(Some(files)) => Ok(Making::Made(files)),
                    Ok(None) => templates.make(&key),
                    Err(error @ cellule_snapshot::Error::Damaged { .. }) => {
                        complain(&chain(&error));
                        templates.set_aside(&key.id(), &chain(&error)).and_then(|()| templates.make(&key))
                    }
                    Err(error) => Err(error),
                })
            });
            match making.await? {
                Ok(Making::Made(files)) => {
                    self.launcher.steps.tell("template", begun);
                    return Ok(Found::There(files));
                }
                Ok(Making::Yours(draft)) => return self.make(draft).await,
                Ok(Making::Busy) if begun.elapsed() < within => sleep(LOOK_AGAIN_AFTER).await,
                Ok(Making::Busy) => {
                    let seconds = within.as_secs();
                    return not(format!("another process makes its template for more than {seconds} s"));
                }
                Err(error) => return not(format!("no template: {}", chain(&error))),
            }
        }
    }

    /// Boots a machine and saves it. A boot that fails is the start's own failure.
    async fn make(&self, mut draft: Draft) -> Result<Found, Failure> {
        let booted = self.launcher.boot().await?;
        // A guest that is not sound is nothing to start from. And what each start replaces has its place already: to put one
        // thing in another's costs a guest that just woke less than to make a place for it.
        let answer = booted.handshake(Some(nobodys())).await?;
        self.launcher.steps.guests(&answer);
        if let Err(why) = warm_up::prepare(&booted, &self.cache.warm_up).await {
            // It is half prepared, which no sandbox should be.
            return Ok(Found::Not {
                instead: Instead::Boot,
                why: format!("no template could be made: {why}"),
            });
        }
        let Running { machine, session: heard, disk, link, .. } = booted;
        drop(heard);
        sleep(REST).await;

        let begun = Instant::now();
        let label = self.launcher.spec.image.clone();
        let saved = async {
            machine.pause().await.map_err(|error| chain(&error))?;
            let memory = draft.memory().map_err(|error| chain(&error))?;
            let saved = machine.save(memory).await.map_err(|error| chain(&error))?;
            let disk = disk.as_ref().map(File::try_clone).transpose().map_err(|error| chain(&error))?;
            let published = apart(move || {
                // The machine stands still until this is done.
                let copied = disk.map_or(Ok(()), |disk| draft.copy_disk(&disk));
                Ok(copied.and_then(|()| draft.publish(&label, &saved)))
            });
            published.await.map_err(|failure| failure.line())?.map_err(|error| chain(&error))
        };
        match saved.await {
            Ok(files) => {
                self.launcher.steps.tell("template", begun);
                // This one has all of its memory for itself; the one that is restored shares it.
                drop(machine);
                Ok(Found::Made(files))
            }
            Err(why) => {
                let why = format!("no template could be made: {why}");
                machine.resume().await.map_err(|error| Failure::control(&error))?;
                let session = session(&*machine, BACK_WITHIN).await?;
                session.go_on().await.map_err(|error| Failure::call(&error))?;
                Ok(Found::Not {
                    instead: Instead::Booted(Box::new(Running { machine, session, base: None, disk, link })),
                    why,
                })
            }
        }
    }

    /// Boots a machine that is nobody's template, and warms it up.
    async fn cold(&self) -> Result<Running, Failure> {
        Ok(self.boot(&self.cache.warm_up).await?.0)
    }

    /// Boots a machine and warms it up so, and gives what became of that if it failed.
    async fn boot(&self, warm_up: &WarmUp) -> Result<(Running, Option<String>), Failure> {
        let running = self.launcher.boot().await?;
        if warm_up.is_empty() {
            return Ok((running, None));
        }
        running.handshake(Some(nobodys())).await?;
        let failed = warm_up::prepare(&running, warm_up).await.err();
        if let Some(why) = &failed {
            complain(why);
        }
        running.session.go_on().await.map_err(|error| Failure::call(&error))?;
        Ok((running, failed))
    }

    /// Restores a machine; the inner error is what is wrong with the template.
    async fn restore(&self, files: SavedFiles) -> Result<Result<Running, String>, Failure> {
        let (saved, disk) =
            match apart(move || Ok(files.load().and_then(|saved| Ok((saved, files.disk()?))))).await? {
                Ok(loaded) => loaded,
                Err(error) => return Ok(Err(chain(&error))),
            };
        match self.launcher.restore(saved, disk).await {
            Ok(Ok(running)) => Ok(Ok(running)),
            Ok(Err(error)) => match &error {
                LaunchError::Mismatch(_)
                | LaunchError::Damaged { .. }
                | LaunchError::Exited { .. }
                | LaunchError::Control(_) => Ok(Err(chain(&error))),
                // The host's fault: a boot would meet it too.
                _ => Err(Failure::launch(&error)),
            },
            // It ran, and its agent was not heard.
            Err(failure) if failure.kind != FailureKind::Launch => Ok(Err(failure.line())),
            Err(failure) => Err(failure),
        }
    }

    async fn set_aside(&self, why: &str) -> Result<(), Failure> {
        let (templates, id, why) = (self.templates.clone(), self.key.id(), why.to_owned());
        apart(move || {
            if let Err(error) = templates.set_aside(&id, &why) {
                complain(&chain(&error));
            }
            Ok(())
        })
        .await
    }
}

/// An error and its causes in a line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    Failure::new(FailureKind::Launch, error.to_string(), error.source()).line()
}
