//! What users say of secrets, and what nobody says of them.

use std::time::Duration;

use proptest::prelude::*;

use super::super::live::Live;
use super::super::source::Fetched;
use super::super::{
    Given, Secret, SecretArgument, SecretSpec, Secrets, SecretsError, Source, SpecError, What,
};
use super::fixture::{Scene, run, text};

fn parsed(text: &str) -> Result<(String, Source, String, Option<String>), SpecError> {
    let SecretArgument { spec, value } = text.parse()?;
    let hosts: Vec<_> = spec.hosts.iter().map(ToString::to_string).collect();
    let value = value.map(|value| String::from_utf8(value.expose().to_vec()).unwrap());
    Ok((spec.name, spec.source, hosts.join(" "), value))
}

#[test]
fn a_secret_is_a_name_a_source_and_hosts() {
    let env = Source::Env("V".to_owned());
    for (text, source, hosts, value) in [
        ("T=env:V@a.com", env, "a.com", None),
        ("T=file:/a@b/c=d:e@a.com,*.B.org,", Source::File("/a@b/c=d:e".into()), "a.com *.b.org", None),
        ("T=cmd:get x@y | z@a.com", Source::Command("get x@y | z".to_owned()), "a.com", None),
        ("T=value:p@ss=w:rd, x@a.com", Source::Value, "a.com", Some("p@ss=w:rd, x")),
    ] {
        let expected = ("T".to_owned(), source, hosts.to_owned(), value.map(str::to_owned));
        assert_eq!(parsed(text).unwrap(), expected, "{text}");
    }
}

#[test]
fn what_is_no_secret_is_refused_with_its_reason() {
    for (text, error) in [
        ("", SpecError::Name),
        ("env:V@a.com", SpecError::Name),
        ("1T=env:V@a.com", SpecError::Name),
        ("T =env:V@a.com", SpecError::Name),
        ("T=hidden@a.com", SpecError::Source),
        ("T=other:hidden@a.com", SpecError::Source),
        ("T=env:@a.com", SpecError::Variable),
        ("T=env:A B@a.com", SpecError::Variable),
        ("T=file:@a.com", SpecError::Empty),
        ("T=cmd:@a.com", SpecError::Empty),
        ("T=env:V", SpecError::Hosts),
        ("T=env:V@", SpecError::Hosts),
        ("T=env:V@,", SpecError::Hosts),
    ] {
        assert_eq!(parsed(text), Err(error), "{text}");
    }
    assert!(matches!(parsed("T=env:V@10.0.0.1"), Err(SpecError::Host(_))));
    assert!(matches!(parsed("T=env:V@*"), Err(SpecError::Host(_))));
    assert!(matches!(parsed("T=value:@a.com"), Err(SpecError::Value(_))));
    let many = vec!["a.com"; 65].join(",");
    assert_eq!(parsed(&format!("T=env:V@{many}")), Err(SpecError::ManyHosts));
}

