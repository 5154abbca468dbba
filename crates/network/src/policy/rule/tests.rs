use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::policy::name::NameError;
use crate::policy::pattern::PatternError;

fn canonical(text: &str) -> String {
    let rule = Rule::new(Action::Allow, text).unwrap_or_else(|error| panic!("{text}: {error}"));
    rule.to_string().strip_prefix("allow ").unwrap().to_owned()
}

#[test]
fn every_form_has_one_canonical_text() {
    for (text, wanted) in [
        ("example.com", "example.com"),
        ("Example.COM.:443", "example.com:443"),
        ("*.münchen.de:443/tcp", "*.xn--mnchen-3ya.de:443/tcp"),
        ("*", "*"),
        ("*:53/udp", "*:53/udp"),
        ("*/icmp", "*/icmp"),
        ("localhost", "localhost"),
        ("a.com:8010,80,443-445,81,8000-8011", "a.com:80-81,443-445,8000-8011"),
        ("a.com:1-65535", "a.com:1-65535"),
        ("10.1.2.3", "10.1.2.3"),
        ("10.1.2.3/32", "10.1.2.3"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.0.0.0/8/tcp", "10.0.0.0/8/tcp"),
        ("10.0.0.0/8:5432/tcp", "10.0.0.0/8:5432/tcp"),
        ("0.0.0.0/0:443", "0.0.0.0/0:443"),
        ("2001:DB8:0::/32", "2001:db8::/32"),
        ("[2001:db8::/32]", "2001:db8::/32"),
        ("[2001:db8::1/128]:443", "[2001:db8::1]:443"),
        ("[2001:db8::/32]:443/udp", "[2001:db8::/32]:443/udp"),
        ("2001:db8::1/tcp", "2001:db8::1/tcp"),
        ("::/0", "::/0"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("[::ffff:10.0.0.0/104]:80", "10.0.0.0/8:80"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
    ] {
        assert_eq!(canonical(text), wanted, "{text}");
        assert_eq!(canonical(wanted), wanted);
    }
}

#[test]
fn what_is_no_rule_is_refused_with_its_reason() {
    let wrong = |text: &str| Rule::new(Action::Deny, text).unwrap_err();
    let name = |host: &str, source| RuleError::Name { host: host.to_owned(), source };
    assert_eq!(wrong(""), RuleError::NoHost);
    assert_eq!(wrong(":443"), RuleError::NoHost);
    assert_eq!(wrong("/tcp"), RuleError::NoHost);
    assert_eq!(wrong(&"a".repeat(2000)), RuleError::TooLong(1024));
    for url in ["https://example.com", "http://10.0.0.1:80/x"] {
        assert_eq!(wrong(url), RuleError::Url(url.to_owned()));
    }
    for (text, protocol) in [("a.com/", ""), ("a.com/sctp", "sctp"), ("a.com:80/TCP", "TCP")] {
        assert_eq!(wrong(text), RuleError::Protocol(protocol.to_owned()), "{text}");
    }
    for ports in ["", "0", "65536", "+1", "a", "2-1", "1-", "-1", "1,,2", "1,", " 1", "1-2-3", "443/17"] {
        assert_eq!(wrong(&format!("a.com:{ports}")), RuleError::Ports(ports.to_owned()));
    }
    assert_eq!(wrong(&format!("a.com:1{}", ",1".repeat(64))), RuleError::TooManyPorts(64));
    assert_eq!(wrong("a.com:80/icmp"), RuleError::IcmpPorts);
    for text in ["[::1", "[::1]80", "[10.0.0.1]", "[a.com]", "[*]", "[]"] {
        assert_eq!(wrong(text), RuleError::Brackets(text.to_owned()));
    }
    assert_eq!(wrong("[10.0.0.1]:80"), RuleError::Brackets("[10.0.0.1]".to_owned()));
    for text in
        ["10.0.0", "10", "0x7f.1", "010.0.0.1", "1.2.3.4.5", "256.1.1.1", "fe80::1%eth0", "a.com:1:2", "*.1"]
    {
        assert_eq!(wrong(text), RuleError::Address(text.to_owned()));
    }
    assert_eq!(wrong("a.com/8"), RuleError::Address("a.com".to_owned()));
    assert_eq!(wrong("*/8"), RuleError::Address("*".to_owned()));
    for text in ["10.0.0.0/33", "10.0.0.0/256", "::/129", "10.0.0.0/8/8"] {
        assert_eq!(wrong(text), RuleError::Prefix(text.to_owned()));
    }
    let network = "10.0.0.0/8".parse().unwrap();
    assert_eq!(wrong("10.1.0.0/8"), RuleError::HostBits { given: "10.1.0.0/8".to_owned(), network });
    let given = "::ffff:10.1.0.0/104".to_owned();
    assert_eq!(wrong(&given), RuleError::HostBits { given, network });
    for host in ["*a.com", "a.*", "*.*.com", "**"] {
        assert_eq!(wrong(host), name(host, PatternError::Wildcard));
    }
    assert_eq!(wrong("a..com"), name("a..com", PatternError::Name(NameError::EmptyLabel)));
    assert_eq!(wrong("a b"), name("a b", PatternError::Name(NameError::Character)));
}

#[test]
fn a_rule_says_its_action_first() {
    let rule: Rule = "deny  10.0.0.0/8".parse().unwrap();
    assert_eq!((rule.action(), rule.to_string()), (Action::Deny, "deny 10.0.0.0/8".to_owned()));
    assert_eq!("permit a.com".parse::<Rule>(), Err(RuleError::Action("permit".to_owned())));
    assert_eq!("".parse::<Rule>(), Err(RuleError::Action(String::new())));
    assert_eq!("allow".parse::<Rule>(), Err(RuleError::NoHost));
    let error = "allow 10.1.0.0/8".parse::<Rule>().unwrap_err();
    assert_eq!(error.to_string(), r#""10.1.0.0/8" has bits beyond its prefix: the network is 10.0.0.0/8"#);
}

#[test]
fn a_rule_is_a_string_where_it_is_stored() {
    let rule: Rule = serde_json::from_str(r#""allow A.com:443""#).unwrap();
    assert_eq!(serde_json::to_string(&rule).unwrap(), r#""allow a.com:443""#);
    assert!(serde_json::from_str::<Rule>(r#""allow 10.1.0.0/8""#).is_err());
}

#[test]
fn a_rule_covers_what_it_does_not_restrict() {
    let covers = |text: &str, port, protocol| Rule::new(Action::Allow, text).unwrap().covers(port, protocol);
    assert!(covers("*", 1, Protocol::Tcp) && covers("*", 0, Protocol::Icmp));
    assert!(covers("*:80,443", 443, Protocol::Udp) && !covers("*:80,443", 81, Protocol::Tcp));
    assert!(!covers("*:1-65535", 1, Protocol::Icmp));
    assert!(covers("*/udp", 9, Protocol::Udp) && !covers("*/udp", 9, Protocol::Tcp));
}

fn rule_text() -> impl Strategy<Value = String> {
    let v4 = (any::<u32>(), 0..=32_u8)
        .prop_map(|(bits, prefix)| ipnet::Ipv4Net::new(bits.into(), prefix).unwrap().trunc().to_string());
    let v6 = (any::<u128>(), 0..=128_u8).prop_map(|(bits, prefix)| {
        format!("[{}]", ipnet::Ipv6Net::new(bits.into(), prefix).unwrap().trunc())
    });
    let mapped = any::<u32>().prop_map(|bits| format!("[::ffff:{}]", Ipv4Addr::from(bits)));
    let name = r"(\*\.)?[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,8})(\.[a-zA-Z][a-zA-Z0-9_-]{0,8}){1,3}\.?";
    let host = prop_oneof![Just("*".to_owned()), name, v4, v6, mapped];
    let ports = vec((1..=u16::MAX, option::of(0..200_u16)), 1..6).prop_map(|ranges| {
        let text = |(first, more): (u16, Option<u16>)| match more {
            Some(more) => format!("{first}-{}", first.saturating_add(more)),
            None => first.to_string(),
        };
        ranges.into_iter().map(text).collect::<Vec<_>>().join(",")
    });
    let action = prop_oneof![Just("allow"), Just("deny")];
    (action, host, option::of(ports), option::of(prop_oneof![Just("tcp"), Just("udp"), Just("icmp")]))
        .prop_filter("icmp has no ports", |(_, _, ports, protocol)| {
            ports.is_none() || *protocol != Some("icmp")
        })
        .prop_map(|(action, host, ports, protocol)| {
            let ports = ports.map_or(String::new(), |ports| format!(":{ports}"));
            let protocol = protocol.map_or(String::new(), |protocol| format!("/{protocol}"));
            format!("{action} {host}{ports}{protocol}")
        })
}

proptest! {
    #[test]
    fn a_rule_is_read_back_from_its_text(text in rule_text()) {
        let rule: Rule = text.parse().map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?;
        prop_assert_eq!(rule.to_string().parse::<Rule>(), Ok(rule.clone()));
        let json = serde_json::to_string(&rule).unwrap();
        prop_assert_eq!(serde_json::from_str::<Rule>(&json).unwrap(), rule);
    }

    #[test]
    fn any_text_is_a_rule_with_a_canonical_text_or_an_error(
        text in prop_oneof![any::<String>(), r"[-*a-z0-9./:,\[\]ü%]{0,24}"]
    ) {
        let _ = text.parse::<Rule>();
        if let Ok(rule) = Rule::new(Action::Allow, &text) {
            prop_assert_eq!(rule.to_string().parse::<Rule>(), Ok(rule));
        }
    }

    #[test]
    fn ports_are_those_that_were_listed(ranges in vec((1..200_u16, 0..20_u16), 1..8), port in 1..240_u16) {
        let text: Vec<_> = ranges.iter().map(|(first, more)| format!("{first}-{}", first + more)).collect();
        let ports: Ports = text.join(",").parse().unwrap();
        let listed = ranges.iter().any(|(first, more)| (*first..=first + more).contains(&port));
        prop_assert_eq!(ports.contains(port), listed);
    }
}
