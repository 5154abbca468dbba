//! Signals by their names, as people and images write them.

use std::fmt;
use std::str::FromStr;

/// The classic signals of Linux on x86-64 in the order of their numbers.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
/// The first real-time signal that programs may use, and the last.
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

/// A signal of the guest's, which is a Linux on x86-64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signal(i32);

impl Signal {
    /// Ends a program that cannot refuse.
    pub const KILL: Self = Self(9);
    /// Asks a program to end.
    pub const TERM: Self = Self(15);
    /// What Ctrl-C sends.
    pub const INT: Self = Self(2);
    /// A terminal went away.
    pub const HUP: Self = Self(1);

    /// The signal of this number, if there is one.
    pub fn from_number(number: i32) -> Option<Self> {
        (1..=*REAL_TIME.end()).contains(&number).then_some(Self(number))
    }

    /// Its number.
    pub fn number(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = usize::try_from(self.0 - 1).ok().and_then(|at| NAMES.get(at));
        match name {
            Some(name) => write!(f, "SIG{name}"),
            None if self.0 == *REAL_TIME.start() => f.write_str("SIGRTMIN"),
            None if REAL_TIME.contains(&self.0) => write!(f, "SIGRTMIN+{}", self.0 - REAL_TIME.start()),
            None => write!(f, "signal {}", self.0),
        }
    }
}

/// A text that names no signal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no signal: give a name such as TERM or SIGTERM, or a number from 1 to 64")]
pub struct InvalidSignal(pub String);

impl FromStr for Signal {
    type Err = InvalidSignal;

    fn from_str(text: &str) -> Result<Self, InvalidSignal> {
        let invalid = || InvalidSignal(text.to_owned());
        if let Ok(number) = text.parse() {
            return Self::from_number(number).ok_or_else(invalid);
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some(at) = NAMES.iter().position(|known| *known == name) {
            return Ok(Self(i32::try_from(at).unwrap_or_default() + 1));
        }
        let number = match name {
            "CLD" => Some(17),
            "POLL" => Some(29),
            _ => real_time(name),
        };
        number.map(Self).ok_or_else(invalid)
    }
}

/// `RTMIN`, `RTMIN+n`, `RTMAX`, `RTMAX-n`.
fn real_time(name: &str) -> Option<i32> {
    let (from, rest, sign) = match name.strip_prefix("RTMIN") {
        Some(rest) => (*REAL_TIME.start(), rest, '+'),
        None => (*REAL_TIME.end(), name.strip_prefix("RTMAX")?, '-'),
    };
    let offset = match rest.strip_prefix(sign) {
        Some(digits) => i32::from(digits.parse::<u8>().ok()?),
        None if rest.is_empty() => 0,
        None => return None,
    };
    let number = if sign == '+' { from + offset } else { from - offset };
    REAL_TIME.contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_numbers_and_their_short_forms_are_signals() {
        for (text, number) in [
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigkill", 9),
            ("9", 9),
            ("HUP", 1),
            ("WINCH", 28),
            ("SYS", 31),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("64", 64),
            ("CLD", 17),
            ("POLL", 29),
        ] {
            assert_eq!(text.parse::<Signal>().map(Signal::number), Ok(number), "{text}");
        }
    }

    #[test]
    fn what_is_no_signal_is_refused() {
        for text in ["", "0", "65", "-9", "TERMINATE", "SIG", "RTMIN+99", "RTMIN+-1", "RTMAX+1", "RTMIN+é"] {
            assert!(text.parse::<Signal>().is_err(), "{text}");
        }
    }

    #[test]
    fn each_shows_the_name_that_it_is_parsed_from() {
        for number in (1..=31).chain(34..=64) {
            let signal = Signal::from_number(number).unwrap();
            assert_eq!(signal.to_string().parse(), Ok(signal));
        }
    }
}
