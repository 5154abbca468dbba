mod matrix;
mod properties;

use super::*;

fn policy(base: Option<Base>, rules: &[&str]) -> Policy {
    let rules = rules.iter().map(|text| text.parse().unwrap_or_else(|error| panic!("{text}: {error}")));
    Policy::new(base, rules.collect()).unwrap()
}

fn names(texts: &[&str]) -> Vec<Name> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// What a policy says of an address and a port, `1.2.3.4:443/tcp`, that was found under names.
fn decide(policy: &Policy, to: &str, found_under: &[&str]) -> Decision {
    let (socket, protocol) = to.split_once('/').unwrap_or((to, "tcp"));
    let socket: std::net::SocketAddr = socket.parse().unwrap();
    policy.decide(&Destination {
        address: socket.ip(),
        port: socket.port(),
        protocol: protocol.parse().unwrap(),
        names: &names(found_under),
        is_hosts_own: false,
    })
}

fn why(policy: &Policy, to: &str, found_under: &[&str]) -> String {
    let decision = decide(policy, to, found_under);
    let word = if decision.allowed { "yes" } else { "no" };
    format!("{word}: {}", decision.reason.explain(policy))
}

fn decide_name(policy: &Policy, name: &str, port: Option<u16>) -> Decision {
    policy.decide_name(&name.parse().unwrap(), port, port.map(|_| Protocol::Tcp))
}

#[test]
fn the_first_rule_that_matches_decides() {
    let policy =
        policy(Some(Base::All), &["allow 10.1.0.0/16:80", "deny 10.0.0.0/8", "allow *:1", "deny *:1-9"]);
    assert_eq!(why(&policy, "10.1.2.3:80", &[]), "yes: rule 1: allow 10.1.0.0/16:80");
    assert_eq!(why(&policy, "10.1.2.3:81", &[]), "no: rule 2: deny 10.0.0.0/8");
    assert_eq!(why(&policy, "10.2.2.3:80", &[]), "no: rule 2: deny 10.0.0.0/8");
    assert_eq!(why(&policy, "[2606::1]:1", &[]), "yes: rule 3: allow *:1");
    assert_eq!(why(&policy, "[2606::1]:2", &[]), "no: rule 4: deny *:1-9");
    assert_eq!(why(&policy, "192.168.0.1:99", &[]), "yes: --network all");
}

#[test]
fn naming_what_is_allowed_refuses_the_rest() {
    let base = |rules| policy(None, rules).base();
    assert_eq!(base(&[]), Base::Public);
    assert_eq!(base(&["deny a.com"]), Base::Public);
    assert_eq!(base(&["deny a.com", "allow b.com"]), Base::None);
    assert_eq!(policy(Some(Base::All), &["allow b.com"]).base(), Base::All);
    assert_eq!(Policy::default(), policy(None, &[]));
}

#[test]
fn a_refusal_without_a_rule_says_what_refused() {
    let (none, public) = (policy(Some(Base::None), &[]), policy(None, &[]));
    assert_eq!(why(&none, "1.1.1.1:443", &[]), "no: no rule allows it (--network none)");
    assert_eq!(
        why(&public, "10.1.2.3:443", &[]),
        "no: 10.1.2.3 is a private address (--network public refuses it)"
    );
    assert_eq!(
        why(&public, "[::ffff:169.254.169.254]:80", &[]),
        "no: 169.254.169.254 is a link-local address (cloud metadata is there) (--network public refuses it)"
    );
    assert_eq!(
        why(&public, "127.0.0.1:80", &[]),
        "no: 127.0.0.1 is a loopback address, which is never reached; --expose-host leads to this host's services"
    );
    let own = Destination {
        address: "1.1.1.1".parse().unwrap(),
        port: 22,
        protocol: Protocol::Tcp,
        names: &[],
        is_hosts_own: true,
    };
    assert_eq!(
        public.decide(&own).reason.explain(&public).to_string(),
        "1.1.1.1 is an address of the host's own (--network public refuses it)"
    );
}

