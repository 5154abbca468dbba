use proptest::prelude::*;

use super::*;

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn defaults_are_filled_in_as_docker_does() {
    let digest = format!("sha256:{HEX}");
    let cases = [
        ("debian", "docker.io/library/debian:latest"),
        ("debian:12", "docker.io/library/debian:12"),
        ("me/tool", "docker.io/me/tool:latest"),
        ("docker.io/debian", "docker.io/library/debian:latest"),
        ("index.docker.io/me/tool", "docker.io/me/tool:latest"),
        ("localhost/tool", "localhost/tool:latest"),
        ("localhost:5000/tool:1", "localhost:5000/tool:1"),
        ("host:5000/a/b/c", "host:5000/a/b/c:latest"),
        ("a.example/x__y/z---w.v", "a.example/x__y/z---w.v:latest"),
        ("Host/tool", "Host/tool:latest"),
        ("[::1]:5000/tool", "[::1]:5000/tool:latest"),
        (&format!("debian@{digest}"), &format!("docker.io/library/debian@{digest}")),
        (&format!("debian:12@{digest}"), &format!("docker.io/library/debian:12@{digest}")),
    ];
    for (input, complete) in cases {
        assert_eq!(input.parse::<Reference>().unwrap().to_string(), complete, "{input}");
    }
}

#[test]
fn the_part_at_fault_is_named() {
    use ReferencePart::{Digest, Registry, Repository, Tag};
    let long_tag = format!("debian:{}", "a".repeat(129));
    let long_name = format!("debian/{}", "a".repeat(255));
    let upper = format!("debian@sha256:{}", HEX.to_uppercase());
    let cases = [
        ("", Repository),
        ("Debian", Repository),
        ("a//b", Repository),
        ("a/", Repository),
        ("a/b..c", Repository),
        ("a/b___c", Repository),
        ("-a", Repository),
        (HEX, Repository),
        (&long_name, Repository),
        ("debian:", Tag),
        ("debian:-x", Tag),
        ("debian:a b", Tag),
        (&long_tag, Tag),
        ("debian@sha256:abc", Digest),
        ("debian@", Digest),
        (&upper, Digest),
        ("host:99999/a", Registry),
        ("host:+80/a", Registry),
        ("-host.x/a", Registry),
        ("ho..st/a", Registry),
        ("[::x]/a", Registry),
        ("../a", Registry),
    ];
    for (input, part) in cases {
        assert_eq!(input.parse::<Reference>().unwrap_err().part, part, "{input}");
    }
}

#[test]
fn the_default_registry_has_another_host() {
    let reference: Reference = "debian".parse().unwrap();
    assert_eq!((reference.registry(), reference.registry_host()), ("docker.io", "registry-1.docker.io"));
    assert_eq!(reference.familiar(), "debian:latest");
    assert_eq!("docker.io/me/tool:1".parse::<Reference>().unwrap().familiar(), "me/tool:1");
    assert_eq!(
        "localhost/library/tool".parse::<Reference>().unwrap().familiar(),
        "localhost/library/tool:latest"
    );
}

#[test]
fn the_short_form_is_never_another_reference() {
    let id = format!("docker.io/library/{HEX}");
    let cases = [
        ("docker.io/library/a/b", "library/a/b:latest"),
        ("docker.io/localhost/a", "docker.io/localhost/a:latest"),
        ("docker.io/a.b/c", "docker.io/a.b/c:latest"),
        ("docker.io/a.b", "a.b:latest"),
        (&id, &format!("library/{HEX}:latest")),
    ];
    for (input, short) in cases {
        let reference: Reference = input.parse().unwrap();
        assert_eq!(reference.familiar(), short);
        assert_eq!(short.parse::<Reference>().unwrap(), reference);
    }
}

#[test]
fn loopback_is_recognised_with_and_without_port() {
    for host in ["localhost", "localhost:5000", "127.0.0.1", "127.8.9.1:80", "[::1]", "[::1]:5000"] {
        assert!(is_loopback(host), "{host}");
    }
    for host in ["localhost.example", "127.0.0.1.example:80", "10.0.0.1", "[::2]:1", "example:127"] {
        assert!(!is_loopback(host), "{host}");
    }
}

proptest! {
    #[test]
    fn what_parses_prints_and_parses_to_itself(input in "[a-zA-Z0-9._:/@-]{0,60}") {
        if let Ok(reference) = input.parse::<Reference>() {
            prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference.clone());
            prop_assert_eq!(reference.familiar().parse::<Reference>().unwrap(), reference);
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(input in any::<String>()) {
        let _ = input.parse::<Reference>();
    }
}