#[test]
fn what_is_written_down_has_no_value_and_can_be_read_again() {
    for text in ["T=env:V@a.com,*.b.org", "T=file:/x@a.com", "T=cmd:x@a.com", "T=value:hush-hush@a.com"] {
        let SecretArgument { mut spec, value } = text.parse().unwrap();
        spec.in_body = true;
        let written = serde_json::to_string(&spec).unwrap();
        assert!(!written.contains("hush"));
        assert!(!format!("{spec:?} {value:?} {}", spec.source).contains("hush"));
        assert_eq!(serde_json::from_str::<SecretSpec>(&written).unwrap(), spec, "{written}");
    }
    for bad in [
        r#"{"name": "T T", "source": {"env": "V"}, "hosts": ["a.com"]}"#,
        r#"{"name": "T", "source": {"env": "V"}, "hosts": []}"#,
        r#"{"name": "T", "source": {"value": "hush"}, "hosts": ["a.com"]}"#,
    ] {
        assert!(serde_json::from_str::<SecretSpec>(bad).is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn any_text_is_a_secret_or_an_error_without_a_word_of_it(text: String, tail in "[ -~]{0,60}") {
        for text in [text, tail.clone(), format!("T=value:{tail}"), format!("T={tail}@a.com")] {
            _ = text.parse::<SecretArgument>();
        }
        let text = format!("T=value:@@HUSH{tail}HUSH@@@*HUSH*");
        let error = text.parse::<SecretArgument>().unwrap_err();
        let shown = format!("{error} {error:?} {:?}", std::error::Error::source(&error));
        prop_assert!(!shown.contains("HUSH"));
    }
}

#[test]
fn nothing_shows_a_value() {
    run(async {
        let scene = Scene::new(&["T=value:hush-hush@api.example.com"]).await;
        assert!(!format!("{:?} {:#?}", scene.secrets, scene.secrets.entries).contains("hush"));
        assert!(!scene.placeholder("T").contains("hush"));
        assert_eq!(scene.placeholder("T").len(), 47);
        assert!(scene.secrets.wants(&"api.example.com".parse().unwrap()));
        assert!(!scene.secrets.wants(&"example.com".parse().unwrap()));
    });
}

#[test]
fn secrets_that_cannot_be_had_are_told_by_name() {
    run(async {
        let load = async |texts: &[&str]| {
            let given = texts.iter().map(|text| {
                let (text, placeholder) =
                    text.split_once('+').map_or((*text, None), |(text, own)| (text, Some(own)));
                let given = text.parse::<SecretArgument>().unwrap().into();
                Given { placeholder: placeholder.map(str::to_owned), ..given }
            });
            let root = rcgen::generate_simple_self_signed(vec![]).unwrap().cert.der().clone();
            Secrets::load(given.collect(), None, vec![root], Box::new(|_| ())).await
        };
        let error = load(&["A=value:x@a.com", "B=cmd:echo hush; exit 1@a.com"]).await.unwrap_err();
        assert!(matches!(&error, SecretsError::Value { name, .. } if name == "B"));
        let error = load(&["A=env:CELLULE_NOBODY_SETS_THIS@a.com"]).await.unwrap_err();
        assert!(matches!(&error, SecretsError::Value { name, .. } if name == "A"));
        let error = load(&["A=value:x@a.com", "A=value:y@b.com"]).await.unwrap_err();
        assert!(matches!(error, SecretsError::Twice(name) if name == "A"));
        let own = format!("cellule-secret-{}", "0a".repeat(16));
        let loaded = load(&[&format!("A=value:x@a.com+{own}"), "B=value:x@a.com"]).await.unwrap();
        assert_eq!(loaded.variables().next(), Some(("A", own.as_str())));
        let twice = load(&[&format!("A=value:x@a.com+{own}"), &format!("B=value:x@a.com+{own}")]).await;
        assert!(matches!(twice, Err(SecretsError::Placeholder(name)) if name == "B"));
        assert!(matches!(load(&["A=value:x@a.com+e"]).await, Err(SecretsError::Placeholder(_))));
    });
}

#[test]
fn a_value_that_has_expired_is_never_replaced_by_silence() {
    run(async {
        let mut scene = Scene::new(&["T=value:the-real-token@api.example.com"]).await;
        let mut secrets = std::rc::Rc::try_unwrap(scene.secrets).unwrap();
        let value = Secret::new(b"the-real-token".to_vec()).unwrap();
        secrets.entries[0].live = Live::new(Fetched { value, life: Some(Duration::ZERO) });
        scene.secrets = secrets.into();
        for protocol in ["http/1.1", "h2"] {
            let mut client = scene.client(protocol).await;
            let (status, _, body) = client.ask("/", &[("x", &scene.placeholder("T"))], text("")).await;
            assert_eq!(status.as_u16(), 502);
            assert!(body.contains("the value of the secret T has expired"), "{body}");
        }
        assert_eq!(scene.seen().len(), 0);
        assert_eq!(scene.told()[0], (Some("T".to_owned()), What::Expired));
    });
}

#[test]
fn secrets_can_be_loaded_by_one_thread_for_another() {
    fn sent<T: Send>(_: impl Future<Output = T> + Send) {}
    sent(Secrets::load(vec![], None, vec![], Box::new(|_| ())));
}
