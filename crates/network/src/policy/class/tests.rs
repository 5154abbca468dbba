use proptest::prelude::*;

use super::*;

fn class(address: &str) -> AddressClass {
    AddressClass::of(address.parse().unwrap())
}

#[test]
fn every_range_has_its_class_from_end_to_end() {
    use AddressClass::{
        Broadcast, LinkLocal, Loopback, Metadata, Multicast, Private, Public, Reserved, SharedNat,
        Unspecified,
    };
    for (wanted, addresses) in [
        (Unspecified, &["0.0.0.0", "0.255.255.255", "::"][..]),
        (Loopback, &["127.0.0.1", "127.255.255.255", "::1"]),
        (Private, &["10.0.0.0", "10.255.255.255", "172.16.0.0", "172.31.255.255", "192.168.0.0"]),
        (Private, &["192.168.255.255", "fc00::", "fdff::1", "fec0::1", "feff::1"]),
        (LinkLocal, &["169.254.0.0", "169.254.169.254", "169.254.255.255", "fe80::1", "febf::1"]),
        (SharedNat, &["100.64.0.0", "100.127.255.255"]),
        (Metadata, &["168.63.129.16", "100.100.100.200", "192.0.0.192"]),
        (Metadata, &["fd00:ec2::254", "fd20:ce::254", "fd00:42::42"]),
        (Multicast, &["224.0.0.0", "239.255.255.255", "ff00::", "ff02::1", "ffff::1"]),
        (Broadcast, &["255.255.255.255"]),
        (Reserved, &["192.0.0.0", "192.0.0.2", "192.0.0.255", "192.0.2.1", "198.18.0.0"]),
        (Reserved, &["198.19.255.255", "198.51.100.1", "203.0.113.255", "192.88.99.1"]),
        (Reserved, &["240.0.0.0", "255.255.255.254", "100::1", "100:0:0:1::1", "5f00::1"]),
        (Reserved, &["2001:1::1", "2001:2::1", "2001:10::1", "2001:20::1", "2001:1ff:ffff::"]),
        (Reserved, &["2001:db8::1", "2001:db8:ffff::", "3fff::1", "3fff:fff:ffff::1", "4000::1"]),
        (Public, &["1.1.1.1", "9.255.255.255", "11.0.0.0", "172.15.255.255", "172.32.0.0"]),
        (Public, &["100.63.255.255", "100.128.0.0", "169.253.255.255", "223.255.255.255"]),
        (Public, &["192.0.1.0", "192.167.255.255", "192.169.0.0", "168.63.129.17"]),
        (Public, &["2001:200::1", "2001:4860:4860::8888", "2606:4700::1111", "3fff:1000::1"]),
    ] {
        for address in addresses {
            assert_eq!(class(address), wanted, "{address}");
        }
    }
}

#[test]
fn what_embeds_an_address_is_not_more_than_that() {
    use AddressClass::{LinkLocal, Loopback, Metadata, Private, Public, Reserved, Unspecified};
    for (address, wanted) in [
        ("::ffff:169.254.169.254", LinkLocal),
        ("::ffff:127.0.0.1", Loopback),
        ("::ffff:0.0.0.0", Unspecified),
        ("::ffff:8.8.8.8", Public),
        ("::ffff:0:10.0.0.1", Private),
        ("::ffff:0:8.8.8.8", Reserved),
        ("::127.0.0.1", Loopback),
        ("::10.0.0.1", Private),
        ("::2", Unspecified),
        ("::8.8.8.8", Reserved),
        ("64:ff9b::10.0.0.1", Private),
        ("64:ff9b::169.254.169.254", LinkLocal),
        ("64:ff9b::168.63.129.16", Metadata),
        ("64:ff9b::127.0.0.1", Loopback),
        ("64:ff9b::", Unspecified),
        ("64:ff9b::8.8.8.8", Public),
        ("64:ff9b:0:0:1::8.8.8.8", Reserved),
        ("64:ff9b:1::10.0.0.1", Private),
        ("64:ff9b:1:a:b:c:127.0.0.1", Loopback),
        ("64:ff9b:1::8.8.8.8", Reserved),
        ("64:ff9b:1:808:8:800::", Reserved),
        ("2002:a9fe:a9fe::1", LinkLocal),
        ("2002:7f00:1::", Loopback),
        ("2002:808:808::1", Reserved),
        ("2001:0:808:808:0:0:f5ff:fffe", Private),
        ("2001:0:808:808:0:0:f7f7:f7f7", Reserved),
        ("2606:4700::5efe:10.0.0.1", Private),
        ("2606:4700::200:5efe:169.254.169.254", LinkLocal),
        ("2606:4700::5efe:8.8.8.8", Public),
        ("2606:4700::100:5efe:10.0.0.1", Public),
        ("fe80::5efe:127.0.0.1", LinkLocal),
    ] {
        assert_eq!(class(address), wanted, "{address}");
    }
}

#[test]
fn the_embedded_address_is_found_in_every_form() {
    for form in [
        "::ffff:1.2.3.4",
        "::1.2.3.4",
        "::ffff:0:1.2.3.4",
        "64:ff9b::1.2.3.4",
        "64:ff9b:1::1.2.3.4",
        "2002:102:304::1",
        "2001::fefd:fcfb",
        "2606:4700::5efe:102:304",
    ] {
        assert_eq!(embedded_v4(form.parse().unwrap()), Some(Ipv4Addr::new(1, 2, 3, 4)), "{form}");
    }
    for none in ["1.2.3.4", "::", "::1", "2606:4700::1"] {
        assert_eq!(embedded_v4(none.parse().unwrap()), None, "{none}");
    }
}

proptest! {
    #[test]
    fn ipv6_is_public_in_global_unicast_and_nat64_only(bits: u128) {
        let address = Ipv6Addr::from(bits);
        let inside = bits >> 125 == 1 || bits >> 32 == 0x0064_ff9b << 64 || address.to_ipv4_mapped().is_some();
        prop_assert!(inside || AddressClass::of(address.into()) != AddressClass::Public);
    }

    #[test]
    fn no_form_makes_an_address_public_that_is_not(bits: u32, prefix: u64) {
        let inner = AddressClass::of(Ipv4Addr::from(bits).into());
        let low = u128::from(bits);
        for outer in [
            low,
            0xffff << 32 | low,
            0xffff << 48 | low,
            0x0064_ff9b << 96 | low,
            0x0064_ff9b_0001 << 80 | u128::from(prefix) << 32 | low,
            0x2002 << 112 | low << 80 | u128::from(prefix),
            0x2001 << 112 | u128::from(!bits),
            u128::from(prefix) << 64 | 0x5efe << 32 | low,
            u128::from(prefix) << 64 | 0x0200_5efe << 32 | low,
        ] {
            let outer = Ipv6Addr::from(outer);
            let public = AddressClass::of(outer.into()) == AddressClass::Public;
            prop_assert!(!public || inner == AddressClass::Public, "{}", outer);
        }
    }
}
