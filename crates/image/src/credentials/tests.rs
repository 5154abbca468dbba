use std::{
    fs,
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

use super::*;

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn find(config: &str, registry: &str) -> Result<Option<Credential>> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.json");
    fs::write(&file, config).unwrap();
    run(Credentials::at(file).find(registry))
}

fn password(username: &str, password: &str) -> Credential {
    Credential::Password { username: username.into(), password: password.into() }
}

#[test]
fn an_entry_is_found_however_its_registry_is_written() {
    let config = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"YTpi"},"https://r.example/v2/":{"auth":"Yzpk"},
        "localhost:5000":{"auth":"ZTpmOmc"}, "empty": {}}}"#;
    let cases = [
        ("docker.io", Some(password("a", "b"))),
        ("r.example", Some(password("c", "d"))),
        ("localhost:5000", Some(password("e", "f:g"))),
        ("localhost:5001", None),
        ("empty", None),
    ];
    for (registry, expected) in cases {
        assert_eq!(find(config, registry).unwrap(), expected, "{registry}");
    }
}

#[test]
fn a_file_that_is_missing_or_empty_has_no_credentials() {
    assert_eq!(run(Credentials::at("/nonexistent/config.json").find("x")).unwrap(), None);
    assert_eq!(run(Credentials::none().find("x")).unwrap(), None);
    assert_eq!(find("", "x").unwrap(), None);
}

#[test]
fn a_malformed_file_or_entry_is_an_error_that_shows_no_secret() {
    assert!(find("{", "x").is_err());
    assert!(find("[]", "x").is_err());
    for auth in ["%%%", "bm9jb2xvbg=="] {
        let error = find(&format!(r#"{{"auths":{{"x":{{"auth":"{auth}"}}}}}}"#), "x").unwrap_err();
        assert!(error.to_string().contains("config.json") && !error.to_string().contains(auth), "{error}");
    }
    assert!(!format!("{:?}", password("me", "hidden")).contains("hidden"));
}

#[test]
fn helpers_are_asked_given_and_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let script = r#"#!/bin/sh
read -r line
case "$1 $line" in
"get r.example") echo '{"Username":"u","Secret":"s"}' ;;
"get token.example") echo '{"ServerURL":"x","Username":"<token>","Secret":"t"}' ;;
"get broken.example") echo 'nonsense' ;;
"get slow.example") exec sleep 60 ;;
store*|erase*) echo "$1 $line" >> "$(dirname "$0")/log" ;;
*) echo 'credentials not found in native keychain'; exit 1 ;;
esac
"#;
    let program = dir.path().join("docker-credential-celluletest");
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let limit = Duration::from_millis(500);
    let helper = Helper::at(program);
    let get = |key: &str| run(helper.get(key, limit));
    assert_eq!(get("r.example").unwrap(), Some(password("u", "s")));
    assert_eq!(get("token.example").unwrap(), Some(Credential::IdentityToken("t".into())));
    assert_eq!(get("unknown.example").unwrap(), None);
    assert!(matches!(get("broken.example"), Err(CredentialsError::HelperFailed { .. })));
    let start = Instant::now();
    assert!(matches!(get("slow.example"), Err(CredentialsError::HelperStalled { .. })));
    assert!(start.elapsed() < Duration::from_secs(20));
    run(helper.store("k", &password("u", "s"), limit)).unwrap();
    run(helper.erase("k", limit)).unwrap();
    let log = fs::read_to_string(dir.path().join("log")).unwrap();
    assert_eq!(log, "store {\"ServerURL\":\"k\",\"Username\":\"u\",\"Secret\":\"s\"}\nerase k\n");
}

#[test]
fn a_helper_that_is_not_there_or_is_a_path_is_an_error() {
    for helper in ["cellule-no-such-helper", "../sh"] {
        let config = format!(r#"{{"credHelpers":{{"x":"{helper}"}}}}"#);
        let error = find(&config, "x").unwrap_err();
        assert!(
            matches!(error, crate::Error::Credentials(CredentialsError::HelperMissing { .. })),
            "{error:?}"
        );
        assert_eq!(find(&config, "y").unwrap(), None);
    }
}
