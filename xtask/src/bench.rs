//! Measures Cellule, each figure beside the floor that the same machine sets in the same run.
//!
//! The floor is a bare QEMU with the same kernel, CPU model and command line, and an init that does nothing else than
//! what is measured: it is what no program of ours can beat.

mod floor;
mod sandbox;
mod statistics;

use std::io::Write as _;
use std::path::PathBuf;

use serde::Serialize;

use self::statistics::Figure;
pub(crate) use self::statistics::Percentiles;
use crate::Result;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many times a boot is measured
    #[arg(long, default_value_t = 10)]
    boots: u32,
    /// How many times an exec is measured
    #[arg(long, default_value_t = 50)]
    execs: u32,
    /// How much goes through standard input and back, in MB
    #[arg(long, default_value_t = 256)]
    megabytes: u64,
    /// How many execs run at once
    #[arg(long, default_value_t = 200)]
    at_once: u32,
    /// How much goes as a file into a sandbox and out again, in MB
    #[arg(long, default_value_t = 1024)]
    file_megabytes: u64,
    /// Over how many seconds an idle sandbox is looked at
    #[arg(long, default_value_t = 60)]
    idle: u64,
    /// A root filesystem's tar, whose import is measured
    #[arg(long, default_value = "target/fixtures/debian.tar")]
    tar: PathBuf,
    /// Write the figures to this file as JSON too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// All that one run measured.
#[derive(Debug, Serialize)]
struct Results {
    figures: Vec<Figure>,
    /// Resident memory of each host process of an idle sandbox, in KiB.
    resident_kib: Vec<(String, u64)>,
    /// The supervisor's threads.
    supervisor_threads: Vec<String>,
    /// Of one core, what an idle sandbox takes.
    idle_cpu_percent: f64,
    /// How long it took until all execs that ran at once, each sleeping a second, had ended rightly.
    at_once_seconds: f64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let program = crate::program()?;
    let home = tempfile::Builder::new().prefix("cellule-bench-").tempdir()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let bench = runtime.block_on(sandbox::Bench::prepare(home.path(), &program))?;
    let floor = floor::Floor::prepare(home.path(), &runtime.block_on(bench.engine_command_line())?)?;

    let mut figures = Vec::new();
    // Turn by turn, so that a machine that becomes slower becomes so for both.
    let (mut boot, mut first_output, mut bare_boot) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=arguments.boots {
        eprintln!("boot {round} of {}", arguments.boots);
        bare_boot.push(floor.boot()?);
        boot.push(runtime.block_on(bench.boot())?);
        first_output.push(bench.first_output()?);
    }
    figures.push(Figure::time(
        "cold boot to agent ready",
        &boot,
        Some(("bare QEMU to its init", &bare_boot)),
    ));
    figures.push(Figure::time(
        "`cellule run` to first output",
        &first_output,
        Some(("bare QEMU to its init", &bare_boot)),
    ));

    eprintln!("execs");
    let (execs, inside) = runtime.block_on(bench.execs(arguments.execs))?;
    let forks = floor.forks(arguments.execs)?;
    figures.push(Figure::time(
        "exec round trip of `true`",
        &execs,
        Some(("fork, exec and end of the same, measured by a shell in the guest", &inside)),
    ));
    figures.push(Figure::time(
        "exec round trip of `true`",
        &execs,
        Some(("posix_spawn of a static program in a bare guest", &forks)),
    ));
    let at_once = runtime.block_on(bench.at_once(arguments.at_once))?;

    eprintln!("files");
    let (mut into, mut out, mut sink, mut source) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..3 {
        sink.push(floor.sink(arguments.file_megabytes)?);
        source.push(floor.source(arguments.file_megabytes)?);
        let (to, from) = runtime.block_on(bench.file(arguments.file_megabytes))?;
        into.push(to);
        out.push(from);
    }
    figures.push(Figure::rate("a file into a sandbox", &into, Some(("bytes into a bare guest", &sink))));
    figures.push(Figure::rate("a file out of a sandbox", &out, Some(("bytes out of a bare guest", &source))));

    eprintln!("idling");
    let idle = runtime.block_on(bench.idle(std::time::Duration::from_secs(arguments.idle)))?;

    eprintln!("streams");
    let (mut through, mut echo) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        echo.push(floor.echo(arguments.megabytes)?);
        through.push(bench.throughput(arguments.megabytes)?);
    }
    figures.push(Figure::rate(
        "stdin through `cat` and back",
        &through,
        Some(("echo over a bare virtio-serial port", &echo)),
    ));

    if arguments.tar.exists() {
        eprintln!("import");
        figures.push(Figure::rate("image import, plain tar", &bench.import(&arguments.tar)?, None));
    } else {
        eprintln!(
            "no import is measured: {} is not there (scripts/make-fixtures target/fixtures)",
            arguments.tar.display()
        );
    }

    let results = Results {
        figures,
        resident_kib: idle.resident,
        supervisor_threads: idle.threads,
        idle_cpu_percent: idle.cpu_percent,
        at_once_seconds: at_once.as_secs_f64(),
    };
    let json = serde_json::to_string_pretty(&results)?;
    for figure in &results.figures {
        println!("{figure}");
    }
    for (process, kib) in &results.resident_kib {
        println!(
            "resident memory, idle sandbox: {process:<12} {:>8.1} MiB",
            f64::from(u32::try_from(*kib)?) / 1024.0
        );
    }
    println!("threads of the supervisor: {}", results.supervisor_threads.join(", "));
    println!("processor time of an idle sandbox: {:.2} % of one core", results.idle_cpu_percent);
    println!("{} execs at once, each a second long: {:.1} s", arguments.at_once, results.at_once_seconds);
    println!("{json}");
    if let Some(path) = &arguments.json {
        std::fs::File::create(path)?.write_all(json.as_bytes())?;
    }
    Ok(())
}

/// Writes so many bytes, in a thread of its own, to whoever gives them back.
fn pour(mut to: impl std::io::Write + Send + 'static, total: u64) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let chunk = vec![7; 128 << 10];
        let mut left = total;
        while left > 0 {
            let part = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
            // A reader that hangs up is seen by whoever waits for the bytes.
            if to.write_all(&chunk[..part]).is_err() {
                return;
            }
            left -= part as u64;
        }
    })
}