#[test]
fn an_allowed_name_does_not_open_an_address_that_is_not_public() {
    let by_name = policy(None, &["allow a.com"]);
    assert_eq!(
        why(&by_name, "169.254.169.254:80", &["a.com"]),
        "no: rule 1: allow a.com, but 169.254.169.254 is a link-local address (cloud metadata is there): \
         only a rule with the address opens it"
    );
    // In either order, the address opens it; and a denial that comes later still does deny it.
    for rules in [["allow a.com", "allow 10.0.0.0/8"], ["allow 10.0.0.0/8", "allow a.com"]] {
        assert!(decide(&policy(None, &rules), "10.1.2.3:80", &["a.com"]).allowed);
    }
    let denied = policy(Some(Base::Public), &["allow a.com", "deny 10.0.0.0/8", "allow 10.0.0.0/8"]);
    assert!(why(&denied, "10.1.2.3:80", &["a.com"]).starts_with("no: rule 1: allow a.com, but 10.1.2.3 is"));
    // Who allows everything else does not fear what names give.
    let all = policy(Some(Base::All), &["allow a.com", "deny 10.0.0.0/8"]);
    assert_eq!(why(&all, "10.1.2.3:80", &["a.com"]), "yes: rule 1: allow a.com");
}

#[test]
fn everything_and_a_whole_family_mean_the_internet() {
    for rule in ["allow *", "allow 0.0.0.0/0", "allow ::ffff:0:0/96", "allow ::/0"] {
        for base in [None, Some(Base::Public)] {
            let policy = policy(base, &[rule]);
            for closed in ["10.1.2.3:80", "169.254.169.254:80", "[fd00:ec2::254]:80", "[2002:a00:1::]:80"] {
                assert!(!decide(&policy, closed, &["a.com"]).allowed, "{rule} {closed}");
            }
            let own = if rule.contains("::/0") { "[2606::1]:443/udp" } else { "1.1.1.1:443/udp" };
            assert!(decide(&policy, own, &[]).allowed, "{rule}");
            assert!(!decide(&policy, own, &[]).by_name);
        }
    }
    let wide = policy(None, &["allow 10.0.0.0/8", "allow fc00::/7"]);
    assert!(decide(&wide, "10.1.2.3:80", &[]).allowed && decide(&wide, "[fd00:ec2::254]:80", &[]).allowed);
}

#[test]
fn a_name_allows_datagrams_only_where_the_rule_says_so() {
    let plain = policy(None, &["allow a.com"]);
    assert!(decide(&plain, "1.1.1.1:443/tcp", &["a.com"]).allowed);
    assert!(decide(&plain, "1.1.1.1:0/icmp", &["a.com"]).allowed);
    assert_eq!(
        why(&plain, "1.1.1.1:443/udp", &["a.com"]),
        "no: rule 1: allow a.com, but a datagram does not show its name: only a rule with /udp allows it"
    );
    let both = policy(None, &["allow a.com", "allow a.com:443/udp"]);
    assert!(decide(&both, "1.1.1.1:443/udp", &["a.com"]).allowed);
    assert!(!decide(&both, "1.1.1.1:444/udp", &["a.com"]).allowed);
    let address = policy(None, &["allow a.com", "allow 1.1.1.1"]);
    assert!(decide(&address, "1.1.1.1:443/udp", &["a.com"]).allowed);
    let public = policy(Some(Base::Public), &["allow a.com"]);
    assert!(decide(&public, "1.1.1.1:443/udp", &["a.com"]).allowed);
}

