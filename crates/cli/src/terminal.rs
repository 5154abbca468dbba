//! The terminal of this process: its mode, changed for a while and always put back, and its size.

use std::io::{self, IsTerminal as _};
use std::os::fd::{AsFd, OwnedFd};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// A terminal in another mode, until this is dropped.
///
/// No signal may end the process meanwhile without this being dropped: whoever holds it catches them, as
/// [`Signals`](crate::relay::Signals) does. In raw mode no key sends one.
#[derive(Debug)]
pub(crate) struct ChangedMode {
    terminal: OwnedFd,
    before: Termios,
}

impl ChangedMode {
    /// Raw: every key is passed on as it is, and nothing is echoed. What was typed ahead is kept.
    ///
    /// # Errors
    /// It is no terminal, or one that is gone.
    pub(crate) fn raw(terminal: impl AsFd) -> io::Result<Self> {
        Self::change(terminal, OptionalActions::Now, Termios::make_raw)
    }

    /// What is typed does not show. What was typed ahead, and did show, is thrown away.
    ///
    /// # Errors
    /// It is no terminal, or one that is gone.
    pub(crate) fn without_echo(terminal: impl AsFd) -> io::Result<Self> {
        Self::change(terminal, OptionalActions::Flush, |mode| mode.local_modes.remove(LocalModes::ECHO))
    }

    fn change(
        terminal: impl AsFd,
        when: OptionalActions,
        change: impl FnOnce(&mut Termios),
    ) -> io::Result<Self> {
        let terminal = terminal.as_fd().try_clone_to_owned()?;
        let before = tcgetattr(&terminal)?;
        let mut mode = before.clone();
        change(&mut mode);
        // Made first: if only a part of the change is taken, that is put back too.
        let this = Self { terminal, before };
        tcsetattr(&this.terminal, when, &mode)?;
        Ok(this)
    }
}

impl Drop for ChangedMode {
    fn drop(&mut self) {
        // Not after the output is through: a terminal that was stopped with Ctrl-S would hold us for ever. One that is
        // gone needs no mode.
        _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

/// Refuses `-it` where standard input is no terminal. A terminal for the program alone, `-t` without `-i`, needs none
/// here, as with Docker.
pub(crate) fn check_input(interactive: bool, tty: bool) -> Result<(), Failure> {
    if interactive && tty && !io::stdin().is_terminal() {
        return Err(Failure::new("the input device is not a terminal")
            .hint("leave -t out to pass on what is piped in, or -i to pass on nothing"));
    }
    Ok(())
}

/// Rows and columns of a terminal, neither of them zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WindowSize {
    pub(crate) rows: u16,
    pub(crate) columns: u16,
}

impl WindowSize {
    /// The size of a terminal; none if it is no terminal, or one that does not know, as serial lines don't.
    pub(crate) fn of(terminal: impl AsFd) -> Option<Self> {
        let size = tcgetwinsize(terminal).ok()?;
        (size.ws_row > 0 && size.ws_col > 0).then_some(Self { rows: size.ws_row, columns: size.ws_col })
    }

    /// The size of the terminal that this process writes to, or else reads from.
    pub(crate) fn here() -> Option<Self> {
        Self::of(io::stdout()).or_else(|| Self::of(io::stdin()))
    }
}

/// Tells when the window of this process's terminal gets another size.
#[derive(Debug)]
pub(crate) struct Resizes {
    signal: Signal,
    last: Option<WindowSize>,
}

impl Resizes {
    /// From now on no change is missed.
    ///
    /// # Errors
    /// The signal cannot be caught.
    pub(crate) fn watch() -> io::Result<Self> {
        let signal = signal(SignalKind::window_change())?;
        Ok(Self { signal, last: WindowSize::here() })
    }

    /// The size that was told last; at first the one when the watch began.
    pub(crate) fn last(&self) -> Option<WindowSize> {
        self.last
    }

    /// Waits for another size than the last. Several changes in a row may come as one. Cancelled, it misses nothing.
    pub(crate) async fn next(&mut self) -> WindowSize {
        loop {
            if self.signal.recv().await.is_none() {
                // The runtime shuts down, and nobody will be told any more.
                std::future::pending::<()>().await;
            }
            if let Some(size) = WindowSize::here().filter(|size| self.last != Some(*size)) {
                self.last = Some(size);
                return size;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use rustix::fs::{Mode, OFlags};
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::{InputModes, OutputModes, Winsize, tcsetwinsize};

    use super::*;

    /// Both ends of a pseudo-terminal: the one that a terminal program holds, and ours.
    fn pty() -> (OwnedFd, OwnedFd) {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let terminal = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        (master, terminal)
    }

    fn modes(terminal: &OwnedFd) -> (InputModes, OutputModes, LocalModes) {
        let mode = tcgetattr(terminal).unwrap();
        (mode.input_modes, mode.output_modes, mode.local_modes)
    }

    #[test]
    fn raw_mode_passes_every_key_on_and_ends_with_its_guard() {
        let (_master, terminal) = pty();
        let before = modes(&terminal);
        let raw = ChangedMode::raw(&terminal).unwrap();
        let off = LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG | LocalModes::IEXTEN;
        assert!(!modes(&terminal).2.intersects(off));
        assert!(!modes(&terminal).0.intersects(InputModes::ICRNL | InputModes::IXON));
        drop(raw);
        assert_eq!(modes(&terminal), before);
    }

    #[test]
    fn a_panic_puts_the_mode_back() {
        let (_master, terminal) = pty();
        let before = modes(&terminal);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _raw = ChangedMode::raw(&terminal).unwrap();
            assert_eq!(modes(&terminal), before, "this is the panic");
        }));
        assert!(panicked.is_err());
        assert_eq!(modes(&terminal), before);
    }

    #[test]
    fn without_echo_lines_and_signals_stay() {
        let (_master, terminal) = pty();
        let before = modes(&terminal);
        let hidden = ChangedMode::without_echo(&terminal).unwrap();
        assert_eq!(modes(&terminal).2, before.2 - LocalModes::ECHO);
        assert!(modes(&terminal).2.contains(LocalModes::ICANON | LocalModes::ISIG));
        drop(hidden);
        assert_eq!(modes(&terminal), before);
    }

    #[test]
    fn a_terminal_that_is_gone_or_none_is_no_panic() {
        let (master, terminal) = pty();
        let raw = ChangedMode::raw(&terminal).unwrap();
        drop(master);
        drop(raw);
        assert!(ChangedMode::raw(File::open("/dev/null").unwrap()).is_err());
    }

    #[test]
    fn the_size_is_the_windows_and_none_where_nobody_knows_it() {
        let (_master, terminal) = pty();
        assert_eq!(WindowSize::of(&terminal), None);
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&terminal, size).unwrap();
        assert_eq!(WindowSize::of(&terminal), Some(WindowSize { rows: 24, columns: 80 }));
        assert_eq!(WindowSize::of(File::open("/dev/null").unwrap()), None);
    }
}
