//! `cellule stats`: what sandboxes use, once or again and again.

mod figures;
mod screen;

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cellule::{Entry, Host, Sandbox, State};
use tokio::sync::Mutex;

use self::figures::{Figures, Line, Sample};
use self::screen::Screen;
use crate::failure::Failure;
use crate::listing::{FormatOption, NoTrunc};
use crate::{completion, host, library_failure};

/// How often figures are shown, and over what time they are measured.
const PERIOD: Duration = Duration::from_secs(1);
/// How long a guest may take to tell what it uses.
const ANSWER: Duration = Duration::from_secs(5);

/// Show what running sandboxes use: of their own machines, and of this host
///
/// CPU and memory are those of the guest, as its programs see them. HOST CPU and HOST MEM are what the sandbox takes of
/// this host, its engine and its supervisor together.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Names, or what ids begin with; all that run if none is named
    #[arg(value_name = "SANDBOX", add = completion::sandbox())]
    sandboxes: Vec<String>,
    /// Show those too that do not run
    #[arg(short, long, conflicts_with = "sandboxes")]
    all: bool,
    /// Show it once
    #[arg(long)]
    no_stream: bool,
    #[command(flatten)]
    trunc: NoTrunc,
    #[command(flatten)]
    format: FormatOption,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    super::runtime()?.block_on(stream(arguments))?;
    Ok(ExitCode::SUCCESS)
}

async fn stream(arguments: &Arguments) -> Result<(), Failure> {
    let host = host::locate()?;
    let mut meters = Meters { host: host.clone(), known: HashMap::new() };
    let mut screen = Screen::of(arguments.format.format);
    // Names may change; which ones were meant does not.
    let mut named = Vec::new();
    for name in &arguments.sandboxes {
        named.push(host.find(name).map_err(|error| library_failure::of(&error))?.spec.id.to_string());
    }
    // The first look has nothing to compare with.
    meters.measure(&chosen(&host, &named, arguments.all)?).await;
    loop {
        tokio::time::sleep(PERIOD).await;
        let entries = chosen(&host, &named, arguments.all)?;
        let lines = meters.measure(&entries).await;
        if !screen.show(&arguments.format.render(&lines, arguments.trunc.no_trunc)?)? {
            return Ok(());
        }
        // Those that were named have all ended.
        let over = !named.is_empty() && !entries.iter().any(Entry::is_live);
        if arguments.no_stream || over {
            return Ok(());
        }
    }
}

fn chosen(host: &Host, named: &[String], all: bool) -> Result<Vec<Entry>, Failure> {
    let entries = host.list().map_err(|error| library_failure::of(&error))?;
    let wanted = |entry: &Entry| match named {
        [] => all || entry.is_live(),
        named => named.iter().any(|id| id == entry.spec.id.as_str()),
    };
    Ok(entries.into_iter().filter(wanted).collect())
}

/// What was measured last of each sandbox, and the connection to it.
struct Meters {
    host: Host,
    known: HashMap<String, Meter>,
}

#[derive(Clone, Default)]
struct Meter {
    /// Held by whoever asks; a guest that is slow to answer is not asked again meanwhile.
    sandbox: Arc<Mutex<Option<Sandbox>>>,
    last: Option<Sample>,
}

impl Meters {
    /// Measures all of them at the same time.
    async fn measure(&mut self, entries: &[Entry]) -> Vec<Line> {
        self.known.retain(|id, _| entries.iter().any(|entry| entry.spec.id.as_str() == id));
        let asked: Vec<_> = entries
            .iter()
            .map(|entry| {
                // To ask one that is paused would wake it, or fail.
                let asked = entry.record.state == State::Running;
                let meter = self.known.entry(entry.spec.id.to_string()).or_default();
                let (sandbox, host, entry) = (Arc::clone(&meter.sandbox), self.host.clone(), entry.clone());
                asked.then(|| {
                    tokio::spawn(async move {
                        let sampled = tokio::time::timeout(ANSWER, sample(host, entry, sandbox)).await;
                        sampled.ok().flatten()
                    })
                })
            })
            .collect();
        let mut lines = Vec::with_capacity(entries.len());
        for (entry, asked) in entries.iter().zip(asked) {
            let now = match asked {
                Some(asked) => asked.await.ok().flatten(),
                None => None,
            };
            let meter = self.known.entry(entry.spec.id.to_string()).or_default();
            let before = std::mem::replace(&mut meter.last, now);
            lines.push(Line::of(entry, now.map(|now| Figures::between(before, now))));
        }
        lines
    }
}

/// Asks one, over the connection that is there or a new one.
async fn sample(host: Host, entry: Entry, sandbox: Arc<Mutex<Option<Sandbox>>>) -> Option<Sample> {
    let mut connection = sandbox.try_lock().ok()?;
    let mut open = match connection.take() {
        Some(open) => open,
        None => Sandbox::open(host, entry).await.ok()?,
    };
    let stats = open.stats().await.ok()?;
    *connection = Some(open);
    Some(Sample { at: Instant::now(), stats })
}
