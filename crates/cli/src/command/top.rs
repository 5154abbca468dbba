//! `cellule top`: the processes of a guest.

use std::process::ExitCode;
use std::time::Duration;

use cellule_protocol::v1::Process;
use serde::Serialize;

use crate::failure::Failure;
use crate::line::one_line;
use crate::listing::{FormatOption, Row};
use crate::quantity::show_size;
use crate::{completion, host, moment};

/// List the processes of a running sandbox
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The sandbox's name, or what its id begins with
    #[arg(add = completion::sandbox())]
    sandbox: String,
    #[command(flatten)]
    format: FormatOption,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let rows = super::runtime()?.block_on(async {
        let mut sandbox = host::connect(&arguments.sandbox).await?;
        let asked = async { Ok::<_, cellule::Error>((sandbox.processes().await?, sandbox.stats().await?)) };
        match asked.await {
            Ok((processes, stats)) => Ok(rows(&processes, stats.uptime_us)),
            Err(error) => Err(host::explained(&mut sandbox, error).await),
        }
    })?;
    crate::answer(&arguments.format.render(&rows, true)?)?;
    Ok(ExitCode::SUCCESS)
}

/// A process. Times are microseconds, sizes bytes.
#[derive(Debug, Serialize)]
struct Line {
    pid: u32,
    parent_pid: u32,
    uid: u32,
    /// Its number where the image has no name for it.
    user: String,
    state: String,
    cpu_us: u64,
    rss_bytes: u64,
    started_us_ago: u64,
    terminal: Option<String>,
    command: String,
}

fn rows(processes: &[Process], uptime_us: u64) -> Vec<Line> {
    let row = |process: &Process| Line {
        pid: process.pid,
        parent_pid: process.parent,
        uid: process.uid,
        user: if process.user.is_empty() { process.uid.to_string() } else { process.user.clone() },
        state: process.state.clone(),
        cpu_us: process.cpu_us,
        rss_bytes: process.rss_bytes,
        started_us_ago: uptime_us.saturating_sub(process.started_us),
        terminal: Some(process.terminal.clone()).filter(|terminal| !terminal.is_empty()),
        command: String::from_utf8_lossy(&process.command).into_owned(),
    };
    processes.iter().map(row).collect()
}

impl Row<9> for Line {
    const HEADER: [&'static str; 9] =
        ["PID", "PPID", "USER", "STATE", "CPU", "RSS", "START", "TTY", "COMMAND"];

    fn id(&self) -> String {
        self.pid.to_string()
    }

    fn lines(&self, _full: bool) -> Vec<[String; 9]> {
        let ago = i64::try_from(self.started_us_ago.saturating_mul(1000)).unwrap_or(i64::MAX);
        vec![[
            self.pid.to_string(),
            self.parent_pid.to_string(),
            one_line(self.user.as_bytes()),
            one_line(self.state.as_bytes()),
            cpu(Duration::from_micros(self.cpu_us)),
            show_size(self.rss_bytes),
            format!("{} ago", moment::since(0, ago)),
            self.terminal.as_deref().map_or_else(|| "?".to_owned(), |terminal| one_line(terminal.as_bytes())),
            one_line(self.command.as_bytes()),
        ]]
    }
}

/// Minutes, seconds and hundredths, as top(1) has it.
fn cpu(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02}.{:02}", seconds / 60, seconds % 60, time.subsec_millis() / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_as_top_and_ps_do() {
        let process = Process {
            pid: 7,
            parent: 1,
            uid: 1000,
            state: "S".to_owned(),
            cpu_us: 61_230_000,
            rss_bytes: 2_000_000,
            started_us: 40_000_000,
            command: b"sh\n\x1b[2J".to_vec(),
            ..Process::default()
        };
        let [line] = rows(&[process], 100_000_000).try_into().unwrap();
        let line: Line = line;
        let [cells] = line.lines(false).try_into().unwrap();
        let cells: [String; 9] = cells;
        assert_eq!(
            cells.each_ref().map(String::as_str),
            ["7", "1", "1000", "S", "1:01.23", "2.00 MB", "About a minute ago", "?", "sh\u{fffd}\u{fffd}[2J"]
        );
    }

    #[test]
    fn a_process_that_says_it_starts_tomorrow_is_new() {
        let process = Process { started_us: u64::MAX, ..Process::default() };
        assert_eq!(rows(&[process], 5)[0].started_us_ago, 0);
        let process = Process { started_us: 0, ..Process::default() };
        assert!(rows(&[process], u64::MAX)[0].lines(true)[0][6].ends_with("years ago"));
    }
}