#[test]
fn one_allowed_name_allows_an_address_and_what_is_asked_for_there_is_checked() {
    let by_name = policy(None, &["allow good.com", "deny *"]);
    for found_under in [&["good.com", "other.com"][..], &["other.com", "good.com"]] {
        let decision = decide(&by_name, "1.1.1.1:443", found_under);
        assert!(decision.allowed && decision.by_name);
    }
    assert!(!decide(&by_name, "1.1.1.1:443", &["other.com"]).allowed);
    assert!(!decide(&by_name, "1.1.1.1:443", &[]).allowed);

    let denies = policy(None, &["deny evil.com:443"]);
    assert!(!decide(&denies, "1.1.1.1:443", &["evil.com"]).allowed);
    let shared = decide(&denies, "1.1.1.1:443", &["evil.com", "good.com"]);
    assert!(shared.allowed && shared.by_name);
    assert!(!decide_name(&denies, "evil.com", Some(443)).allowed);
    let plain = decide(&denies, "1.1.1.1:443", &["good.com"]);
    assert!(plain.allowed && !plain.by_name);
    // Datagrams cannot be checked later.
    assert!(!decide(&denies, "1.1.1.1:443/udp", &["good.com", "evil.com"]).allowed);
    assert!(decide(&denies, "1.1.1.1:443/udp", &["good.com"]).allowed);
}

#[test]
fn a_connection_goes_on_if_what_it_shows_may_be_reached_there() {
    let policy = policy(None, &["deny evil.com", "allow a.com", "allow *.a.com:443", "allow 8.8.8.8"]);
    let goes_on = |address: &str, name: &str| {
        let to = Destination {
            address: address.parse().unwrap(),
            port: 443,
            protocol: Protocol::Tcp,
            names: &names(&["a.com"]),
            is_hosts_own: false,
        };
        policy.decide_shown(&to, &name.parse().unwrap()).allowed
    };
    assert!(goes_on("1.1.1.1", "a.com") && goes_on("1.1.1.1", "b.a.com"));
    assert!(!goes_on("1.1.1.1", "other.com") && !goes_on("1.1.1.1", "evil.com"));
    assert!(goes_on("8.8.8.8", "other.com") && !goes_on("8.8.8.8", "evil.com"));
    assert!(!goes_on("10.0.0.1", "a.com"));
}

#[test]
fn an_address_that_is_allowed_without_a_name_is_not_checked_for_one() {
    for rules in [["allow a.com", "allow 1.1.1.1"], ["allow 1.1.1.1", "allow a.com"]] {
        let decision = decide(&policy(None, &rules), "1.1.1.1:443", &["a.com"]);
        assert!(decision.allowed && !decision.by_name);
    }
}

#[test]
fn an_address_is_denied_in_every_form_and_allowed_in_its_own() {
    let forms =
        ["[::ffff:8.8.8.8]:53", "[64:ff9b::8.8.8.8]:53", "[2002:808:808::]:53", "[2606::5efe:808:808]:53"];
    let (denies, allows) =
        (policy(Some(Base::All), &["deny 8.8.8.0/24"]), policy(None, &["allow 8.8.8.0/24"]));
    for form in forms {
        assert!(!decide(&denies, form, &[]).allowed, "{form}");
    }
    assert!(decide(&allows, forms[0], &[]).allowed);
    assert!(forms[1..].iter().all(|form| !decide(&allows, form, &[]).allowed));
}

