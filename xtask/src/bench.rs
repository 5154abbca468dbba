//! Measures Cellule, each figure beside the floor that the same machine sets in the same run.
//!
//! The floor is a bare QEMU with the same kernel, CPU model and command line, and an init that does nothing else than
//! what is measured: it is what no program of ours can beat.

mod copies;
mod floor;
mod network;
mod sandbox;
mod statistics;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum as _;
use serde::Serialize;

use self::statistics::Figure;
pub(crate) use self::statistics::Percentiles;
use crate::Result;

/// What can be measured by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Section {
    /// From a start to an agent that answers, and to a command's first output
    Boot,
    /// The same from a template
    Start,
    /// Pools, forks and snapshots
    Copies,
    /// Programs started in a sandbox that runs
    Exec,
    /// Files into a sandbox and out of it
    Files,
    /// What a sandbox takes that does nothing
    Idle,
    /// Standard input through a program and back
    Streams,
    /// A root filesystem's tar becoming an image
    Import,
    /// Throughput, round trips and connections, beside QEMU's own user network and passt; only when it is named
    Network,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// What to measure; everything, unless named
    #[arg(value_enum)]
    sections: Vec<Section>,
    /// How many times a boot is measured
    #[arg(long, default_value_t = 10)]
    boots: u32,
    /// How many times a start from a template is measured
    #[arg(long, default_value_t = 30)]
    starts: u32,
    /// How many times each of a pool, a fork and a snapshot is measured
    #[arg(long, default_value_t = 20)]
    copies: u32,
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
    /// A root filesystem's tar with iperf3, iproute2 and Python, whose network is measured
    #[arg(long, default_value = "target/fixtures/clients.tar")]
    clients: PathBuf,
    /// How often each network is measured
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Write the figures to this file as JSON too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// All that one run measured.
#[derive(Debug, Default, Serialize)]
struct Results {
    figures: Vec<Figure>,
    idle: Option<sandbox::Idle>,
    /// What idle copies of one sandbox take together.
    family: Option<copies::Family>,
    network: Option<network::Network>,
    /// How long it took until all execs that ran at once, each sleeping a second, had ended rightly.
    at_once_seconds: Option<f64>,
}

struct Run<'a> {
    arguments: &'a Arguments,
    runtime: tokio::runtime::Runtime,
    home: &'a Path,
    program: &'a Path,
    bench: sandbox::Bench,
    floor: floor::Floor,
    results: Results,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let program = crate::program()?;
    let home = tempfile::Builder::new().prefix("cellule-bench-").tempdir()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let bench = runtime.block_on(sandbox::Bench::prepare(home.path(), &program))?;
    let floor = floor::Floor::prepare(home.path(), &runtime.block_on(bench.engine_command_line())?)?;
    let mut run = Run {
        arguments,
        home: home.path(),
        program: &program,
        runtime,
        bench,
        floor,
        results: Results::default(),
    };
    for section in Section::value_variants() {
        let all = arguments.sections.is_empty() && *section != Section::Network;
        if all || arguments.sections.contains(section) {
            eprintln!("{section:?}");
            run.measure(*section)?;
        }
    }
    run.results.show()?;
    if let Some(path) = &arguments.json {
        let json = serde_json::to_string_pretty(&run.results)?;
        std::fs::File::create(path)?.write_all(json.as_bytes())?;
    }
    Ok(())
}

