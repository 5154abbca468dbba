//! Connections from their beginning to their end.

use std::sync::atomic::Ordering;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::{InterceptError, What};
use super::fixture::{Client, HOST, Scene, Server, pieces, run, text};

const SECRET: &str = "T=value:the-real-token@api.example.com+body";

#[test]
fn several_requests_go_over_one_connection() {
    run(async {
        for protocol in ["http/1.1", "h2"] {
            let scene = Scene::new(&[SECRET]).await;
            let mut client = scene.client(protocol).await;
            for number in 0..5 {
                let target = format!("/{number}");
                client.ask(&target, &[("x", &scene.placeholder("T"))], text("")).await;
                assert_eq!(
                    (scene.last().target, scene.last().headers["x"].as_bytes()),
                    (target, &b"the-real-token"[..])
                );
            }
            assert_eq!(scene.connections.get(), 1);
        }
    });
}

#[test]
fn requests_in_a_row_are_answered_in_order_after_the_guests_end() {
    run(async {
        let scene = Scene::new(&[SECRET]).await;
        let (stream, task) = scene.tls(HOST, &[]).await;
        let mut stream = stream.unwrap();
        let placeholder = scene.placeholder("T");
        let request = |path: &str| {
            format!(
                "GET {path} HTTP/1.1\r\nHost: api.example.com\r\nAuthorization: {placeholder}\r\nX-Mixed-Case: 1\r\n\r\n"
            )
        };
        stream.write_all((request("/1") + &request("/authorization")).as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard.matches("HTTP/1.1 200").count(), 2, "{heard}");
        assert!(heard.ends_with(&placeholder), "{heard}");
        assert_eq!(
            scene.seen().iter().map(|seen| seen.target.as_str()).collect::<Vec<_>>(),
            ["/1", "/authorization"]
        );
        task.await.unwrap().unwrap();
    });
}

