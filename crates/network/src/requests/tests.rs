//! A guest's end and a host's, and what carries requests between them.

use std::collections::HashSet;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

use super::*;

/// Nothing here takes a tenth of it.
const HANG: Duration = Duration::from_secs(60);

fn run(test: impl AsyncFnOnce(Scene)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        timeout(HANG, async { test(Scene::new().await).await }).await.expect("the test hangs");
    });
}

struct Scene {
    guest: UnixStream,
    host: TcpStream,
    requests: Requests,
    /// The names that may be talked to.
    allowed: Rc<RefCell<HashSet<&'static str>>>,
}

impl Scene {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to_host = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (host, _) = listener.accept().await.unwrap();
        let (guest, theirs) = UnixStream::pair().unwrap();
        let allowed = Rc::new(RefCell::new(HashSet::from(["a.example", "b.example"])));
        let names = Rc::clone(&allowed);
        let judge = move |host: Option<&Name>| match host {
            Some(host) if names.borrow().contains(host.as_str()) => Ok(()),
            Some(host) => Err(format!("{host} is refused")),
            None => Err("no name".to_owned()),
        };
        Self { guest, host, requests: Requests::carry(theirs, to_host, 1 << 20, judge), allowed }
    }

    async fn say(&mut self, text: &str) {
        self.guest.write_all(text.as_bytes()).await.unwrap();
    }

    async fn answer(&mut self, text: &str) {
        self.host.write_all(text.as_bytes()).await.unwrap();
    }

    async fn hears(&mut self, end: &str) -> String {
        until(&mut self.guest, end).await
    }

    async fn host_hears(&mut self, end: &str) -> String {
        until(&mut self.host, end).await
    }

    /// Has a request refused, of which the host hears nothing.
    async fn ends_refused(mut self, request: &str, name: Option<&str>, why: &str) {
        self.say(request).await;
        let mut heard = String::new();
        self.guest.read_to_string(&mut heard).await.unwrap();
        assert!(heard.starts_with("HTTP/1.1 403 ") && heard.contains("cellule: "), "{heard}");
        let mut rest = String::new();
        self.host.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "");
        let Some(Ending::Refused((refused, told))) = self.requests.ending() else { panic!("{request}") };
        assert_eq!(refused.as_ref().map(Name::as_str), name);
        assert!(told.contains(why) && heard.contains(&told), "{told}");
    }
}

/// What is said, up to and with `end`.
async fn until(stream: &mut (impl AsyncRead + Unpin), end: &str) -> String {
    let mut heard = Vec::new();
    while !heard.ends_with(end.as_bytes()) {
        heard.push(stream.read_u8().await.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&heard))));
    }
    String::from_utf8(heard).unwrap()
}

const OK: &str = "HTTP/1.1 200 Fine\r\nX-Mixed-Case: 1\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn requests_of_one_connection_are_for_any_host_that_is_allowed_and_stay_as_they_are() {
    run(async |mut scene| {
        for request in [
            "GET /x?y=%20&z HTTP/1.1\r\nHost: a.example\r\nX-Mixed-Case: 1\r\n\r\n",
            "DELETE /%7e//b HTTP/1.1\r\nHost: B.example:80\r\n\r\n",
            "GET http://b.example/x HTTP/1.1\r\nHost: b.example\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "GET //c.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "GET /a|b{c}[d]^e\"f HTTP/1.1\r\nHost: a.example\r\n\r\n",
        ] {
            scene.say(request).await;
            assert_eq!(scene.host_hears("\r\n\r\n").await, request);
            scene.answer(OK).await;
            assert_eq!(scene.hears("ok").await, OK);
        }
        assert_eq!(scene.requests.ending(), None);
    });
}

#[test]
fn requests_that_come_at_once_go_out_one_by_one_and_the_first_refused_is_the_last() {
    run(async |mut scene| {
        let request = |host| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let all = ["a.example", "b.example", "c.example", "a.example"].map(request);
        scene.say(&all.concat()).await;
        for request in &all[..2] {
            assert_eq!(&scene.host_hears("\r\n\r\n").await, request);
            scene.answer(OK).await;
            scene.hears("ok").await;
        }
        scene.ends_refused("", Some("c.example"), "c.example is refused").await;
    });
}