impl Run<'_> {
    fn measure(&mut self, section: Section) -> Result<()> {
        match section {
            Section::Boot => self.boot(),
            Section::Start => self.start(),
            Section::Copies => self.copies(),
            Section::Exec => self.exec(),
            Section::Files => self.files(),
            Section::Idle => self.idle(),
            Section::Streams => self.streams(),
            Section::Import => self.import(),
            Section::Network => self.network(),
        }
    }

    // Turn by turn, so that a machine that becomes slower becomes so for both.
    fn boot(&mut self) -> Result<()> {
        let (mut boot, mut first_output, mut bare) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.arguments.boots {
            bare.push(self.floor.boot()?);
            boot.push(self.runtime.block_on(self.bench.boot())?);
            first_output.push(self.bench.first_output()?);
        }
        for (what, times) in
            [("cold boot to agent ready", &boot), ("`cellule run` to first output", &first_output)]
        {
            self.time(what, times, ("bare QEMU to its init", &bare));
        }
        Ok(())
    }

    fn start(&mut self) -> Result<()> {
        let (mut warm, mut cold, mut library, mut bare) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let restored = self.runtime.block_on(self.floor.saved())?;
        // The first makes the template.
        self.bench.whole_run(false)?;
        for turn in 0..self.arguments.starts {
            bare.push(self.runtime.block_on(restored.to_first_fork())?);
            library.push(self.runtime.block_on(self.bench.warm_to_output())?);
            warm.push(self.bench.whole_run(false)?);
            if turn % 5 == 0 {
                cold.push(self.bench.whole_run(true)?);
            }
        }
        self.time("`cellule run base true`, warm", &warm, ("the same with --cold", &cold));
        let floor = ("bare QEMU restored, and fork, exec and end in it", bare.as_slice());
        self.time("library: start from a template to first output", &library, floor);
        Ok(())
    }

    fn network(&mut self) -> Result<()> {
        // A relative path is the name of an image.
        let clients = std::fs::canonicalize(&self.arguments.clients)?;
        let setting = network::Setting { home: self.home, program: self.program, image: &clients };
        let network = setting.measure(self.arguments.rounds)?;
        network.show();
        self.results.network = Some(network);
        Ok(())
    }

    fn copies(&mut self) -> Result<()> {
        let count = self.arguments.copies;
        let [acquired, inside] = self.runtime.block_on(self.bench.acquire(count))?;
        self.time(
            "pool: acquire to first output",
            &acquired,
            ("fork, exec and end, measured in the guest", &inside),
        );
        let [paused, whole] = self.runtime.block_on(self.bench.fork(count))?;
        self.time("fork: the parent's standstill", &paused, ("all of the fork, to its answer", &whole));
        let (family, all, one) = self.runtime.block_on(self.bench.family(20))?;
        self.time("20 forks, all answering", &[all], ("one fork, answering", &one));
        self.results.family = Some(family);
        let [snapshots, writes] = self.runtime.block_on(self.bench.snapshot(count.min(10)))?;
        self.time(
            "snapshot of 200 MiB that changed",
            &snapshots,
            ("as many bytes written and synced", &writes),
        );
        Ok(())
    }

    fn exec(&mut self) -> Result<()> {
        let [execs, with_output, inside] = self.runtime.block_on(self.bench.execs(self.arguments.execs))?;
        let forks = self.floor.forks(self.arguments.execs)?;
        let what = "exec round trip of `true`";
        let shell = "fork, exec and end of the same, measured by a shell in the guest";
        self.time(what, &execs, (shell, &inside));
        self.time(what, &execs, ("posix_spawn of a static program in a bare guest", &forks));
        self.time("the same, its output collected", &with_output, (shell, &inside));
        let at_once = self.runtime.block_on(self.bench.at_once(self.arguments.at_once))?;
        self.results.at_once_seconds = Some(at_once.as_secs_f64());
        Ok(())
    }

    fn files(&mut self) -> Result<()> {
        let megabytes = self.arguments.file_megabytes;
        let (mut into, mut out, mut sink, mut source) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..3 {
            sink.push(self.floor.sink(megabytes)?);
            source.push(self.floor.source(megabytes)?);
            let (to, from) = self.runtime.block_on(self.bench.file(megabytes))?;
            into.push(to);
            out.push(from);
        }
        self.rate("a file into a sandbox", &into, Some(("bytes into a bare guest", &sink)));
        self.rate("a file out of a sandbox", &out, Some(("bytes out of a bare guest", &source)));
        Ok(())
    }

    fn idle(&mut self) -> Result<()> {
        let over = Duration::from_secs(self.arguments.idle);
        self.results.idle = Some(self.runtime.block_on(self.bench.idle(over))?);
        Ok(())
    }

    fn streams(&mut self) -> Result<()> {
        let (mut through, mut echo) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            echo.push(self.floor.echo(self.arguments.megabytes)?);
            through.push(self.bench.throughput(self.arguments.megabytes)?);
        }
        let floor = ("echo over a bare virtio-serial port", echo.as_slice());
        self.rate("stdin through `cat` and back", &through, Some(floor));
        Ok(())
    }

    fn import(&mut self) -> Result<()> {
        let tar = &self.arguments.tar;
        if tar.exists() {
            let rates = self.bench.import(tar)?;
            self.rate("image import, plain tar", &rates, None);
        } else {
            let tar = tar.display();
            eprintln!("no import is measured: {tar} is not there (scripts/make-fixtures target/fixtures)");
        }
        Ok(())
    }

    fn time(&mut self, what: &'static str, times: &[Duration], floor: (&'static str, &[Duration])) {
        self.results.figures.push(Figure::time(what, times, Some(floor)));
    }

    fn rate(&mut self, what: &'static str, rates: &[f64], floor: Option<(&'static str, &[f64])>) {
        self.results.figures.push(Figure::rate(what, rates, floor));
    }
}

impl Results {
    fn show(&self) -> Result<()> {
        for figure in &self.figures {
            println!("{figure}");
        }
        if let Some(idle) = &self.idle {
            for (process, kib) in &idle.resident_kib {
                println!(
                    "resident memory, idle sandbox: {process:<12} {:>8.1} MiB",
                    f64::from(u32::try_from(*kib)?) / 1024.0
                );
            }
            println!("threads of the supervisor: {}", idle.supervisor_threads.join(", "));
            println!("processor time of an idle sandbox: {:.2} % of one core", idle.cpu_percent);
        }
        if let Some(family) = &self.family {
            println!("{family}");
        }
        if let Some(seconds) = self.at_once_seconds {
            println!("execs at once, each a second long: {seconds:.1} s");
        }
        Ok(())
    }
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
