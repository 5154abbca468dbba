//! Registries that misbehave: each fault has its words, comes within its time, and leaves nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cellule_tests::servers::{Answer, misbehaving};
use cellule_tests::{Home, Outcome, leftovers};
use serde_json::json;
use sha2::{Digest as _, Sha256};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// The documents of an image with one layer, which is announced as `announced` and is `layer` in truth.
fn documents(announced: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": [digest(announced)] },
    });
    let config = serde_json::to_vec(&config).unwrap();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": { "mediaType": CONFIG, "digest": digest(&config), "size": config.len() },
        "layers": [{ "mediaType": LAYER, "digest": digest(announced), "size": announced.len() }],
    });
    (serde_json::to_vec(&manifest).unwrap(), config)
}

/// Pulls from a registry that serves good documents and answers for the layer by `layer`.
fn pull_with(
    layer: impl Fn() -> Answer + Send + Sync + 'static,
    announced: &[u8],
    limit: Duration,
) -> Outcome {
    let (manifest, config) = documents(announced);
    let config_path = format!("/blobs/{}", digest(&config));
    pull(
        move |path| match path {
            "/v2/" => Answer::status(200),
            path if path.contains("/manifests/") => Answer::document(MANIFEST, manifest.clone()),
            path if path.ends_with(&config_path) => Answer::document(CONFIG, config.clone()),
            _ => layer(),
        },
        limit,
    )
}

fn pull(behaviour: impl Fn(&str) -> Answer + Send + Sync + 'static, limit: Duration) -> Outcome {
    let home = Home::new();
    let image = format!("{}/test/image:v1", misbehaving(behaviour));
    let outcome = home.run([&image, "true"]).limit(limit).output().exits(125);
    leftovers::assert_none(&home);
    outcome
}

const SOON: Duration = Duration::from_secs(30);

#[test]
fn a_registry_that_does_not_have_it_is_told_from_one_that_refuses() {
    _ = pull(|_| Answer::status(404), SOON).says(&["has no"]);
    _ = pull(|_| Answer::status(401), SOON).says(&["login"]);
    _ = pull(|_| Answer::status(403), SOON).says(&["login"]);
}

#[test]
fn a_registry_that_breaks_or_refuses_for_now_is_asked_again_a_few_times() {
    for (status, said) in [(500, "500"), (429, "429")] {
        let asked = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&asked);
        let answer = move |path: &str| {
            if path.contains("/manifests/") {
                counter.fetch_add(1, Ordering::Relaxed);
            }
            Answer::status(status)
        };
        _ = pull(answer, Duration::from_secs(120)).says(&[said]);
        let asked = asked.load(Ordering::Relaxed);
        assert!((2..=10).contains(&asked), "{status}: asked {asked} times");
    }
}

#[test]
fn a_registry_that_asks_for_a_pause_gets_it_and_the_pull_succeeds_or_says_so() {
    let limited = || Answer::Reply(429, vec![("Retry-After".into(), "100000".into())], Vec::new());
    _ = pull(move |_| limited(), SOON).says(&["429"]);
}

#[test]
fn a_layer_that_is_not_what_its_digest_says_is_refused() {
    let lying = || Answer::document("application/octet-stream", vec![b'x'; 1024]);
    _ = pull_with(lying, &[b'y'; 1024], Duration::from_secs(60)).says(&["digest"]);
}

#[test]
fn a_layer_that_is_shorter_or_longer_than_announced_is_refused() {
    for length in [1000, 2000] {
        let lying = move || Answer::document("application/octet-stream", vec![b'y'; length]);
        _ = pull_with(lying, &[b'y'; 1024], Duration::from_secs(90)).says(&["sha256:"]);
    }
}

#[test]
fn a_registry_that_stalls_is_given_up_in_time() {
    let outcome = pull_with(|| Answer::Stall(1024, vec![b'y'; 100]), &[b'y'; 1024], Duration::from_secs(170));
    _ = outcome.says(&["stall"]);
}

#[test]
fn a_registry_that_is_not_there_is_named() {
    let home = Home::new();
    // Nothing listens on a port that was just given back.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let outcome =
        home.run([format!("127.0.0.1:{port}/a/b:c"), "true".into()]).limit(SOON).output().exits(125);
    _ = outcome.says(&[&port.to_string()]);
    leftovers::assert_none(&home);
}
