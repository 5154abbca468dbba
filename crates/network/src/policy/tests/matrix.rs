//! Every base × what is allowed × every kind of address × protocol, held against what the documentation says in short.

use super::*;

const ADDRESSES: &[(&str, AddressClass)] = &[
    ("1.1.1.1", AddressClass::Public),
    ("2606:4700::1111", AddressClass::Public),
    ("::ffff:1.1.1.1", AddressClass::Public),
    ("64:ff9b::1.1.1.1", AddressClass::Public),
    ("10.1.2.3", AddressClass::Private),
    ("172.16.0.1", AddressClass::Private),
    ("192.168.1.1", AddressClass::Private),
    ("fd12::1", AddressClass::Private),
    ("fec0::1", AddressClass::Private),
    ("::ffff:10.1.2.3", AddressClass::Private),
    ("::10.1.2.3", AddressClass::Private),
    ("64:ff9b::10.1.2.3", AddressClass::Private),
    ("64:ff9b:1::10.1.2.3", AddressClass::Private),
    ("2002:a01:203::1", AddressClass::Private),
    ("2606:4700::5efe:10.1.2.3", AddressClass::Private),
    ("169.254.169.254", AddressClass::LinkLocal),
    ("::ffff:169.254.169.254", AddressClass::LinkLocal),
    ("64:ff9b::169.254.169.254", AddressClass::LinkLocal),
    ("2002:a9fe:a9fe::", AddressClass::LinkLocal),
    ("fe80::1", AddressClass::LinkLocal),
    ("100.64.0.1", AddressClass::SharedNat),
    ("168.63.129.16", AddressClass::Metadata),
    ("100.100.100.200", AddressClass::Metadata),
    ("fd00:ec2::254", AddressClass::Metadata),
    ("240.0.0.1", AddressClass::Reserved),
    ("192.0.0.1", AddressClass::Reserved),
    ("198.18.0.1", AddressClass::Reserved),
    ("192.0.2.1", AddressClass::Reserved),
    ("2001:db8::1", AddressClass::Reserved),
    ("2001:0:1::1", AddressClass::Reserved),
    ("2002:101:101::1", AddressClass::Reserved),
    ("64:ff9b:1::1.1.1.1", AddressClass::Reserved),
    ("127.0.0.1", AddressClass::Loopback),
    ("::1", AddressClass::Loopback),
    ("::ffff:127.0.0.1", AddressClass::Loopback),
    ("64:ff9b::127.0.0.1", AddressClass::Loopback),
    ("2002:7f00:1::", AddressClass::Loopback),
    ("0.0.0.0", AddressClass::Unspecified),
    ("::", AddressClass::Unspecified),
    ("224.0.0.1", AddressClass::Multicast),
    ("ff02::1", AddressClass::Multicast),
    ("255.255.255.255", AddressClass::Broadcast),
];

/// What is allowed besides the base, in the order of the rules.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Allowed {
    Nothing,
    Address,
    Name,
    NameByUdp,
    All,
    NameThenAddress,
    AllThenAddress,
}

impl Allowed {
    const EACH: [Self; 7] = [
        Self::Nothing,
        Self::Address,
        Self::Name,
        Self::NameByUdp,
        Self::All,
        Self::NameThenAddress,
        Self::AllThenAddress,
    ];

    fn rules(self, address: &str) -> Vec<Rule> {
        let texts: &[&str] = match self {
            Self::Nothing => &[],
            Self::Address => &[address],
            Self::Name => &["a.com"],
            Self::NameByUdp => &["a.com/udp"],
            Self::All => &["*"],
            Self::NameThenAddress => &["a.com", address],
            Self::AllThenAddress => &["*", address],
        };
        texts.iter().map(|text| Rule::new(Action::Allow, text).unwrap()).collect()
    }
}

struct Case {
    base: Base,
    allowed: Allowed,
    class: AddressClass,
    protocol: Protocol,
    named: bool,
    is_hosts_own: bool,
}

/// Whether it is allowed, and whether that depends on the name.
fn wanted(case: &Case) -> (bool, bool) {
    use Allowed::{Address, All, AllThenAddress, Name, NameByUdp, NameThenAddress};
    let open = case.class == AddressClass::Public && !case.is_hosts_own;
    let opened = matches!(case.allowed, Address | NameThenAddress | AllThenAddress) || case.base == Base::All;
    if case.class.is_never() {
        (false, false)
    } else if opened || open && (case.base == Base::Public || case.allowed == All) {
        (true, false)
    } else {
        let by_name = match case.allowed {
            Name => case.protocol != Protocol::Udp,
            NameByUdp => case.protocol == Protocol::Udp,
            _ => false,
        };
        (open && case.named && by_name, open && case.named && by_name)
    }
}

#[test]
fn what_may_be_reached_is_what_the_documentation_says() {
    let names = names(&["a.com"]);
    let mut cases = 0;
    for (text, class) in ADDRESSES {
        assert_eq!(AddressClass::of(text.parse().unwrap()), *class, "{text}");
        for base in [Base::None, Base::Public, Base::All] {
            for allowed in Allowed::EACH {
                let policy = Policy::new(Some(base), allowed.rules(text)).unwrap();
                for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Icmp] {
                    for (named, is_hosts_own) in [(false, false), (false, true), (true, false), (true, true)]
                    {
                        let decision = policy.decide(&Destination {
                            address: text.parse().unwrap(),
                            port: if protocol == Protocol::Icmp { 0 } else { 443 },
                            protocol,
                            names: if named { &names } else { &[] },
                            is_hosts_own,
                        });
                        let case = Case { base, allowed, class: *class, protocol, named, is_hosts_own };
                        assert_eq!(
                            (decision.allowed, decision.allowed && decision.by_name),
                            wanted(&case),
                            "{text} by {protocol}, base {base}, {allowed:?} allowed, named {named}, own \
                             {is_hosts_own}: {}",
                            decision.reason.explain(&policy)
                        );
                        cases += 1;
                    }
                }
            }
        }
    }
    assert_eq!(cases, ADDRESSES.len() * 3 * 7 * 3 * 4);
}