#[test]
fn what_names_no_host_or_several_ends_refused() {
    for (request, name, why) in [
        ("GET / HTTP/1.1\r\nHost: c.example\r\n\r\n", Some("c.example"), "is refused"),
        ("GET / HTTP/1.1\r\n\r\n", None, "no name"),
        ("GET / HTTP/1.1\r\nHost: 203.0.113.9\r\n\r\n", None, "no name"),
        ("GET / HTTP/1.1\r\nHost: a.example\r\nHost: a.example\r\n\r\n", None, "several hosts"),
        ("GET / HTTP/1.1\r\nHost: a.example, c.example\r\n\r\n", None, "several hosts"),
        ("GET http://c.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", None, "several hosts"),
        ("GET c.example HTTP/1.1\r\nHost: a.example\r\n\r\n", None, "several hosts"),
        ("GET http://x@a.example/ HTTP/1.1\r\n\r\n", None, "several hosts"),
        ("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n", None, "CONNECT"),
        (
            "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: x, chunked\r\n\r\n0\r\n\r\n",
            None,
            "transfer coding",
        ),
    ] {
        run(async |scene| scene.ends_refused(request, name, why).await);
    }
}

#[test]
fn what_cannot_be_read_is_not_passed_on() {
    for request in [
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a.example\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked, x\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nabc",
    ] {
        run(async |mut scene| {
            scene.say(request).await;
            let (mut heard, mut rest) = (String::new(), String::new());
            scene.guest.read_to_string(&mut heard).await.unwrap();
            scene.host.read_to_string(&mut rest).await.unwrap();
            assert!(!heard.contains("200") && rest.is_empty(), "{heard} {rest}");
            let refused = Ending::Refused((None, "a request cannot be read".to_owned()));
            assert_eq!(scene.requests.ending(), Some(refused), "{request}");
        });
    }
}

#[test]
fn rules_that_have_changed_are_those_of_the_next_request() {
    run(async |mut scene| {
        let request = "GET / HTTP/1.1\r\nHost: b.example\r\n\r\n";
        scene.say(request).await;
        scene.host_hears("\r\n\r\n").await;
        scene.allowed.borrow_mut().remove("b.example");
        scene.answer(OK).await;
        scene.hears("ok").await;
        scene.ends_refused(request, Some("b.example"), "is refused").await;
    });
}

#[test]
fn two_requests_that_look_like_one_are_one_for_the_host_as_well() {
    run(async |mut scene| {
        let hidden = "0\r\n\r\nGET / HTTP/1.1\r\nHost: c.example\r\n\r\n";
        scene
            .say(&format!(
                "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n{hidden}",
                hidden.len()
            ))
            .await;
        let heard = scene.host_hears("0\r\n\r\n").await;
        assert!(heard.contains("Transfer-Encoding: chunked"), "{heard}");
        assert!(!heard.to_ascii_lowercase().contains("content-length"), "{heard}");
        scene.answer(OK).await;
        // Who is not sure what was meant goes no further.
        let (mut heard, mut rest) = (String::new(), String::new());
        scene.guest.read_to_string(&mut heard).await.unwrap();
        scene.host.read_to_string(&mut rest).await.unwrap();
        assert_eq!((heard.matches("HTTP/1.1").count(), rest.as_str()), (1, ""), "{heard}");
    });
}