#[test]
fn a_name_is_looked_up_if_a_connection_to_it_may_be_allowed() {
    let looked_up = |base, rules: &[&str], name: &str| decide_name(&policy(base, rules), name, None).allowed;
    assert!(looked_up(None, &[], "a.com"));
    assert!(!looked_up(Some(Base::None), &[], "a.com"));
    assert!(looked_up(None, &["allow a.com:443"], "a.com"));
    assert!(!looked_up(None, &["allow a.com:443"], "b.com"));
    assert!(!looked_up(None, &["allow *.a.com"], "a.com"));
    assert!(looked_up(None, &["allow *:443/tcp"], "b.com"));
    assert!(!looked_up(None, &["deny a.com"], "a.com"));
    assert!(looked_up(None, &["deny a.com:443", "deny a.com/udp"], "a.com"));
    assert!(!looked_up(None, &["deny a.com", "allow a.com"], "a.com"));
    assert!(!looked_up(Some(Base::All), &["allow b.com", "deny *"], "a.com"));
    assert!(looked_up(Some(Base::Public), &["deny 0.0.0.0/0"], "a.com"));
    assert!(looked_up(Some(Base::Public), &["allow 10.0.0.0/8"], "a.com"));
    let addresses = policy(None, &["allow 10.0.0.0/8"]);
    let decision = decide_name(&addresses, "a.com", None);
    assert!(!decision.allowed);
    assert_eq!(
        decision.reason.explain(&addresses).to_string(),
        "rules allow addresses alone, no name (--network none)"
    );
}

#[test]
fn a_name_that_is_asked_for_is_held_against_port_and_protocol() {
    let policy = policy(None, &["deny a.com:80", "allow a.com:80,443/tcp", "allow b.com/udp"]);
    assert!(decide_name(&policy, "a.com", Some(443)).allowed);
    assert!(decide_name(&policy, "a.com", Some(443)).by_name);
    assert!(!decide_name(&policy, "a.com", Some(80)).allowed);
    assert!(!decide_name(&policy, "a.com", Some(22)).allowed);
    assert!(!decide_name(&policy, "b.com", Some(443)).allowed);
    let b = "b.com".parse().unwrap();
    assert!(policy.decide_name(&b, Some(443), Some(Protocol::Udp)).allowed);
    assert!(policy.decide_name(&b, None, None).allowed);
}

#[test]
fn only_rules_with_names_make_names_matter() {
    assert!(policy(None, &["deny 1.1.1.1", "deny *.a.com"]).has_name_rules());
    assert!(!policy(None, &["deny 1.1.1.1", "deny *:53"]).has_name_rules());
}

#[test]
fn a_stored_policy_is_checked_when_it_is_read() {
    let policy = policy(None, &["allow a.com:443", "deny 10.0.0.0/8"]);
    let text = serde_json::to_string(&policy).unwrap();
    assert_eq!(text, r#"{"base":"none","rules":["allow a.com:443","deny 10.0.0.0/8"]}"#);
    assert_eq!(serde_json::from_str::<Policy>(&text).unwrap(), policy);
    assert_eq!(serde_json::from_str::<Policy>("{}").unwrap(), Policy::default());
    let many = format!(r#"{{"rules":["deny a.com"{}]}}"#, r#","deny a.com""#.repeat(MAX_RULES));
    for bad in [r#"{"base":"some"}"#, r#"{"rules":["deny 10.1.0.0/8"]}"#, r#"{"rule":[]}"#, &many] {
        assert!(serde_json::from_str::<Policy>(bad).is_err());
    }
}

#[test]
fn the_most_rules_are_gone_through_to_the_last() {
    let mut rules: Vec<String> =
        (2..=MAX_RULES).map(|index| format!("deny host{index}.example.com:443")).collect();
    rules.push("allow last.example.com".to_owned());
    let texts: Vec<&str> = rules.iter().map(String::as_str).collect();
    let full = policy(None, &texts);
    assert_eq!(full.rules().len(), MAX_RULES);
    let decision = decide(&full, "1.1.1.1:443", &["last.example.com"]);
    assert_eq!(decision, Decision { allowed: true, reason: Reason::Rule(MAX_RULES - 1), by_name: true });
    let more = [full.rules(), &full.rules()[..1]].concat();
    assert_eq!(Policy::new(None, more), Err(PolicyError::TooManyRules(MAX_RULES + 1)));
}

#[test]
fn a_reason_of_another_policy_is_still_shown() {
    assert_eq!(Reason::Rule(7).explain(&Policy::default()).to_string(), "rule 8");
}
