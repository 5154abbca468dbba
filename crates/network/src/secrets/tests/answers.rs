//! What comes back.

use http_body_util::BodyExt;
use hyper::StatusCode;

use super::super::What;
use super::fixture::{Scene, run, text};

const PROTOCOLS: [&str; 2] = ["http/1.1", "h2"];
const TOKEN: &str = "tok/real-\"token\"";

async fn scene() -> Scene {
    Scene::new(&[&format!("T=value:{TOKEN}@api.example.com+body")]).await
}

fn scrubbed() -> Vec<(Option<String>, What)> {
    vec![(Some("T".to_owned()), What::Scrubbed)]
}

#[test]
fn a_value_comes_back_as_its_placeholder() {
    run(async {
        for protocol in PROTOCOLS {
            for target in ["/authorization", "/pieces"] {
                let scene = scene().await;
                let placeholder = scene.placeholder("T");
                let mut client = scene.client(protocol).await;
                let (_, headers, body) =
                    client.ask(target, &[("authorization", &placeholder)], text("")).await;
                assert_eq!(scene.last().header("authorization"), TOKEN);
                assert_eq!(body, placeholder, "{protocol} {target}");
                if let Some(length) = headers.get("content-length") {
                    assert_eq!(length, &placeholder.len().to_string());
                }
                assert_eq!(scene.told(), scrubbed());
            }
        }
    });
}

#[test]
fn a_value_that_a_header_takes_blanks_from_is_found_without_them() {
    run(async {
        for protocol in PROTOCOLS {
            let scene = Scene::new(&["T=value: tok-in-blanks @api.example.com"]).await;
            let placeholder = scene.placeholder("T");
            let mut client = scene.client(protocol).await;
            let (.., body) = client.ask("/authorization", &[("authorization", &placeholder)], text("")).await;
            assert_eq!(body.trim(), placeholder, "{protocol}");
        }
    });
}

#[test]
fn a_value_is_found_in_headers_trailers_and_other_spellings() {
    run(async {
        for protocol in PROTOCOLS {
            let scene = scene().await;
            let placeholder = scene.placeholder("T");
            let mut client = scene.client(protocol).await;
            let header = [("authorization", placeholder.as_str())];
            let body = format!("{placeholder} tok%2Freal-%22token%22 \"tok/real-\\\"token\\\"\"");
            let (_, headers, body) = client.ask("/echo", &header, text(body)).await;
            assert_eq!(headers["x-echo"], placeholder);
            assert_eq!(body, format!("{placeholder} {placeholder} \"{placeholder}\""));
            let (_, headers, _) = client.ask("/elsewhere", &[], text("")).await;
            assert!(!headers.contains_key("alt-svc"));
        }
        let scene = scene().await;
        let mut client = scene.client("h2").await;
        let request = client.request("/trailers", &[("authorization", &scene.placeholder("T"))], text(""));
        let collected = client.send(request).await.unwrap().into_body().collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()["x-told"], scene.placeholder("T"));
        assert_eq!(collected.to_bytes(), "data");
    });
}

#[test]
fn a_long_answer_keeps_its_length_and_shows_no_value() {
    run(async {
        for protocol in PROTOCOLS {
            let scene = scene().await;
            let mut client = scene.client(protocol).await;
            let header = [("authorization", &scene.placeholder("T")[..])];
            let (_, headers, body) = client.ask("/long", &header, text("")).await;
            assert_eq!(body, scene.placeholder("T")[..TOKEN.len()].repeat(100_000));
            assert_eq!(headers["content-length"], body.len().to_string());
        }
    });
}

#[test]
fn the_last_bytes_of_a_message_are_not_held_back_for_ever() {
    run(async {
        let scene = scene().await;
        let mut client = scene.client("http/1.1").await;
        let request = client.request("/hang", &[], text(""));
        let mut body = client.send(request).await.unwrap().into_body();
        let mut heard = Vec::new();
        while heard.len() < 17 {
            heard.extend(body.frame().await.unwrap().unwrap().into_data().unwrap());
        }
        assert_eq!(heard, b"message ends in t");
    });
}

#[test]
fn an_answer_that_is_encoded_for_the_way_is_refused() {
    run(async {
        let scene = scene().await;
        let mut client = scene.client(PROTOCOLS[0]).await;
        let header = [("authorization", &scene.placeholder("T")[..])];
        let (status, _, body) = client.ask("/coded", &header, text("")).await;
        assert_eq!(status, StatusCode::BAD_GATEWAY);
        assert!(body.contains("encoded its answer"), "{body}");
        assert_eq!(scene.told(), [(None, What::Encoded)]);
    });
}

#[test]
fn an_encoded_answer_is_refused_if_a_value_went_out() {
    run(async {
        for protocol in PROTOCOLS {
            let scene = scene().await;
            let mut client = scene.client(protocol).await;
            let request = client.request("/encoded", &[], text(""));
            let response = client.send(request).await.unwrap();
            assert_eq!(response.headers()["content-encoding"], "gzip");
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "\u{1f}…");
            let header = [("authorization", &scene.placeholder("T")[..])];
            let (status, headers, body) = client.ask("/encoded", &header, text("")).await;
            assert_eq!(status, StatusCode::BAD_GATEWAY);
            assert!(body.contains("encoded its answer"), "{body}");
            assert!(!headers.contains_key("content-encoding"));
            assert_eq!(scene.told(), [(None, What::Encoded)]);
        }
    });
}

#[test]
fn a_short_value_is_not_looked_for() {
    run(async {
        let scene = Scene::new(&["T=value:short@api.example.com"]).await;
        let mut client = scene.client("http/1.1").await;
        let (_, _, body) = client.ask("/echo", &[], text("a short text")).await;
        assert_eq!(body, "a short text");
    });
}
