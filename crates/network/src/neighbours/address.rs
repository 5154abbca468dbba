//! Owns the addresses of neighbours. Each has one of IPv4 and one of IPv6 that come of its id alone, so that they are the same for every
//! sandbox, and for a copy of a guest that remembers one.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;

use crate::address::{NEIGHBOURS_V4, NEIGHBOURS_V6};
use crate::policy::Name;

/// Most neighbours that are known at a time; the one that came first gives way.
pub(super) const MOST: usize = 1024;
/// Addresses of IPv4 that there are, but for the first and the last: what is no host's in a network of any other size is avoided.
const COUNT_V4: u32 = (1 << (32 - NEIGHBOURS_V4.prefix_len())) - 2;

/// Whether an address is one that neighbours have.
pub(super) fn is_neighbours(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => NEIGHBOURS_V4.contains(&address),
        IpAddr::V6(address) => NEIGHBOURS_V6.contains(&address),
    }
}

/// Who is where.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    of: HashMap<Rc<str>, Known>,
    at: HashMap<IpAddr, Rc<str>>,
    /// The ids in the order in which they came.
    order: VecDeque<Rc<str>>,
}

#[derive(Debug)]
struct Known {
    addresses: [IpAddr; 2],
    /// What the guest calls it.
    name: Option<Name>,
}

impl Addresses {
    /// The addresses that `id` has, of IPv4 and of IPv6.
    pub(super) fn of(&mut self, id: &str) -> [IpAddr; 2] {
        if let Some(known) = self.of.get(id) {
            return known.addresses;
        }
        while self.order.len() >= MOST {
            let Some(oldest) = self.order.pop_front() else { break };
            for address in self.of.remove(&oldest).into_iter().flat_map(|known| known.addresses) {
                self.at.remove(&address);
            }
        }
        let addresses = self.free(hash(id));
        let id: Rc<str> = id.into();
        for address in addresses {
            self.at.insert(address, Rc::clone(&id));
        }
        self.order.push_back(Rc::clone(&id));
        self.of.insert(id, Known { addresses, name: None });
        addresses
    }

    /// The addresses of a hash, or the next that nobody has. There are many more than neighbours, so that two who would have the same one
    /// are rare; then who came first has it.
    fn free(&self, hash: u64) -> [IpAddr; 2] {
        let mut v4 = u32::try_from(hash % u64::from(COUNT_V4)).unwrap_or(0);
        let mut v6 = hash;
        let at_v4 = |host: u32| Ipv4Addr::from_bits(NEIGHBOURS_V4.network().to_bits() + 1 + host).into();
        let at_v6 = |host: u64| {
            // No host's is the first.
            Ipv6Addr::from_bits(NEIGHBOURS_V6.network().to_bits() | u128::from(host.max(1))).into()
        };
        while self.at.contains_key(&at_v4(v4)) {
            v4 = (v4 + 1) % COUNT_V4;
        }
        while self.at.contains_key(&at_v6(v6)) {
            v6 = v6.wrapping_add(1);
        }
        [at_v4(v4), at_v6(v6)]
    }

    /// Who is at an address.
    pub(super) fn at(&self, address: IpAddr) -> Option<Rc<str>> {
        self.at.get(&address).map(Rc::clone)
    }

    /// The guest calls `id` so.
    pub(super) fn call(&mut self, id: &str, name: Option<Name>) {
        if let Some(known) = self.of.get_mut(id) {
            known.name = name.or(known.name.take());
        }
    }

    /// What the guest calls `id`; the id itself, if that is a name, where it has not called it anything.
    pub(super) fn name(&self, id: &str) -> Option<Name> {
        self.of.get(id).and_then(|known| known.name.clone()).or_else(|| id.parse().ok())
    }
}

/// FNV-1a, whose bits are mixed once more: the same in every version, and on every host.
fn hash(id: &str) -> u64 {
    let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    mixed ^ (mixed >> 32)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn an_id_has_the_same_addresses_whoever_asks_and_for_good() {
        let addresses = Addresses::default().of("0123456789ab");
        let mut others = Addresses::default();
        others.of("ba9876543210");
        assert_eq!(others.of("0123456789ab"), addresses);
        // Guests remember them, whatever version their gateway is of.
        let expected: [IpAddr; 2] =
            ["198.18.4.231".parse().unwrap(), "fd4e:7c31:5a9d:1:2e4f:2bed:5279:5830".parse().unwrap()];
        assert_eq!(addresses, expected);
    }

    #[test]
    fn who_would_have_an_address_that_is_taken_has_the_next() {
        let mut addresses = Addresses::default();
        let last = u64::from(COUNT_V4) - 1;
        for (hash, v4, v6) in [
            (last, "198.19.255.254", "fd4e:7c31:5a9d:1::1:fffd"),
            (last, "198.18.0.1", "fd4e:7c31:5a9d:1::1:fffe"),
            (0, "198.18.0.2", "fd4e:7c31:5a9d:1::1"),
            (u64::from(COUNT_V4), "198.18.0.3", "fd4e:7c31:5a9d:1::1:ffff"),
        ] {
            let free = addresses.free(hash);
            assert_eq!(free.map(|address| address.to_string()), [v4, v6]);
            assert!(free.into_iter().all(is_neighbours));
            for address in free {
                addresses.at.insert(address, "other".into());
            }
        }
    }

    #[test]
    fn neighbours_without_end_make_the_oldest_forgotten_and_each_has_addresses_of_its_own() {
        let mut addresses = Addresses::default();
        for number in 0..MOST + 50 {
            addresses.of(&format!("{number:012x}"));
        }
        assert_eq!((addresses.of.len(), addresses.at.len(), addresses.order.len()), (MOST, 2 * MOST, MOST));
        let all: HashSet<IpAddr> = addresses.of.values().flat_map(|known| known.addresses).collect();
        assert_eq!(all.len(), 2 * MOST);
        assert!(addresses.name("000000000000").is_none_or(|name| name.as_str() == "000000000000"));
    }

    #[test]
    fn a_neighbour_is_called_as_it_was_asked_for() {
        let mut addresses = Addresses::default();
        addresses.of("0123456789ab");
        assert_eq!(addresses.name("0123456789ab").unwrap().as_str(), "0123456789ab");
        addresses.call("0123456789ab", "web".parse().ok());
        addresses.call("0123456789ab", None);
        assert_eq!(addresses.name("0123456789ab").unwrap().as_str(), "web");
    }
}
