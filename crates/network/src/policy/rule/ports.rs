//! Sets of ports.

use std::fmt;
use std::str::FromStr;

use super::error::RuleError;

/// The most ranges of one rule: all are looked at for every connection.
const MOST: usize = 64;

/// Some ports: ranges in order, with gaps between them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ports(Box<[(u16, u16)]>);

impl Ports {
    /// Whether a port is among them.
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|&(first, last)| (first..=last).contains(&port))
    }
}

impl FromStr for Ports {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut ranges = Vec::new();
        for part in text.split(',') {
            if ranges.len() == MOST {
                return Err(RuleError::TooManyPorts(MOST));
            }
            let range = range(part).ok_or_else(|| RuleError::Ports(text.to_owned()))?;
            ranges.push(range);
        }
        ranges.sort_unstable();
        ranges.dedup_by(|next, kept| {
            let joined = u32::from(next.0) <= u32::from(kept.1) + 1;
            if joined {
                kept.1 = kept.1.max(next.1);
            }
            joined
        });
        Ok(Self(ranges.into()))
    }
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some((first, last))
}

fn port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let port = if digits { text.parse().ok()? } else { 0 };
    (port > 0).then_some(port)
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}
