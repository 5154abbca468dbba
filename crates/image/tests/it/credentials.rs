//! Logging in and out.

use std::{fs, os::unix::fs::PermissionsExt};

use cellule_image::{Credential, Credentials, Error, RegistryError};
use serde_json::{Value, json};

use crate::support::{Auth, Fixture, Reply, Server, options, run};

fn password() -> Credential {
    Credential::Password { username: "me".into(), password: "pa:ss".into() }
}

#[test]
fn a_login_is_checked_kept_and_forgotten_and_the_rest_of_the_file_stays() {
    let server = Server::with(&Fixture::new());
    server.set_auth(Auth::Basic { expected: "Basic bWU6cGE6c3M=".into() });
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("docker/config.json");
    fs::create_dir(file.parent().unwrap()).unwrap();
    let other = json!({ "auths": { "other": { "auth": "eDp5" } }, "proxies": { "default": [1, 2] } });
    fs::write(&file, other.to_string()).unwrap();
    let credentials = Credentials::at(&file);
    run(credentials.login(&server.host(), password(), &options())).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(run(credentials.find(&server.host())).unwrap(), Some(password()));
    let text: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!((&text["proxies"], &text["auths"]["other"]), (&other["proxies"], &other["auths"]["other"]));
    assert!(run(credentials.logout(&server.host())).unwrap());
    assert!(!run(credentials.logout(&server.host())).unwrap());
    assert_eq!(serde_json::from_slice::<Value>(&fs::read(&file).unwrap()).unwrap(), other);
    assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn a_login_that_the_registry_denies_is_not_kept() {
    let server = Server::new();
    server.set_auth(Auth::Bearer);
    server.set("/token", Reply::status(401));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.json");
    let result = run(Credentials::at(&file).login(&server.host(), password(), &options()));
    assert!(
        matches!(result, Err(Error::Registry(RegistryError::Denied { authenticated: true, .. }))),
        "{result:?}"
    );
    assert!(!file.exists());
}

#[test]
fn a_login_by_token_is_kept() {
    let server = Server::new();
    server.set_auth(Auth::Bearer);
    server.set("/token", Reply::ok(*b"{\"token\":\"secret\"}"));
    let dir = tempfile::tempdir().unwrap();
    let credentials = Credentials::at(dir.path().join("new/config.json"));
    run(credentials.login(&server.host(), password(), &options())).unwrap();
    assert_eq!(run(credentials.find(&server.host())).unwrap(), Some(password()));
}
