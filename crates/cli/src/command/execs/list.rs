//! `cellule execs ls`: lists execs.

use std::process::ExitCode;

use cellule::{ExecInfo, Exit};
use serde::Serialize;

use crate::failure::{Failure, TIMED_OUT};
use crate::line::one_line;
use crate::listing::{Listing, NoTrunc, Row};
use crate::quantity::show_size;
use crate::{completion, host, moment};

/// A command longer than this is cut off in a table.
const COMMAND_CHARACTERS: usize = 40;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The sandbox's name, or what its id begins with
    #[arg(add = completion::sandbox())]
    sandbox: String,
    #[command(flatten)]
    trunc: NoTrunc,
    #[command(flatten)]
    listing: Listing,
}

pub(super) async fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let mut sandbox = host::connect(&arguments.sandbox).await?;
    let execs = match sandbox.execs().await {
        Ok(execs) => execs,
        Err(error) => return Err(host::explained(&mut sandbox, error).await),
    };
    let now = moment::now();
    let rows: Vec<Line> = execs.iter().map(|info| Line::of(info, now)).collect();
    crate::answer(&arguments.listing.render(&rows, arguments.trunc.no_trunc)?)?;
    Ok(ExitCode::SUCCESS)
}

/// One exec.
#[derive(Debug, Serialize)]
struct Line {
    id: String,
    pid: u32,
    command: Vec<String>,
    status: String,
    started_ns: i64,
    running: bool,
    exit_code: Option<u8>,
    terminal: bool,
    detached: bool,
    stdout_bytes: u64,
    stdout_dropped_bytes: u64,
    stderr_bytes: u64,
    stderr_dropped_bytes: u64,
}

impl Line {
    fn of(info: &ExecInfo, now: i64) -> Self {
        let exit_code = info.exited.map(|status| match status.exit {
            _ if status.timed_out => TIMED_OUT,
            Exit::Code(code) => code,
            Exit::Signal(signal) => u8::try_from(signal.saturating_add(128)).unwrap_or(u8::MAX),
        });
        let started_ns = moment::of(info.started);
        Self {
            id: info.id.to_string(),
            pid: info.pid,
            command: info.argv.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect(),
            status: match exit_code {
                None => format!("Up {}", moment::since(started_ns, now)),
                Some(code) => format!("Exited ({code})"),
            },
            started_ns,
            running: info.exited.is_none(),
            exit_code,
            terminal: info.terminal,
            detached: info.detached,
            stdout_bytes: info.stdout_bytes,
            stdout_dropped_bytes: info.stdout_dropped,
            stderr_bytes: info.stderr_bytes,
            stderr_dropped_bytes: info.stderr_dropped,
        }
    }
}

impl Row<7> for Line {
    const HEADER: [&'static str; 7] = ["EXEC ID", "PID", "COMMAND", "STATUS", "TTY", "DETACHED", "OUTPUT"];

    fn id(&self) -> String {
        self.id.clone()
    }

    fn lines(&self, full: bool) -> Vec<[String; 7]> {
        let command = one_line(self.command.join(" ").as_bytes());
        let room = if full { usize::MAX } else { COMMAND_CHARACTERS };
        let short: String = command.chars().take(room).collect();
        let mark = if short.len() < command.len() { "…" } else { "" };
        let yes = |flag| if flag { "yes" } else { "no" }.to_owned();
        let output = self.stdout_bytes.saturating_add(self.stderr_bytes);
        let dropped = self.stdout_dropped_bytes.saturating_add(self.stderr_dropped_bytes);
        let kept = if dropped == 0 { String::new() } else { format!(", {} dropped", show_size(dropped)) };
        vec![[
            self.id.clone(),
            self.pid.to_string(),
            format!("{short}{mark}"),
            self.status.clone(),
            yes(self.terminal),
            yes(self.detached),
            format!("{}{kept}", show_size(output)),
        ]]
    }
}

#[cfg(test)]
mod tests {
    use cellule::{ExitStatus, Usage};

    use super::super::tests::info;
    use super::*;

    #[test]
    fn a_line_tells_how_it_stands_and_what_was_dropped() {
        let cells = Line::of(&info(0xabc), 65_000_000_000).lines(false).remove(0);
        assert_eq!(
            cells.each_ref().map(String::as_str),
            [
                "0000000000000abc",
                "7",
                "sh -c true\u{fffd}",
                "Up About a minute",
                "no",
                "yes",
                "3.00 MB, 2.00 MB dropped"
            ]
        );
        let exit = |exit, timed_out| {
            let usage = Usage::default();
            let status = ExitStatus { exit, core_dumped: false, timed_out, oom_killed: false, usage };
            Line::of(&ExecInfo { exited: Some(status), ..info(2) }, 0).status
        };
        assert_eq!(exit(Exit::Code(3), false), "Exited (3)");
        assert_eq!(exit(Exit::Signal(9), false), "Exited (137)");
        assert_eq!(exit(Exit::Signal(9), true), "Exited (124)");
    }
}
