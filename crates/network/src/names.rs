//! Owns what the guest was told of names: which addresses it got from which, so that a connection to an address can be judged by
//! the name that it is meant for.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::policy::Name;

/// Most addresses that are kept; the oldest gives way.
const ADDRESSES: usize = 4096;
/// Most names of one address: the rules are gone through for each.
const NAMES: usize = 8;
/// Programs go on using an address for longer than its time to live.
const AT_LEAST: Duration = Duration::from_secs(600);

/// Addresses and the names that they were given for.
#[derive(Debug, Default)]
pub(crate) struct Names {
    of: HashMap<IpAddr, Vec<(Name, Instant)>>,
    /// The addresses in the order in which they came.
    order: VecDeque<IpAddr>,
}

impl Names {
    /// The guest was told that `name` is at `address`.
    pub(crate) fn learn(&mut self, name: Name, address: IpAddr, ttl: Duration, now: Instant) {
        let address = address.to_canonical();
        let until = now + ttl.max(AT_LEAST);
        if !self.of.contains_key(&address) {
            self.order.push_back(address);
            while self.order.len() > ADDRESSES {
                if let Some(oldest) = self.order.pop_front() {
                    self.of.remove(&oldest);
                }
            }
        }
        let names = self.of.entry(address).or_default();
        names.retain(|(known, until)| *known != name && *until > now);
        if names.len() == NAMES {
            names.remove(0);
        }
        names.push((name, until));
    }

    /// The names by which the guest knows `address`, the last first.
    pub(crate) fn of(&self, address: IpAddr, now: Instant) -> Vec<Name> {
        let names = self.of.get(&address.to_canonical());
        let live = names.into_iter().flatten().rev().filter(|(_, until)| *until > now);
        live.map(|(name, _)| name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_the_names_that_it_was_given_for_until_their_time_is_over() {
        let (mut names, now) = (Names::default(), Instant::now());
        let address = IpAddr::from([203, 0, 113, 5]);
        names.learn(name("a.example"), address, Duration::from_secs(3600), now);
        names.learn(name("b.example"), address, Duration::ZERO, now);
        assert_eq!(names.of(address, now), [name("b.example"), name("a.example")]);
        assert_eq!(names.of(address, now + AT_LEAST), [name("a.example")]);
        assert!(names.of(address, now + Duration::from_secs(3600)).is_empty());
    }

    #[test]
    fn a_guest_that_asks_without_end_makes_the_oldest_addresses_forgotten() {
        let (mut names, now) = (Names::default(), Instant::now());
        for number in 0..u32::try_from(ADDRESSES).unwrap() + 10 {
            names.learn(name("a.example"), IpAddr::from(number.to_be_bytes()), Duration::ZERO, now);
        }
        assert_eq!(names.of.len(), ADDRESSES);
        assert!(names.of(IpAddr::from(5_u32.to_be_bytes()), now).is_empty());
        for number in 0..100 {
            names.learn(name(&format!("n{number}.example")), IpAddr::from([1; 4]), Duration::ZERO, now);
        }
        assert_eq!(names.of(IpAddr::from([1; 4]), now).len(), NAMES);
    }
}
