//! Shows what takes time. On a terminal a bar for bytes and a line for the rest, which vanish; elsewhere, such as in a log, a
//! line for each step that begins.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cellule_boot::Phase;
use cellule_image::Event;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::failure::printable;

/// Shows progress, or keeps quiet.
#[derive(Debug)]
pub(crate) struct Watch {
    bars: MultiProgress,
    shown: Mutex<BTreeMap<Key, ProgressBar>>,
    /// What was said line by line, where bars cannot be shown.
    said: Option<Mutex<BTreeSet<String>>>,
}

/// What a bar is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Note,
    Layer(usize),
    Building,
    Setup,
}

impl Watch {
    /// One that shows what happens, unless `quiet` is set.
    pub(crate) fn new(quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target =
            if terminal && !quiet { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let said = (!terminal && !quiet).then(Mutex::default);
        Self { bars: MultiProgress::with_draw_target(target), shown: Mutex::default(), said }
    }

    /// Says a step that begins, once, where there are no bars.
    fn line(&self, label: &str) {
        let Some(said) = &self.said else { return };
        if said.lock().unwrap_or_else(PoisonError::into_inner).insert(label.to_owned()) {
            crate::say(&format!("cellule: {}\n", printable(label)));
        }
    }

    fn bar(&self, key: Key, total: u64, label: &str) -> ProgressBar {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = shown.entry(key).or_insert_with(|| {
            let bar = self.bars.add(ProgressBar::new(total));
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        // One bar serves the steps of a set-up, of which only some are counted.
        if bar.length() != Some(total) || bar.message().is_empty() {
            bar.set_style(style(total > 0));
            bar.set_length(total);
        }
        bar.set_message(printable(label));
        bar.clone()
    }

    fn note(&self, label: &str) {
        self.line(label);
        _ = self.bar(Key::Note, 0, label);
    }

    fn finish(&self, key: &Key) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bar) = shown.remove(key) {
            bar.finish_and_clear();
        }
    }

    /// Takes all of it away again, before anything else is printed.
    pub(crate) fn clear(&self) {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clear();
        _ = self.bars.clear();
    }

    /// What happens to an image.
    pub(crate) fn image(&self, event: &Event) {
        match event {
            Event::Resolving { source } => _ = self.bar(Key::Note, 0, &format!("looking for {source}")),
            Event::Resolved { .. } => self.finish(&Key::Note),
            Event::Layer { number, of, bytes, size } => {
                self.line(&format!("fetching layers, {of} in all"));
                self.bar(Key::Layer(*number), *size, &format!("layer {number} of {of}")).set_position(*bytes);
            }
            Event::LayerReady { number, .. } => self.finish(&Key::Layer(*number)),
            Event::Retrying { registry, reason, after } => {
                self.note(&format!("{registry}: {reason}; again in {} s", after.as_secs()));
            }
            Event::Waiting { what } => {
                self.note(&format!("another process makes {what}; waiting for it"));
            }
            Event::Building { bytes, size } => {
                let label = "building the root filesystem";
                self.line(label);
                self.bar(Key::Building, *size, label).set_position(*bytes);
            }
            Event::Done => self.clear(),
            _ => {}
        }
    }

    /// What happens to the boot bundle.
    pub(crate) fn boot(&self, progress: cellule_boot::Progress) {
        let label = phase(progress.phase);
        self.line(label);
        self.bar(Key::Setup, progress.total.unwrap_or(0), label).set_position(progress.done);
    }
}

/// What a phase of the set-up is called.
pub(crate) fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::WaitingForLock => "waiting for another setup",
        Phase::UpdatingPackageLists => "fetching Debian's package lists",
        Phase::Downloading => "downloading a package",
        Phase::Unpacking => "unpacking the kernel and its modules",
        Phase::MakingBase => "making the image `base`",
        Phase::Composing => "putting the boot bundle together",
        _ => "setting up",
    }
}

fn style(counted: bool) -> ProgressStyle {
    let template = if counted { "{msg:30} [{bar:30}] {bytes}/{total_bytes}" } else { "{spinner} {msg}" };
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}