#[test]
fn two_requests_that_look_like_one_are_never_passed_on_as_two_to_another_host() {
    run(async {
        let scene = Scene::new(&[SECRET]).await;
        let (stream, _) = scene.tls(HOST, &["http/1.1"]).await;
        let mut stream = stream.unwrap();
        let hidden =
            format!("0\r\n\r\nGET / HTTP/1.1\r\nHost: other.org\r\nX: {}\r\n\r\n", scene.placeholder("T"));
        let length = hidden.len();
        let request = format!(
            "POST / HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n{hidden}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut heard = String::new();
        _ = stream.read_to_string(&mut heard).await;
        assert!(scene.seen().iter().all(|seen| !seen.headers.contains_key("x")), "{:?}", scene.seen());
    });
}

#[test]
fn large_bodies_go_both_ways_at_once() {
    run(async {
        for protocol in ["http/1.1", "h2"] {
            let scene = Scene::new(&[SECRET]).await;
            let mut client = scene.client(protocol).await;
            let body = || pieces(vec![Bytes::from(vec![b'x'; 64 << 10]); 128]);
            assert_eq!(client.ask("/count", &[], body()).await.2, (8 << 20).to_string());
            assert_eq!(client.ask("/stream", &[], text("")).await.2.len(), 4 << 20);
        }
    });
}

#[test]
fn the_guests_connection_ends_with_the_hosts() {
    run(async {
        let scene = Scene::new(&[SECRET]).await;
        let (stream, task) = scene.tls(HOST, &["http/1.1"]).await;
        let mut stream = stream.unwrap();
        stream.write_all(b"GET /close HTTP/1.1\r\nHost: api.example.com\r\n\r\n").await.unwrap();
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await.unwrap();
        assert!(heard.contains("connection: close"), "{heard}");
        task.await.unwrap().unwrap();
    });
}

#[test]
fn an_answer_that_breaks_off_is_not_taken_for_a_whole_one() {
    run(async {
        for protocol in ["http/1.1", "h2"] {
            let scene = Scene::new(&[SECRET]).await;
            let mut client = scene.client(protocol).await;
            let request = client.request("/broken", &[], text(""));
            // The head may have been lost as well.
            if let Ok(response) = client.send(request).await {
                assert!(response.into_body().collect().await.is_err(), "{protocol}");
            }
        }
    });
}

#[test]
fn what_the_guest_does_not_read_is_not_asked_for() {
    run(async {
        for protocol in ["http/1.1", "h2"] {
            let scene = Scene::new(&[SECRET]).await;
            let mut client = scene.client(protocol).await;
            let request = client.request("/endless", &[("authorization", &scene.placeholder("T"))], text(""));
            let mut body = client.send(request).await.unwrap().into_body();
            let produced = || scene.produced.load(Ordering::Relaxed);
            // The sockets in between fill up.
            let mut before = usize::MAX;
            while before != produced() {
                before = produced();
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            assert!(before < 32 << 20, "{protocol}: {before}");
            let mut heard = 0;
            while heard <= before {
                heard += body.frame().await.unwrap().unwrap().into_data().unwrap().len();
            }
            assert!(produced() > before);
        }
    });
}

#[test]
fn a_connection_can_become_something_else_whose_values_end_it() {
    run(async {
        let scene = Scene::new(&[SECRET]).await;
        let mut client = scene.client("http/1.1").await;
        let placeholder = scene.placeholder("T");
        let headers = [("connection", "upgrade"), ("upgrade", "x"), ("authorization", placeholder.as_str())];
        let request = client.request("/upgrade", &headers, text(""));
        let mut response = client.send(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        let mut stream = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
        for message in [placeholder.as_bytes(), b"whatever", b"a message that ends in t"] {
            stream.write_all(message).await.unwrap();
            let mut heard = vec![0; message.len()];
            stream.read_exact(&mut heard).await.unwrap();
            assert_eq!(heard, message);
        }
        stream.write_all(b"tell").await.unwrap();
        let mut heard = Vec::new();
        _ = stream.read_to_end(&mut heard).await;
        assert_eq!(heard, b"");
        assert_eq!(scene.told(), [(Some("T".to_owned()), What::Leaked)]);
    });
}

#[test]
fn a_server_that_is_not_the_host_gets_nothing_and_the_guest_hears_why() {
    run(async {
        for protocol in ["http/1.1", "h2"] {
            let server = Server { name: "other.example.com", ..Server::default() };
            let scene = Scene::with(&[SECRET], server).await;
            let mut client = scene.client(protocol).await;
            let (status, _, body) = client.ask("/", &[("x", &scene.placeholder("T"))], text("")).await;
            assert_eq!(status, StatusCode::BAD_GATEWAY);
            assert!(body.contains("api.example.com cannot be trusted with a secret"), "{body}");
            assert!(matches!(&scene.told()[..], [(None, What::Unverified(_))]));
            assert_eq!(scene.seen().len(), 0);
        }
    });
}

#[test]
fn the_guest_speaks_what_the_host_speaks() {
    run(async {
        let server = Server { protocols: &["http/1.1"], ..Server::default() };
        let scene = Scene::with(&[SECRET], server).await;
        let (stream, _) = scene.tls(HOST, &["h2", "http/1.1"]).await;
        assert_eq!(stream.unwrap().get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        let server = Server { protocols: &[], ..Server::default() };
        let scene = Scene::with(&[SECRET], server).await;
        let (stream, _) = scene.tls(HOST, &["h2", "http/1.1"]).await;
        assert_eq!(stream.unwrap().get_ref().1.alpn_protocol(), None);
    });
}

#[test]
fn what_is_not_http_or_for_another_name_is_refused() {
    run(async {
        let scene = Scene::new(&[SECRET]).await;
        let (stream, task) = scene.tls(HOST, &["imap"]).await;
        assert!(stream.is_err());
        assert!(matches!(task.await.unwrap(), Err(InterceptError::Protocol)));
        let (stream, task) = scene.tls("other.example.com", &["h2"]).await;
        assert!(stream.is_err());
        assert!(matches!(task.await.unwrap(), Err(InterceptError::Name)));
        let (mut guest, task) = scene.dial(true).await;
        guest.write_all(b"\x16\x03\x01garbage").await.unwrap();
        guest.shutdown().await.unwrap();
        assert!(matches!(task.await.unwrap(), Err(InterceptError::Guest(_))));
    });
}

#[test]
fn a_guest_that_stands_still_in_the_beginning_is_not_waited_for() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    tokio::task::LocalSet::new().block_on(&runtime.unwrap(), async {
        let scene = Scene::new(&[SECRET]).await;
        let (_guest, task) = scene.dial(true).await;
        assert!(matches!(task.await.unwrap(), Err(InterceptError::Late)));
    });
}

#[test]
fn a_placeholder_without_tls_goes_out_as_it_is_and_is_told() {
    run(async {
        let scene = Scene::new(&[SECRET]).await;
        let placeholder = scene.placeholder("T");
        let (mut guest, task) = scene.dial(false).await;
        for half in [&placeholder[..20], &placeholder[20..]] {
            guest.write_all(half.as_bytes()).await.unwrap();
            let mut heard = vec![0; half.len()];
            guest.read_exact(&mut heard).await.unwrap();
            assert_eq!(heard, half.as_bytes());
        }
        guest.shutdown().await.unwrap();
        assert_eq!(guest.read(&mut [0]).await.unwrap(), 0);
        task.await.unwrap().unwrap();
        assert_eq!(scene.told(), [(Some("T".to_owned()), What::Plain)]);
    });
}

#[test]
fn the_end_of_the_task_ends_both_sides() {
    run(async {
        let scene = Scene::new(&[SECRET]).await;
        let (stream, task) = scene.tls(HOST, &["h2"]).await;
        let (sender, connection) =
            hyper::client::conn::http2::handshake(super::fixture::Local, TokioIo::new(stream.unwrap()))
                .await
                .unwrap();
        let connection = tokio::task::spawn_local(connection);
        let mut client = Client::Two(sender);
        let request = client.request("/hang", &[], text(""));
        let mut body = client.send(request).await.unwrap().into_body();
        assert!(body.frame().await.unwrap().is_ok());
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        while let Some(Ok(_)) = body.frame().await {}
        _ = connection.await;
    });
}
