//! A real terminal with somebody at it: tmux, and a shell of this host's in it.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::{Home, binary};

/// What the host's shell asks with.
pub const PROMPT: &str = "host$ ";
/// How long the screen may take to show what it is waited for.
const SCREEN: Duration = Duration::from_secs(60);

/// A terminal of 80 by 24. It ends, with all that runs in it, with this value.
#[derive(Debug)]
pub struct Terminal {
    /// Where tmux listens: a server of this test's own.
    dir: TempDir,
}

impl Terminal {
    /// Opens one whose shell finds `cellule` in PATH, with this state directory.
    pub fn open(home: &Home) -> Self {
        let this = Self { dir: tempfile::tempdir().unwrap() };
        let program = binary();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut tmux = this.tmux();
        // Nothing of the terminal or the tmux that the tests run in.
        tmux.env_clear()
            .env("PATH", format!("{}:{path}", program.parent().unwrap().display()))
            .env("CELLULE_HOME", home.path())
            .env("HOME", home.path())
            .env("PS1", PROMPT)
            // tmux starts it by way of this one, which a user without a login has not.
            .env("SHELL", "/bin/sh")
            .env("LC_ALL", "C.UTF-8");
        tmux.args(["-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", "/bin/sh"]);
        assert!(tmux.status().expect("tmux is installed").success(), "tmux does not start");
        this.shows(PROMPT);
        this
    }

    fn tmux(&self) -> Command {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(self.dir.path().join("tmux")).stdin(Stdio::null());
        command
    }

    #[track_caller]
    fn tell(&self, words: &[&str]) -> String {
        let output = self.tmux().args(words).output().unwrap();
        assert!(output.status.success(), "tmux {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Types this text, as it is.
    #[track_caller]
    pub fn text(&self, text: &str) {
        self.tell(&["send-keys", "-l", text]);
    }

    /// Presses these keys, by tmux's names: `Enter`, `C-c`, `Escape`.
    #[track_caller]
    pub fn keys(&self, keys: &[&str]) {
        self.tell(&[&["send-keys"], keys].concat());
    }

    /// Types a line.
    #[track_caller]
    pub fn line(&self, text: &str) {
        self.text(text);
        self.keys(&["Enter"]);
    }

    /// Empties the screen, so that what is waited for next is new. For the host's shell alone: busybox' takes the answer
    /// to its question for the cursor's place, in the first line, together with what is typed next.
    #[track_caller]
    pub fn clear(&self) {
        self.line("clear");
        self.until("a prompt alone", |screen| {
            let mut lines = screen.lines().filter(|line| !line.is_empty());
            lines.next().is_some_and(|line| line.trim_end().ends_with(['$', '#'])) && lines.next().is_none()
        });
    }

    /// What is to be seen.
    #[track_caller]
    pub fn screen(&self) -> String {
        self.tell(&["capture-pane", "-p"])
    }

    /// Gives the window another size.
    #[track_caller]
    pub fn resize(&self, columns: u16, rows: u16) {
        self.tell(&["resize-window", "-x", &columns.to_string(), "-y", &rows.to_string()]);
    }

    /// Waits until this is to be seen.
    #[track_caller]
    pub fn shows(&self, text: &str) -> String {
        // What stands at the end of a line is shown without its blanks.
        self.until(text, |screen| screen.contains(text.trim_end()))
    }

    /// Waits until a line is nothing but this.
    #[track_caller]
    pub fn shows_line(&self, text: &str) -> String {
        self.until(text, |screen| screen.lines().any(|line| line.trim_end() == text))
    }

    /// Waits until the last line that is not empty ends with this: a prompt.
    #[track_caller]
    pub fn prompts(&self, prompt: &str) -> String {
        self.until(prompt, |screen| {
            screen
                .lines()
                .rfind(|line| !line.is_empty())
                .is_some_and(|line| line.trim_end().ends_with(prompt.trim_end()))
        })
    }

    /// Waits until so many lines are nothing but this.
    #[track_caller]
    pub fn shows_lines(&self, text: &str, count: usize) -> String {
        self.until(text, |screen| screen.lines().filter(|line| line.trim_end() == text).count() == count)
    }

    #[track_caller]
    fn until(&self, what: &str, holds: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        loop {
            let screen = self.screen();
            if holds(&screen) {
                return screen;
            }
            assert!(start.elapsed() < SCREEN, "{what:?} is not to be seen after {SCREEN:?}:\n{screen}");
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// Fails unless the host's shell has the terminal in the mode that people type in.
    #[track_caller]
    pub fn is_sane(&self) {
        self.prompts(PROMPT);
        self.clear();
        // The mark is written so that the line that is typed does not hold it.
        self.line("stty -a; echo en''d");
        let screen = self.shows_line("end");
        for mode in ["icanon", "echo", "isig", "icrnl", "opost"] {
            let on = screen.split_whitespace().any(|word| word == mode);
            assert!(on, "{mode} is off:\n{screen}");
        }
        self.clear();
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        _ = self.tmux().arg("kill-server").stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}