#[test]
fn bodies_in_chunks_go_both_ways_as_they_come() {
    run(async |mut scene| {
        scene.say("POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        let heard = scene.host_hears("\r\n\r\n").await;
        assert!(heard.contains("Transfer-Encoding: chunked\r\n"), "{heard}");
        scene.answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        scene.hears("\r\n\r\n").await;
        for _ in 0..3 {
            scene.say("3\r\none\r\n").await;
            assert_eq!(scene.host_hears("one\r\n").await, "3\r\none\r\n");
            scene.answer("4\r\nfour\r\n").await;
            assert_eq!(scene.hears("four\r\n").await, "4\r\nfour\r\n");
        }
        scene.say("0\r\n\r\n").await;
        scene.host_hears("0\r\n\r\n").await;
        scene.answer("0\r\n\r\n").await;
        scene.hears("0\r\n\r\n").await;
        scene.ends_refused("GET / HTTP/1.1\r\nHost: c.example\r\n\r\n", Some("c.example"), "refused").await;
    });
}

#[test]
fn answers_without_a_body_keep_the_length_that_they_tell_and_others_have_one() {
    run(async |mut scene| {
        for (method, answer) in [
            ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"),
            ("GET", "HTTP/1.1 304 Not Modified\r\nETag: \"9\"\r\n\r\n"),
            ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
            ("GET", "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ] {
            scene.say(&format!("{method} / HTTP/1.1\r\nHost: a.example\r\n\r\n")).await;
            scene.host_hears("\r\n\r\n").await;
            scene.answer(answer).await;
            // Hints are for who does not wait.
            let answer = &answer[answer.rfind("HTTP").unwrap()..];
            assert_eq!(scene.hears("\r\n\r\n").await, answer);
        }
        scene.say("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
        scene.host_hears("\r\n\r\n").await;
        scene
            .answer("HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
            .await;
        let heard = scene.hears("0\r\n\r\n").await;
        assert!(!heard.contains("Content-Length") && heard.contains("2\r\nok\r\n"), "{heard}");
    });
}

#[test]
fn a_side_that_does_not_read_makes_the_other_wait() {
    run(async |mut scene| {
        scene.say("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1000000000\r\n\r\n").await;
        let piece = vec![b'x'; 64 << 10];
        let mut sent = 0;
        while let Ok(count) = timeout(Duration::from_millis(200), scene.guest.write(&piece)).await {
            sent += count.unwrap();
        }
        // What the kernel has of it on loopback, and no more.
        assert!(sent < 16 << 20, "{sent}");
    });
}

#[test]
fn a_guest_that_waits_to_be_told_to_go_on_is() {
    run(async |mut scene| {
        scene
            .say("PUT / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
            .await;
        assert_eq!(scene.hears("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
        assert!(scene.host_hears("\r\n\r\n").await.contains("100-continue"));
        scene.answer("HTTP/1.1 100 Continue\r\n\r\n").await;
        scene.say("body").await;
        scene.host_hears("body").await;
        scene.answer(OK).await;
        assert_eq!(scene.hears("ok").await, OK);
    });
}

#[test]
fn what_a_connection_becomes_passes_as_it_is() {
    run(async |mut scene| {
        let request =
            "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        scene.say(request).await;
        assert_eq!(scene.host_hears("\r\n\r\n").await, request);
        let switched =
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        scene.answer(&format!("{switched}first")).await;
        assert_eq!(scene.hears("first").await, format!("{switched}first"));
        scene.say("GET / HTTP/1.1\r\nHost: c.example\r\n\r\nup").await;
        assert!(scene.host_hears("up").await.starts_with("GET"));
        scene.answer("down").await;
        assert_eq!(scene.hears("down").await, "down");
        scene.guest.shutdown().await.unwrap();
        let mut rest = String::new();
        scene.host.read_to_string(&mut rest).await.unwrap();
        scene.answer("last").await;
        drop(scene.host);
        scene.guest.read_to_string(&mut rest).await.unwrap();
        assert_eq!((rest.as_str(), scene.requests.ending()), ("last", None));
    });
}

#[test]
fn nothing_is_offered_to_a_host_in_which_requests_could_not_be_read() {
    for protocol in ["h2c", "websocket, H2C", "TLS/1.2", "HTTP/2.0"] {
        run(async |mut scene| {
            let request = format!(
                "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
            );
            scene.say(&request).await;
            let heard = scene.host_hears("\r\n\r\n").await;
            assert!(!heard.contains("Upgrade:") && !heard.contains("Settings:"), "{heard}");
            // One that does it all the same gets nowhere.
            scene
                .answer("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n")
                .await;
            let mut rest = String::new();
            scene.guest.read_to_string(&mut rest).await.unwrap();
            assert!(!rest.contains("101"), "{rest}");
        });
    }
}

#[test]
fn a_connection_ends_as_the_hosts_does() {
    run(async |mut scene| {
        let request = "GET / HTTP/1.0\r\nHost: a.example\r\n\r\n";
        scene.say(request).await;
        assert_eq!(scene.host_hears("\r\n\r\n").await, request);
        scene.answer("HTTP/1.0 200 OK\r\n\r\nslow").await;
        scene.hears("slow").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        scene.answer("er").await;
        drop(scene.host);
        let mut rest = String::new();
        scene.guest.read_to_string(&mut rest).await.unwrap();
        assert_eq!((rest.as_str(), scene.requests.ending()), ("er", None));
    });
    run(async |mut scene| {
        scene.say("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
        scene.guest.shutdown().await.unwrap();
        scene.host_hears("\r\n\r\n").await;
        scene.answer(OK).await;
        let mut heard = String::new();
        scene.guest.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, OK);
    });
}

#[test]
fn an_answer_that_is_broken_off_is_not_taken_for_a_whole_one() {
    run(async |mut scene| {
        scene.say("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
        scene.host_hears("\r\n\r\n").await;
        scene.answer("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart").await;
        scene.hears("part").await;
        scene.host.set_zero_linger().unwrap();
        drop(scene.host);
        assert!(matches!(scene.guest.read(&mut [0; 10]).await, Ok(0) | Err(_)));
        assert!(scene.requests.is_broken());
    });
    run(async |mut scene| {
        scene.say("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
        scene.host_hears("\r\n\r\n").await;
        scene.answer("what is no HTTP\r\n\r\n").await;
        assert!(scene.hears("be read\n").await.starts_with("HTTP/1.1 502 "));
    });
}
