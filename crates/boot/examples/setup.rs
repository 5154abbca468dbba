//! Makes a bundle and says what it is: `setup HOME [debian | host [RELEASE] | KERNEL [MODULES]]`. Without a source
//! it does what a first run does: the bundle that is there, else what is cached, else what suits the host.

use std::cell::Cell;
use std::error::Error;
use std::io::{Write, stdout};
use std::path::Path;
use std::time::Instant;

use cellule_boot::{AGENT, KernelSource, Phase, Progress, ensure, setup};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let home = args.next().ok_or("usage: setup HOME [debian | host [RELEASE] | KERNEL [MODULES]]")?;
    let source = args.next().map(|source| match source.as_str() {
        "debian" => KernelSource::Debian,
        "host" => KernelSource::Host { release: args.next() },
        _ => KernelSource::Files { kernel: source.into(), modules: args.next().map(Into::into) },
    });

    let start = Instant::now();
    let last = Cell::new(None);
    let on_progress = |progress: Progress| {
        if last.replace(Some(progress.phase)) != Some(progress.phase) || progress.phase == Phase::Downloading
        {
            let _ = writeln!(stdout(), "{:6.2} s  {progress:?}", start.elapsed().as_secs_f64());
        }
    };
    let made = match &source {
        Some(source) => setup(Path::new(&home), &AGENT, source, &on_progress),
        None => ensure(Path::new(&home), &AGENT, &on_progress),
    };
    let bundle = made.map_err(|error| {
        let mut text = error.to_string();
        let mut cause: &dyn Error = &error;
        while let Some(source) = cause.source() {
            text = format!("{text}: {source}");
            cause = source;
        }
        text
    })?;
    let made = start.elapsed();
    let verifying = Instant::now();
    bundle.verify()?;
    let verified = verifying.elapsed();
    writeln!(stdout(), "{}", serde_json::to_string_pretty(&bundle.manifest)?)?;
    writeln!(stdout(), "{}\nmade in {made:?}, verified in {verified:?}", bundle.kernel_path.display())?;
    Ok(())
}
