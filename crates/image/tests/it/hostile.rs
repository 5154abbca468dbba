//! Registries that fail, stall or lie. None may hang a pull, get a wrong byte into the store, or leave anything there.

use std::time::{Duration, Instant};

use cellule_image::{Credentials, Error, Image, Options, Policy, RegistryError, Store};
use serde_json::json;

use crate::support::{
    Auth, Fixture, Reply, Server, assert_nothing_left, assert_tmp_is_empty, digest_of, new_store, options,
    pull, run, tar_of,
};

fn pull_with(store: &Store, name: &str, options: &Options) -> Result<Image, Error> {
    run(store.pull(&name.parse().unwrap(), Policy::Missing, options))
}

fn registry_error(result: Result<Image, Error>) -> RegistryError {
    match result {
        Err(Error::Registry(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn blob_path(fixture: &Fixture, number: usize) -> String {
    format!("/v2/t/blobs/{}", fixture.layer_digest(number))
}

#[test]
fn a_download_that_was_cut_is_resumed_where_it_was() {
    let fixture = Fixture::new();
    let server = Server::with(&fixture);
    let path = blob_path(&fixture, 0);
    server.once(&path, Reply::ok(fixture.layers[0].clone()).cut(60_000));
    let (_dir, store) = new_store();
    pull(&store, &server.image()).unwrap();
    let requests = server.requests(&path);
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[1].headers["range"], "bytes=60000-");
}

#[test]
fn a_download_starts_anew_where_ranges_are_not_known() {
    let fixture = Fixture::new();
    let server = Server::with(&fixture).without_ranges();
    let path = blob_path(&fixture, 0);
    server.once(&path, Reply::ok(fixture.layers[0].clone()).cut(60_000));
    let (_dir, store) = new_store();
    pull(&store, &server.image()).unwrap();
    assert_eq!(server.requests(&path).len(), 2);
}

#[test]
fn a_download_that_was_pieced_together_wrongly_starts_anew() {
    let fixture = Fixture::new();
    let server = Server::with(&fixture);
    let path = blob_path(&fixture, 0);
    let mut wrong = fixture.layers[0].clone();
    wrong[10] ^= 1;
    server.once(&path, Reply::ok(wrong).cut(60_000));
    let (_dir, store) = new_store();
    pull(&store, &server.image()).unwrap();
    assert_eq!(server.requests(&path).len(), 3);
}

#[test]
fn a_registry_that_stalls_is_given_up_in_time() {
    let fixture = Fixture::new();
    let (_dir, store) = new_store();
    for path in [blob_path(&fixture, 0), "/v2/t/manifests/1".into()] {
        for reply in
            [Reply::ok(vec![0; 200_000]).stall(0), Reply::ok(vec![0; fixture.layers[0].len()]).drip(0)]
        {
            let server = Server::with(&fixture).without_ranges();
            server.set(&path, reply);
            let start = Instant::now();
            let error = pull(&store, &server.image());
            assert!(start.elapsed() < Duration::from_secs(20));
            // A length that is wrong is seen before the stall.
            let lied = matches!(error, Err(Error::SizeMismatch { .. }));
            assert!(lied || matches!(registry_error(error), RegistryError::Stalled { .. }));
            assert_nothing_left(&store);
        }
    }
}

#[test]
fn a_download_that_stalls_once_goes_on() {
    let fixture = Fixture::new();
    let server = Server::with(&fixture);
    let path = blob_path(&fixture, 1);
    server.once(&path, Reply::ok(fixture.layers[1].clone()).stall(70_000));
    let (_dir, store) = new_store();
    pull(&store, &server.image()).unwrap();
    assert_eq!(server.requests(&path)[1].headers["range"], "bytes=70000-");
}

#[test]
fn a_registry_that_is_not_there_is_unreachable() {
    let (_dir, store) = new_store();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = registry_error(pull(&store, &format!("127.0.0.1:{port}/t:1")));
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error:?}");
    assert_nothing_left(&store);
}

#[test]
fn a_lie_about_a_digest_is_seen() {
    let fixture = Fixture::new();
    let mut lie = fixture.layers[1].clone();
    *lie.last_mut().unwrap() ^= 1;
    let mut config = fixture.config.clone();
    config[10] ^= 1;
    let config_path = format!("/v2/t/blobs/{}", digest_of(&fixture.config));
    for (path, body) in [(blob_path(&fixture, 1), lie), (config_path, config)] {
        let server = Server::with(&fixture);
        server.set(&path, Reply::ok(body));
        let (_dir, store) = new_store();
        let error = pull(&store, &server.image()).unwrap_err();
        assert!(matches!(error, Error::DigestMismatch { .. }), "{error:?}");
        assert_nothing_left(&store);
    }
    let server = Server::with(&fixture);
    server.set(
        "/v2/t/manifests/1",
        Reply::ok(fixture.manifest).header("Docker-Content-Digest", digest_of(b"x")),
    );
    let (_dir, store) = new_store();
    assert!(matches!(pull(&store, &server.image()), Err(Error::DigestMismatch { .. })));
}

#[test]
fn a_lie_about_a_size_is_seen() {
    let fixture = Fixture::new();
    let layer = &fixture.layers[0];
    let longer = [layer.as_slice(), b"x"].concat();
    let shorter = layer[..layer.len() - 1].to_vec();
    let unstated = Reply::ok(longer.clone()).header("Content-Length", (1_u64 << 40).to_string());
    for reply in [Reply::ok(longer), Reply::ok(shorter), unstated] {
        let server = Server::with(&fixture);
        server.set(&blob_path(&fixture, 0), reply);
        let (_dir, store) = new_store();
        assert!(matches!(pull(&store, &server.image()), Err(Error::SizeMismatch { .. })));
        assert_nothing_left(&store);
    }
}

#[test]
fn a_layer_that_never_comes_whole_is_truncated_or_interrupted() {
    let fixture = Fixture::new();
    let server = Server::with(&fixture).without_ranges();
    server.set(&blob_path(&fixture, 0), Reply::ok(fixture.layers[0].clone()).cut(0));
    let (_dir, store) = new_store();
    let error = registry_error(pull(&store, &server.image()));
    assert!(
        matches!(error, RegistryError::Interrupted { .. } | RegistryError::Truncated { .. }),
        "{error:?}"
    );
    assert_nothing_left(&store);
}

#[test]
fn a_download_that_always_starts_anew_ends() {
    let fixture = Fixture::new();
    let server = Server::with(&fixture).without_ranges();
    server.set(&blob_path(&fixture, 0), Reply::ok(fixture.layers[0].clone()).cut(60_000));
    let (_dir, store) = new_store();
    registry_error(pull(&store, &server.image()));
    assert!(server.requests(&blob_path(&fixture, 0)).len() < 10);
    assert_nothing_left(&store);
}

#[test]
fn a_token_is_got_with_the_credentials_and_sent() {
    let server = Server::with(&Fixture::new());
    server.set_auth(Auth::Bearer);
    server.set("/token", Reply::ok(*b"{\"token\":\"secret\"}"));
    let (dir, store) = new_store();
    let file = dir.path().join("config.json");
    let auths = json!({ "auths": { server.host(): { "auth": "bWU6cGFzcw==" } } });
    std::fs::write(&file, auths.to_string()).unwrap();
    let options = Options { credentials: Credentials::at(file), ..options() };
    pull_with(&store, &server.image(), &options).unwrap();
    let tokens = server.requests("/token");
    assert_eq!(tokens.len(), 1, "one token serves all requests");
    assert_eq!(tokens[0].headers["authorization"], "Basic bWU6cGFzcw==");
    assert_eq!(tokens[0].path, "/token?service=s&scope=repository%3At%3Apull");
}

#[test]
fn a_token_is_got_anonymously_where_there_are_no_credentials() {
    let server = Server::with(&Fixture::new());
    server.set_auth(Auth::Bearer);
    server.set("/token", Reply::ok(*b"{\"access_token\":\"secret\"}"));
    let (_dir, store) = new_store();
    pull(&store, &server.image()).unwrap();
    assert!(!server.requests("/token")[0].headers.contains_key("authorization"));
}

#[test]
fn an_identity_token_is_changed_for_a_token() {
    let server = Server::with(&Fixture::new());
    server.set_auth(Auth::Bearer);
    server.set("/token", Reply::ok(*b"{\"access_token\":\"secret\"}"));
    let (dir, store) = new_store();
    let file = dir.path().join("config.json");
    let auths = json!({ "auths": { server.host(): { "identitytoken": "a&b" } } });
    std::fs::write(&file, auths.to_string()).unwrap();
    let options = Options { credentials: Credentials::at(file), ..options() };
    pull_with(&store, &server.image(), &options).unwrap();
    let request = &server.requests("/token")[0];
    assert_eq!(request.method, "POST");
    assert!(request.body.contains("grant_type=refresh_token&refresh_token=a%26b"), "{}", request.body);
}

#[test]
fn basic_credentials_are_sent_once_they_are_asked_for() {
    let server = Server::with(&Fixture::new());
    server.set_auth(Auth::Basic { expected: "Basic bWU6cGFzcw==".into() });
    let (dir, store) = new_store();
    let error = registry_error(pull(&store, &server.image()));
    assert!(matches!(error, RegistryError::Denied { status: 401, authenticated: false, .. }), "{error:?}");
    assert!(!error.to_string().contains('\u{1b}'));
    assert_nothing_left(&store);
    let file = dir.path().join("config.json");
    let auths = json!({ "auths": { server.host(): { "username": "me", "password": "pass" } } });
    std::fs::write(&file, auths.to_string()).unwrap();
    let options = Options { credentials: Credentials::at(file), ..options() };
    pull_with(&store, &server.image(), &options).unwrap();
}

#[test]
fn credentials_are_not_sent_where_a_layer_is_redirected_to() {
    let fixture = Fixture::new();
    let (server, elsewhere) = (Server::with(&fixture), Server::with(&fixture));
    server.set_auth(Auth::Bearer);
    server.set("/token", Reply::ok(*b"{\"token\":\"secret\"}"));
    let path = blob_path(&fixture, 0);
    let location = format!("http://{}{path}", elsewhere.host());
    server.set(&path, Reply::status(307).header("Location", location));
    let (_dir, store) = new_store();
    pull(&store, &server.image()).unwrap();
    let requests = elsewhere.log();
    assert_eq!(requests.len(), 1);
    assert!(!requests[0].headers.contains_key("authorization"));
}

#[test]
fn redirections_in_a_circle_or_to_plain_http_elsewhere_are_refused() {
    let fixture = Fixture::new();
    let path = blob_path(&fixture, 0);
    for location in [path.clone(), "http://192.0.2.1/layer".into()] {
        let server = Server::with(&fixture);
        server.set(&path, Reply::status(307).header("Location", location));
        let (_dir, store) = new_store();
        let error = registry_error(pull(&store, &server.image()));
        assert!(matches!(error, RegistryError::Protocol { .. }), "{error:?}");
        assert_nothing_left(&store);
    }
}

#[test]
fn what_is_not_there_is_not_found() {
    let fixture = Fixture::new();
    let server = Server::with(&fixture);
    let (_dir, store) = new_store();
    let error = registry_error(pull(&store, &format!("{}/t:other", server.host())));
    assert!(matches!(&error, RegistryError::NotFound { detail, .. } if detail == "because"), "{error:?}");
    server.set(&blob_path(&fixture, 1), Reply::status(404));
    let error = registry_error(pull(&store, &server.image()));
    assert!(matches!(error, RegistryError::NotFound { .. }), "{error:?}");
    assert_nothing_left(&store);
}

#[test]
fn a_rate_limit_is_waited_for_as_long_as_it_says() {
    let server = Server::with(&Fixture::new());
    server.once("/v2/t/manifests/1", Reply::status(429).header("Retry-After", "1"));
    let (_dir, store) = new_store();
    let start = Instant::now();
    pull(&store, &server.image()).unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(server.requests("/v2/t/manifests/1").len(), 2);
}

#[test]
fn a_rate_limit_that_asks_for_too_long_a_wait_is_an_error_at_once() {
    let server = Server::with(&Fixture::new());
    server.set("/v2/t/manifests/1", Reply::status(429).header("Retry-After", "86400"));
    let (_dir, store) = new_store();
    let error = registry_error(pull(&store, &server.image()));
    let RegistryError::RateLimited { retry_after, .. } = error else { panic!("{error:?}") };
    assert_eq!(retry_after, Some(Duration::from_secs(86400)));
    assert_eq!(server.requests("/v2/t/manifests/1").len(), 1);
    assert_nothing_left(&store);
}

#[test]
fn a_failing_server_is_tried_as_often_as_the_options_say() {
    let fixture = Fixture::new();
    let server = Server::with(&fixture);
    let (_dir, store) = new_store();
    server.once(&blob_path(&fixture, 0), Reply::status(503));
    server.once("/v2/t/manifests/1", Reply::status(500));
    pull(&store, &server.image()).unwrap();
    let (_dir, store) = new_store();
    server.set(&blob_path(&fixture, 0), Reply::status(500));
    let error = registry_error(pull(&store, &server.image()));
    assert!(matches!(error, RegistryError::ServerError { status: 500, attempts: 3, .. }), "{error:?}");
    assert_nothing_left(&store);
}

#[test]
fn documents_that_are_too_large_or_malformed_are_refused() {
    let server = Server::with(&Fixture::new());
    let (_dir, store) = new_store();
    server.set("/v2/t/manifests/1", Reply::ok(vec![b' '; 5 << 20]));
    assert!(matches!(pull(&store, &server.image()), Err(Error::Limit { .. })));
    server.set("/v2/t/manifests/1", Reply::ok(*b"{"));
    assert!(matches!(pull(&store, &server.image()), Err(Error::Malformed { .. })));
    server.set("/v2/t/manifests/1", Reply::ok(*b"{\"schemaVersion\":1,\"fsLayers\":[]}"));
    assert!(matches!(pull(&store, &server.image()), Err(Error::Schema1 { .. })));
    assert_nothing_left(&store);
}

#[test]
fn an_index_without_end_is_refused() {
    let server = Server::new();
    let mut index = Fixture::index(&[]);
    for _ in 0..6 {
        server.set(&format!("/v2/t/manifests/{}", digest_of(&index)), Reply::ok(index.clone()));
        let entry = json!({
            "mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest_of(&index), "size": index.len(),
        });
        index = Fixture::index(&[entry]);
    }
    server.set_manifest("1", &index);
    let (_dir, store) = new_store();
    assert!(matches!(pull(&store, &server.image()), Err(Error::Limit { .. })));
}

#[test]
fn a_layer_that_unpacks_to_something_else_is_refused() {
    let layer = tar_of(&[("a", b"b")]);
    let config = |diff_ids: &[String]| json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": diff_ids } });
    let (_dir, store) = new_store();
    let fixture = Fixture::with_config(&config(&[digest_of(b"x")]), std::slice::from_ref(&layer));
    let error = pull(&store, &Server::with(&fixture).image()).unwrap_err();
    assert!(matches!(error, Error::DiffIdMismatch { number: 1, .. }), "{error:?}");
    let fixture = Fixture::with_config(&config(&[]), &[layer]);
    let error = pull(&store, &Server::with(&fixture).image()).unwrap_err();
    assert!(matches!(error, Error::LayerCount { layers: 1, diff_ids: 0, .. }), "{error:?}");
    assert_nothing_left(&store);
}

#[test]
fn a_layer_that_unpacks_to_too_much_is_refused() {
    let fixture = Fixture::new();
    let (_dir, store) = new_store();
    let mut small = options();
    small.limits.rootfs.layer_bytes = 50_000;
    let error = pull_with(&store, &Server::with(&fixture).image(), &small).unwrap_err();
    assert!(matches!(error, Error::Rootfs { .. }), "{error:?}");
    assert_nothing_left(&store);
}

#[test]
fn a_pull_that_is_given_up_leaves_nothing() {
    let fixture = Fixture::new();
    let server = Server::with(&fixture);
    server.set(&blob_path(&fixture, 0), Reply::ok(fixture.layers[0].clone()).stall(50_000));
    let (_dir, store) = new_store();
    let mut patient = options();
    patient.network.stall = Duration::from_secs(60);
    run(async {
        let source = server.image().parse().unwrap();
        let pulling = store.pull(&source, Policy::Missing, &patient);
        assert!(tokio::time::timeout(Duration::from_millis(300), pulling).await.is_err());
    });
    assert_tmp_is_empty(&store);
    assert_nothing_left(&store);
}
