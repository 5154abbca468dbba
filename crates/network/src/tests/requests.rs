//! Requests in the clear, of which a connection may have many.

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::State;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::names::{SHARED, look_up, name_server};
use super::*;
use crate::record::Outcome;
use crate::secrets::{Given, SecretArgument, What};

const ANSWER: &str = "HTTP/1.1 204 No Content\r\n\r\n";

/// A connection to an address that has several names.
pub(super) struct Talk {
    pub(super) scene: Scene,
    pub(super) socket: SocketHandle,
    pub(super) host: TcpStream,
}

/// Runs a test with a guest that has looked up `good.example` and is connected.
pub(super) fn talk(policy: Policy, secrets: Option<Rc<Secrets>>, test: impl AsyncFnOnce(Talk)) {
    stage(async || {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let names = ["good.example", "also.good.example", "evil.example"].map(|name| (name, [8, 8, 4, 4]));
        let mut scene = begin(Setting {
            policy: Some(policy),
            servers: vec![name_server(&names)],
            redirect: vec![(SHARED, listener.local_addr().unwrap())],
            secrets,
            ..Setting::default()
        });
        look_up(&mut scene.guest, "good.example").await;
        let socket = scene.guest.connect(5000, SHARED);
        scene.guest.until(socket, |socket| socket.may_send()).await;
        let (host, _) = listener.accept().await.unwrap();
        test(Talk { scene, socket, host }).await;
    });
}

pub(super) fn allow_list() -> Policy {
    rules(None, &["allow good.example", "allow also.good.example"])
}

pub(super) fn request(host: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

impl Talk {
    /// A request that is let through and answered.
    pub(super) async fn passes(&mut self, request: &str) {
        self.scene.guest.write(self.socket, request.as_bytes()).await;
        self.arrives(request).await;
        self.host.write_all(ANSWER.as_bytes()).await.unwrap();
        let heard = self.scene.guest.read(self.socket, ANSWER.len()).await;
        assert_eq!(String::from_utf8_lossy(&heard), ANSWER);
    }

    pub(super) async fn arrives(&mut self, text: &str) {
        let mut heard = vec![0; text.len()];
        let mut count = 0;
        while count < heard.len() {
            self.scene.guest.rest().await;
            count += self.host.try_read(&mut heard[count..]).unwrap_or(0);
        }
        assert_eq!(String::from_utf8_lossy(&heard), text);
    }

    /// A request that is refused, for this name; the result is why.
    async fn ends_refused(mut self, request: &str, name: &str) -> String {
        self.scene.guest.write(self.socket, request.as_bytes()).await;
        self.scene.guest.until(self.socket, |socket| socket.state() == State::CloseWait).await;
        let heard = self.scene.guest.socket(self.socket).recv(|data| (data.len(), data.to_vec())).unwrap();
        let heard = String::from_utf8(heard).unwrap();
        assert!(heard.contains(" 403 Forbidden\r\n") && heard.contains("cellule: "), "{heard}");
        self.scene.guest.socket(self.socket).close();
        let record = self.scene.record().await;
        assert_eq!((record.outcome, record.name.as_deref()), (Outcome::Denied, Some(name)));
        assert!(heard.contains(&record.reason), "{heard} {record:?}");
        assert!(record.received >= heard.len() as u64 && record.sent >= request.len() as u64);
        let mut rest = Vec::new();
        self.host.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"");
        record.reason
    }
}

#[test]
fn under_an_allow_list_each_request_of_a_connection_is_for_an_allowed_name() {
    talk(allow_list(), None, async |mut talk| {
        talk.passes(&request("good.example")).await;
        talk.passes(&request("also.good.example")).await;
        let why = talk.ends_refused(&request("evil.example"), "evil.example").await;
        assert!(why.starts_with("the request's host is evil.example: "), "{why}");
    });
}

#[test]
fn under_an_allow_list_each_request_of_a_connection_names_a_host() {
    talk(allow_list(), None, async |mut talk| {
        talk.passes(&request("good.example")).await;
        let why = talk.ends_refused("GET / HTTP/1.0\r\n\r\n", "good.example").await;
        assert!(why.contains("names no host"), "{why}");
    });
}

#[test]
fn a_name_that_is_denied_is_refused_whatever_the_first_request_was() {
    let policy = rules(Some(Base::Public), &["deny evil.example"]);
    talk(policy, None, async |mut talk| {
        talk.passes(&request("8.8.4.4")).await;
        talk.passes(&request("other.example")).await;
        talk.ends_refused(&request("evil.example"), "evil.example").await;
    });
}

#[test]
fn a_policy_that_has_changed_is_that_of_the_next_request() {
    talk(allow_list(), None, async |mut talk| {
        talk.passes(&request("also.good.example")).await;
        *talk.scene.gateway.policy.borrow_mut() = rules(None, &["allow good.example"]);
        talk.passes(&request("good.example")).await;
        talk.ends_refused(&request("also.good.example"), "also.good.example").await;
    });
}

#[test]
fn a_connection_that_came_to_its_end_is_told_as_it_was() {
    talk(allow_list(), None, async |mut talk| {
        talk.passes(&request("good.example")).await;
        drop(talk.host);
        talk.scene.guest.until(talk.socket, |socket| socket.state() == State::CloseWait).await;
        talk.scene.guest.socket(talk.socket).close();
        let record = talk.scene.record().await;
        assert_eq!((record.outcome, record.name.as_deref()), (Outcome::Closed, Some("good.example")));
        let (sent, received) = (request("good.example").len(), ANSWER.len());
        assert_eq!((record.sent, record.received), (sent as u64, received as u64));
    });
}

#[test]
fn a_host_that_breaks_off_breaks_off_the_guests_connection() {
    talk(allow_list(), None, async |mut talk| {
        talk.passes(&request("good.example")).await;
        talk.host.set_zero_linger().unwrap();
        drop(talk.host);
        talk.scene.guest.until(talk.socket, |socket| socket.state() == State::Closed).await;
        assert_eq!(talk.scene.record().await.outcome, Outcome::Reset);
    });
}

#[test]
fn without_rules_for_names_requests_are_not_read() {
    talk(public(), None, async |mut talk| {
        talk.passes(&request("evil.example")).await;
        talk.passes("what is no request at all").await;
    });
}

#[test]
fn requests_to_a_secrets_host_are_held_to_the_rules_and_looked_into() {
    let events = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&events);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let argument: SecretArgument = "T=value:the-real-token@good.example".parse().unwrap();
    let report = Box::new(move |event| told.lock().unwrap().push(event));
    let secrets = runtime.block_on(Secrets::load(vec![Given::from(argument)], None, Vec::new(), report));
    let secrets = Rc::new(secrets.unwrap());
    let placeholder = secrets.variables().next().unwrap().1.to_owned();
    talk(allow_list(), Some(secrets), async |mut talk| {
        talk.passes(&request("good.example")).await;
        let with_secret = format!("GET /?{placeholder} HTTP/1.1\r\nHost: good.example\r\n\r\n");
        talk.passes(&with_secret).await;
        assert_eq!(events.lock().unwrap()[0].what, What::Plain);
        talk.ends_refused(&request("evil.example"), "evil.example").await;
    });
}
