use std::net::Ipv6Addr;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

const NAMES: [&str; 4] = ["a.com", "b.a.com", "c.b.a.com", "d.org"];

fn v4() -> impl Strategy<Value = u32> {
    let known = ["10.0.0.1", "127.0.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "240.1.1.1", "8.8.8.8"];
    prop_oneof![any::<u32>(), select(known.map(|text| text.parse::<Ipv4Addr>().unwrap().to_bits()).to_vec())]
}

fn address() -> impl Strategy<Value = IpAddr> {
    let embeds = select(vec![0_u128, 0xffff << 32, 0xffff << 48, 0x0064_ff9b << 96, 0x0064_ff9b_0001 << 80]);
    prop_oneof![
        v4().prop_map(|bits| Ipv4Addr::from(bits).into()),
        (embeds, v4()).prop_map(|(prefix, bits)| Ipv6Addr::from(prefix | u128::from(bits)).into()),
        v4().prop_map(|bits| Ipv6Addr::from(0x2002 << 112 | u128::from(bits) << 80).into()),
        any::<u128>().prop_map(|bits| Ipv6Addr::from(bits).into()),
        any::<u128>().prop_map(|bits| Ipv6Addr::from(bits >> 3 | 1 << 125).into()),
    ]
}

/// A rule without an address in it: by name or for everything.
fn nameable() -> impl Strategy<Value = String> {
    let host = select(vec!["a.com", "*.a.com", "*.b.a.com", "d.org", "*", "0.0.0.0/0", "::/0"]);
    let rest = select(vec!["", "/udp", "/tcp", "/icmp", ":443", ":53,443/udp"]);
    (select(vec!["allow", "deny"]), host, rest).prop_map(|(action, host, rest)| {
        let host = if host == "::/0" && rest.starts_with(':') { "[::/0]" } else { host };
        format!("{action} {host}{rest}")
    })
}

fn with_address() -> impl Strategy<Value = String> {
    (select(vec!["allow", "deny"]), address(), 0..=128_u8).prop_map(|(action, address, prefix)| {
        let prefix = prefix.min(if address.is_ipv4() { 32 } else { 128 });
        format!("{action} {}", ipnet::IpNet::new(address, prefix).unwrap().trunc())
    })
}

fn made_of(rule: impl Strategy<Value = String>) -> impl Strategy<Value = Policy> {
    let base = option::of(select(vec![Base::None, Base::Public, Base::All]));
    (base, vec(rule, 0..12))
        .prop_map(|(base, rules)| policy(base, &rules.iter().map(String::as_str).collect::<Vec<_>>()))
}

#[derive(Debug, Clone)]
struct To {
    address: IpAddr,
    port: u16,
    protocol: Protocol,
    names: Vec<Name>,
    is_hosts_own: bool,
}

impl To {
    fn destination(&self) -> Destination<'_> {
        let Self { address, port, protocol, ref names, is_hosts_own } = *self;
        Destination { address, port, protocol, names, is_hosts_own }
    }
}

fn to() -> impl Strategy<Value = To> {
    let port = select(vec![53, 80, 443]);
    let protocol = select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Icmp]);
    let names = vec(select(names(&NAMES)), 0..4);
    (address(), port, protocol, names, any::<bool>()).prop_map(
        |(address, port, protocol, names, is_hosts_own)| To { address, port, protocol, names, is_hosts_own },
    )
}

proptest! {
    #[test]
    fn nothing_opens_what_is_never_reached(
        policy in made_of(prop_oneof![nameable(), with_address()]),
        to in to(),
    ) {
        let decision = policy.decide(&to.destination());
        prop_assert!(!(decision.allowed && AddressClass::of(to.address).is_never()));
        prop_assert!(!decision.reason.explain(&policy).to_string().is_empty());
    }

    #[test]
    fn without_a_rule_with_the_address_only_public_ones_are_reached(policy in made_of(nameable()), to in to()) {
        let decision = policy.decide(&to.destination());
        if decision.allowed && policy.base() != Base::All {
            prop_assert_eq!(AddressClass::of(to.address), AddressClass::Public);
            prop_assert!(!to.is_hosts_own);
            prop_assert!(embedded_v4(to.address).is_none_or(
                |inner| AddressClass::of(inner.into()) == AddressClass::Public
            ));
        }
    }

    #[test]
    fn what_is_allowed_by_name_goes_on_when_it_shows_one_of_the_names_alone(
        policy in made_of(prop_oneof![nameable(), with_address()]),
        to in to(),
    ) {
        let decision = policy.decide(&to.destination());
        let shown = |name| policy.decide_shown(&to.destination(), name);
        if decision.allowed && decision.by_name {
            prop_assert!(to.names.iter().any(|name| shown(name).allowed));
            let stranger = "example.net".parse().unwrap();
            let nameless = policy.decide(&Destination { names: &[], ..to.destination() });
            prop_assert_eq!(shown(&stranger).allowed, nameless.allowed);
        }
    }

    #[test]
    fn a_name_that_allows_a_connection_can_be_looked_up(
        policy in made_of(prop_oneof![nameable(), with_address()]),
        to in to(),
    ) {
        for name in &to.names {
            let shown = policy.decide_shown(&to.destination(), name);
            if shown.allowed && shown.by_name {
                prop_assert!(policy.decide_name(name, Some(to.port), Some(to.protocol)).allowed);
                prop_assert!(policy.decide_name(name, None, None).allowed);
            }
        }
    }

    #[test]
    fn the_order_of_names_changes_nothing(
        policy in made_of(prop_oneof![nameable(), with_address()]),
        mut to in to(),
    ) {
        let one = policy.decide(&to.destination());
        to.names.reverse();
        let other = policy.decide(&to.destination());
        prop_assert_eq!((one.allowed, one.allowed && one.by_name), (other.allowed, other.allowed && other.by_name));
    }

    #[test]
    fn one_more_denial_in_front_allows_nothing_more(
        policy in made_of(prop_oneof![nameable(), with_address()]),
        denial in prop_oneof![nameable(), with_address()],
        to in to(),
    ) {
        let denial = denial.replace("allow ", "deny ").parse().unwrap();
        let rules = [&[denial], policy.rules()].concat();
        let more = Policy::new(Some(policy.base()), rules).unwrap();
        prop_assert!(policy.decide(&to.destination()).allowed || !more.decide(&to.destination()).allowed);
    }

    #[test]
    fn a_policy_is_read_back_as_it_was_stored(policy in made_of(prop_oneof![nameable(), with_address()])) {
        let text = serde_json::to_string(&policy).unwrap();
        prop_assert_eq!(serde_json::from_str::<Policy>(&text).unwrap(), policy);
    }
}
