//! What goes out.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::body::Bytes;
use hyper::{StatusCode, Version};

use super::super::What;
use super::fixture::{Scene, pieces, run, text};

const PROTOCOLS: [&str; 2] = ["http/1.1", "h2"];

#[test]
fn a_placeholder_in_a_header_becomes_the_value() {
    run(async {
        for protocol in PROTOCOLS {
            let scene = Scene::new(&["T=value:the-real-token@api.example.com"]).await;
            let bearer = format!("Bearer {}", scene.placeholder("T"));
            let mut client = scene.client(protocol).await;
            let headers = [
                ("authorization", bearer.as_str()),
                ("x-key", &bearer),
                ("accept-encoding", "gzip"),
                ("te", "trailers"),
            ];
            let (status, ..) = client.ask("/x?a=b", &headers, text("body")).await;
            let seen = scene.last();
            assert_eq!(status, StatusCode::OK);
            assert_eq!(seen.header("authorization"), "Bearer the-real-token");
            assert_eq!(seen.header("x-key"), "Bearer the-real-token");
            assert_eq!(seen.header("accept-encoding"), "identity");
            assert_eq!(seen.header("te"), "trailers", "gRPC insists");
            assert_eq!((seen.target.as_str(), &seen.body[..]), ("/x?a=b", &b"body"[..]));
            assert_eq!(seen.version == Version::HTTP_2, protocol == "h2");
            assert_eq!(scene.told(), []);
        }
    });
}

#[test]
fn a_placeholder_is_found_in_basic_credentials() {
    run(async {
        let scene = Scene::new(&["T=value:pass word@*.example.com"]).await;
        let mut client = scene.client("http/1.1").await;
        for (scheme, padded) in [("Basic", true), ("basic ", false)] {
            let credentials = BASE64_STANDARD.encode(format!("user:{}", scene.placeholder("T")));
            let credentials = if padded { &credentials[..] } else { credentials.trim_end_matches('=') };
            let header = format!("{scheme} {credentials}");
            let (_, headers, _) = client.ask("/echo", &[("authorization", &header)], text("")).await;
            let expected = BASE64_STANDARD.encode("user:pass word");
            assert_eq!(scene.last().header("authorization"), format!("{scheme} {expected}"));
            assert_eq!(headers["x-echo"], header.as_str(), "it comes back as it went");
        }
    });
}

#[test]
fn several_secrets_of_a_host_are_put_in_and_anothers_is_not() {
    run(async {
        let scene = Scene::new(&[
            "A=value:value-of-a@api.example.com",
            "B=value:value-of-b@example.org,api.example.com",
            "C=value:value-of-c@example.org",
        ])
        .await;
        let [a, b, c] = ["A", "B", "C"].map(|name| scene.placeholder(name));
        let mut client = scene.client("h2").await;
        for _ in 0..2 {
            client.ask("/", &[("x", &format!("{a}{b},{c},{a}"))], text("")).await;
        }
        assert_eq!(scene.last().header("x"), format!("value-of-avalue-of-b,{c},value-of-a"));
        assert_eq!(scene.told(), [(Some("C".to_owned()), What::WrongHost)], "told once for a connection");
    });
}

#[test]
fn a_query_is_filled_in_its_own_encoding() {
    run(async {
        for protocol in PROTOCOLS {
            let scene = Scene::new(&["T=value:a&b/c d@api.example.com"]).await;
            let target = format!("/x?key={}&z=%20", scene.placeholder("T"));
            scene.client(protocol).await.ask(&target, &[], text("")).await;
            assert_eq!(scene.last().target, "/x?key=a%26b%2Fc%20d&z=%20");
        }
    });
}

#[test]
fn a_body_is_filled_only_where_that_was_asked_for() {
    run(async {
        for protocol in PROTOCOLS {
            let scene = Scene::new(&["T=value:the-real-token@api.example.com+body"]).await;
            let body = format!(r#"{{"key": "{}"}}"#, scene.placeholder("T"));
            let mut client = scene.client(protocol).await;
            client.ask("/whole", &[], text(body.clone())).await;
            assert_eq!(&scene.last().body[..], br#"{"key": "the-real-token"}"#);
            assert_eq!(scene.last().header("content-length"), "25");
            let parts = body.as_bytes().chunks(7).map(Bytes::copy_from_slice).collect();
            client.ask("/parts", &[], pieces(parts)).await;
            assert_eq!(&scene.last().body[..], br#"{"key": "the-real-token"}"#);
            let long = [vec![b'x'; 3 << 20], body.into_bytes()].concat();
            client.ask("/long-one", &[], text(long.clone())).await;
            assert_eq!(scene.last().body.len(), (3 << 20) + 25);

            let scene = Scene::new(&["T=value:the-real-token@api.example.com"]).await;
            let body = scene.placeholder("T");
            scene.client(protocol).await.ask("/", &[], text(body.clone())).await;
            assert_eq!(scene.last().body, body);
        }
    });
}

#[test]
fn a_request_for_another_host_is_refused() {
    run(async {
        let scene = Scene::new(&["T=value:the-real-token@api.example.com"]).await;
        let placeholder = scene.placeholder("T");
        for (target, host) in [
            ("/", "other.example.com"),
            ("/", "api.example.com@other.example.com"),
            ("http://other.example.com/", "api.example.com"),
            ("/", ""),
        ] {
            let mut client = scene.client("http/1.1").await;
            let mut request = client.request(target, &[("x", &placeholder)], text(""));
            request.headers_mut().insert("host", host.parse().unwrap());
            let response = client.send(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::MISDIRECTED_REQUEST, "{target} {host}");
        }
        let mut client = scene.client("h2").await;
        for (uri, host) in [("https://other.example.com/", None), ("https://api.example.com/", Some("b.org"))]
        {
            let mut request = client.request("/", &[("x", &placeholder)], text(""));
            *request.uri_mut() = uri.parse().unwrap();
            if let Some(host) = host {
                request.headers_mut().insert("host", host.parse().unwrap());
            }
            let status = client.send(request).await.map(|response| response.status());
            // Two hosts are no request at all for some.
            assert!(!matches!(status, Ok(StatusCode::OK)), "{uri}");
        }
        let (status, ..) = client.ask("/", &[("x", &placeholder)], text("")).await;
        assert_eq!(status, StatusCode::OK, "the connection goes on");
        assert_eq!(scene.seen().len(), 1);
        assert!(scene.told().iter().all(|(_, what)| *what == What::OtherHost));
        assert!(!scene.told().is_empty());
    });
}

#[test]
fn a_guest_cannot_make_a_head_grow_without_bound() {
    run(async {
        let value = "v".repeat(60 << 10);
        let scene = Scene::new(&[&format!("T=value:{value}@api.example.com")]).await;
        let header = scene.placeholder("T").repeat(100);
        let mut client = scene.client("h2").await;
        let (status, ..) = client.ask("/", &[("x", &header)], text("")).await;
        assert_eq!(status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        assert_eq!(scene.seen().len(), 0);
    });
}

#[test]
fn a_value_that_is_no_header_is_refused_and_told() {
    run(async {
        let scene = Scene::new(&["T=value:two\nlines@api.example.com"]).await;
        let mut client = scene.client("http/1.1").await;
        let (status, _, body) = client.ask("/", &[("x", &scene.placeholder("T"))], text("")).await;
        assert_eq!(status, StatusCode::BAD_GATEWAY);
        assert!(body.contains("characters that a header cannot have"), "{body}");
        assert_eq!(scene.told(), [(Some("T".to_owned()), What::Unfit)]);
    });
}
