//! What secrets do to streams and to HTTP, between a hostile guest and a host that says anything: values come to no guest and to no
//! other host, what was put in can be taken out again, however texts are cut, and every length is that of what follows.
#![no_main]

use std::time::Duration;

use arbitrary::Arbitrary;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cellule_fuzz::secrets::{
    Around, PLACEHOLDERS, Part, Pieces, Value, forms, has, joined, places, plainly_replaced,
};
use cellule_network::fuzzing::{Holder, connection, replaced, replaced_whole};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::runtime::Builder;
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

const HOST: &str = "api.example.com";
/// The value that the host does not get. Nobody else says it.
const OTHER: &[u8] = b"the-other-hosts-value";

#[derive(Debug, Arbitrary)]
enum Input {
    /// Any texts for any others.
    Any { texts: Vec<(Vec<u8>, Vec<u8>)>, text: Vec<Vec<u8>> },
    /// Placeholders become values, which become placeholders.
    Stream { values: [Value; 2], text: Vec<Part>, cuts: Vec<u16> },
    /// An exchange of the guest's with the host.
    Http { value: Value, in_body: bool, request: Request, answer: Answer },
}

#[derive(Debug, Arbitrary)]
struct Request {
    query: Vec<Part>,
    header: Vec<Part>,
    basic: Option<Vec<Part>>,
    wants_upgrade: bool,
    body: Vec<Part>,
    is_chunked: bool,
    /// All of it.
    raw: Option<Vec<Part>>,
}

#[derive(Debug, Arbitrary)]
struct Answer {
    status: Status,
    reason: Vec<Part>,
    header: Vec<Part>,
    name: Vec<Part>,
    is_encoded: bool,
    framing: Framing,
    body: Vec<Part>,
    trailer: Vec<Part>,
    raw: Option<Vec<Part>>,
}

#[derive(Debug, Arbitrary)]
enum Status {
    Good,
    Part,
    Upgrade,
}

#[derive(Debug, Clone, Copy, PartialEq, Arbitrary)]
enum Framing {
    Length,
    Chunks,
    End,
}

fuzz_target!(|input: Input| {
    match input {
        Input::Any { texts, text } => any(&texts, &text),
        Input::Stream { values, text, cuts } => stream(&values, &text, &cuts),
        Input::Http { value, in_body, request, answer } => http(&value, in_body, &request, &answer),
    }
});

fn any(texts: &[(Vec<u8>, Vec<u8>)], text: &[Vec<u8>]) {
    let texts: Vec<(&[u8], &[u8])> = texts.iter().take(8).map(|(from, to)| (&from[..], &to[..])).collect();
    let pieces: Vec<(&[u8], bool)> = text.iter().map(|piece| (&piece[..], false)).collect();
    let (expected, _) = plainly_replaced(&texts, &text.concat());
    assert_eq!(replaced(&texts, &pieces), expected);
    assert_eq!(replaced_whole(&texts, &text.concat()), expected);
}

fn stream(values: &[Value; 2], text: &[Part], cuts: &[u16]) {
    let values = values.each_ref().map(Value::bytes);
    let pieces = Around { values: &values, credentials: b"" }.pieces(text);
    let original = joined(&pieces);
    let fill: Vec<(&[u8], &[u8])> =
        PLACEHOLDERS.iter().zip(&values).map(|(from, to)| (from.as_bytes(), &to[..])).collect();
    let at_once: Vec<(&[u8], bool)> = pieces.iter().map(|(piece, _)| (&piece[..], false)).collect();
    let (filled, count) = plainly_replaced(&fill, &original);
    assert_eq!(replaced(&fill, &at_once), filled, "cut into pieces");
    assert_eq!(replaced_whole(&fill, &original), filled, "whole");

    let back: Vec<(&[u8], &[u8])> = fill.iter().map(|(from, to)| (*to, *from)).collect();
    let scrubbed = replaced_whole(&back, &filled);
    let is_elsewhere = values.iter().map(|value| places(&filled, value)).sum::<usize>() != count;
    if !is_elsewhere {
        assert_eq!(scrubbed, original, "what was put in was not taken out");
    }

    let forms: Vec<_> = values.iter().map(|value| forms(value)).collect();
    let all: Vec<(&[u8], &[u8])> = forms
        .iter()
        .zip(PLACEHOLDERS)
        .flat_map(|(forms, to)| forms.iter().map(move |form| (&form[..], to.as_bytes())))
        .collect();
    let (expected, _) = plainly_replaced(&all, &filled);
    let mut cuts: Vec<(usize, bool)> =
        cuts.iter().map(|cut| (usize::from(cut / 2) % (filled.len() + 1), cut % 2 == 1)).collect();
    cuts.extend([(0, false), (filled.len(), false)]);
    cuts.sort_unstable();
    let cut = |waits: bool| -> Vec<(&[u8], bool)> {
        cuts.windows(2).map(|cut| (&filled[cut[0].0..cut[1].0], waits && cut[1].1)).collect()
    };
    assert_eq!(replaced(&all, &cut(false)), expected, "cut into other pieces");
    // What was shown of a value before all of it came is shown, and no byte is lost or doubled.
    let shown = replaced(&all, &cut(true));
    assert_eq!(shown.len(), expected.len(), "shown in parts");
    for form in all.iter().map(|(form, _)| form) {
        assert!(!has(&expected, form) && !has(&shown, form), "a value came through");
    }
}

/// Texts that make a line of a head, and nothing else of it.
fn is_line(text: &[u8]) -> bool {
    text.iter().all(|byte| *byte >= b' ' && *byte != 0x7f)
}

fn is_word(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_alphanumeric)
}

/// A body as chunks, one for each piece.
fn chunks(pieces: &Pieces, trailer: &Pieces) -> Pieces {
    let mut all: Pieces = Vec::new();
    for (piece, waits) in pieces.iter().filter(|(piece, _)| !piece.is_empty()) {
        all.push(([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat(), *waits));
    }
    all.push((b"0\r\n".to_vec(), false));
    if trailer.iter().any(|(piece, _)| !piece.is_empty()) {
        all.push((b"X-Trailer: ".to_vec(), false));
        all.extend(trailer.iter().cloned());
        all.push((b"\r\n".to_vec(), false));
    }
    all.push((b"\r\n".to_vec(), false));
    all
}

/// Lines of a head, and pieces in them.
struct Message(Pieces);

impl Message {
    fn line(&mut self, before: &str, pieces: &Pieces, after: &str) {
        self.0.push((before.as_bytes().to_vec(), false));
        self.0.extend(pieces.iter().cloned());
        self.0.push((format!("{after}\r\n").into_bytes(), false));
    }

    /// Few pieces: those that are said to be some.
    fn sent(self) -> Pieces {
        let mut sent: Pieces = vec![Default::default()];
        for (piece, waits) in self.0 {
            let last = sent.last_mut().expect("there is one");
            last.0.extend(piece);
            if waits {
                last.1 = true;
                sent.push(Default::default());
            }
        }
        sent
    }
}

fn http(value: &Value, in_body: bool, request: &Request, answer: &Answer) {
    let values = [value.bytes()];
    let value = &values[0][..];
    let nothing = Pieces::new();
    let mut around = Around { values: &values, credentials: b"" };

    let [query, header, body] =
        [&request.query, &request.header, &request.body].map(|parts| around.pieces(parts));
    let basic = request.basic.as_ref().map(|parts| joined(&around.pieces(parts)));
    let mut said = Message(Pieces::new());
    said.line("POST /?", &query, " HTTP/1.1");
    said.line(&format!("Host: {HOST}"), &nothing, "");
    said.line("TE: trailers", &nothing, "");
    said.line("X-Header: ", &header, "");
    let given = basic.as_ref().map(|basic| STANDARD.encode(basic));
    if let Some(given) = &given {
        said.line(&format!("Authorization: Basic {given}"), &nothing, "");
    }
    if request.wants_upgrade {
        said.line("Connection: upgrade\r\nUpgrade: other", &nothing, "");
    }
    let request_body = joined(&body);
    if request.is_chunked {
        said.line("Transfer-Encoding: chunked\r\n", &nothing, "");
        said.0.extend(chunks(&body, &nothing));
    } else {
        said.line(&format!("Content-Length: {}\r\n", request_body.len()), &nothing, "");
        said.0.extend(body);
    }
    if let Some(raw) = &request.raw {
        said = Message(around.pieces(raw));
    }

    let fill = [(PLACEHOLDERS[0].as_bytes(), value)];
    let (credentials, filled) = plainly_replaced(&fill, &basic.unwrap_or_default());
    around.credentials = &credentials;
    let [reason, field, name, body, trailer] =
        [&answer.reason, &answer.header, &answer.name, &answer.body, &answer.trailer]
            .map(|parts| around.pieces(parts));
    let mut answered = Message(Pieces::new());
    let status = match answer.status {
        Status::Good => "200",
        Status::Part => "206",
        Status::Upgrade => "101",
    };
    answered.line(&format!("HTTP/1.1 {status} "), &reason, "");
    answered.line("X-Header: ", &field, "");
    answered.line("N", &name, ": name");
    match answer.status {
        Status::Good => {}
        Status::Part => answered.line("Content-Range: bytes 0-1/2", &nothing, ""),
        Status::Upgrade => answered.line("Connection: upgrade\r\nUpgrade: other", &nothing, ""),
    }
    if answer.is_encoded {
        answered.line("Content-Encoding: gzip", &nothing, "");
    }
    let answer_body = joined(&body);
    match answer.framing {
        Framing::Chunks => {
            answered.line("Trailer: X-Trailer\r\nTransfer-Encoding: chunked\r\n", &nothing, "");
            answered.0.extend(chunks(&body, &trailer));
        }
        Framing::Length => {
            answered.line(&format!("Content-Length: {}\r\n", answer_body.len()), &nothing, "");
            answered.0.extend(body);
        }
        Framing::End => {
            answered.line("", &nothing, "");
            answered.0.extend(body);
        }
    }
    if let Some(raw) = &answer.raw {
        answered = Message(around.pieces(raw));
    }

    let (said, answered) = (said.sent(), answered.sent());
    let (all_said, all_answered) = (joined(&said), joined(&answered));
    let (to_host, to_guest) = exchange(value, in_body, said, answered);

    // What is only for others never comes here.
    assert!(has(&all_said, OTHER) || !has(&to_host, OTHER), "another host's value was sent");
    // Encoded answers pass to guests whose requests had no value, and nobody looks into them.
    let is_encoded = has(&all_answered.to_ascii_lowercase(), b"content-encoding");
    let has_form = |text: &[u8]| forms(value).iter().any(|form| has(text, form));
    if !is_encoded {
        assert!(!has_form(&to_guest), "the guest has the value");
    }

    let is_request_good = request.raw.is_none() && is_line(&joined(&header)) && is_line(&joined(&query));
    if is_request_good && let Some((head, sent)) = parts(&to_host) {
        assert!(!has(head, PLACEHOLDERS[0].as_bytes()), "the placeholder was sent");
        let expected = if in_body { plainly_replaced(&fill, &request_body).0 } else { request_body };
        assert_eq!(sent, expected, "the host has another body");
    }
    let is_answer_good = answer.raw.is_none()
        && is_line(&joined(&reason))
        && is_line(&joined(&field))
        && is_word(&joined(&name))
        && (is_line(&joined(&trailer)) || answer.framing != Framing::Chunks)
        && all_answered.len() - answer_body.len() < 32 << 10;
    let is_served = is_request_good && to_guest.starts_with(format!("HTTP/1.1 {status}").as_bytes());
    if !is_answer_good || !is_served || matches!(answer.status, Status::Upgrade) {
        return;
    }
    let (_, got) = parts(&to_guest).expect("an answer has a head");
    let encoded = STANDARD.encode(&credentials).into_bytes();
    let has_credentials = filled > 0 && has(&to_host, &encoded) && has(&answer_body, &encoded);
    if has_credentials && !is_encoded && !given.is_some_and(|given| has_form(given.as_bytes())) {
        assert!(!has(&got, &encoded), "the guest has the value in Base64");
    }
    if is_encoded || !(has_form(&answer_body) || has_credentials) {
        assert_eq!(got, answer_body, "the guest has another body");
    } else if !is_encoded {
        assert!(!has_form(&got), "the guest has the value, in chunks");
    }
    if matches!(answer.status, Status::Part) && answer.framing == Framing::Length {
        assert_eq!(got.len(), answer_body.len(), "a part has another length");
    }
}

/// The head of a message and its body, which is as long as the head says.
fn parts(message: &[u8]) -> Option<(&[u8], Vec<u8>)> {
    let at = message.windows(4).position(|window| window == b"\r\n\r\n")?;
    let (head, mut rest) = message.split_at(at + 4);
    let lower = head.to_ascii_lowercase();
    let field = |name: &str| {
        let at = lower.windows(name.len()).position(|window| window == name.as_bytes())? + name.len();
        let end = at + lower[at..].iter().position(|byte| *byte == b'\r')?;
        str::from_utf8(lower[at..end].trim_ascii()).ok()
    };
    if field("\r\ntransfer-encoding:") == Some("chunked") {
        let mut body = Vec::new();
        loop {
            let end = rest.windows(2).position(|window| window == b"\r\n").expect("a chunk has a length");
            let length = str::from_utf8(&rest[..end]).expect("a length has digits");
            let length = usize::from_str_radix(length, 16).expect("a length has digits");
            if length == 0 {
                return Some((head, body));
            }
            rest = &rest[end + 2..];
            body.extend_from_slice(&rest[..length]);
            assert_eq!(&rest[length..length + 2], b"\r\n", "a chunk has another length");
            rest = &rest[length + 2..];
        }
    }
    if let Some(length) = field("\r\ncontent-length:") {
        assert_eq!(length.parse(), Ok(rest.len()), "a body has another length");
    }
    Some((head, rest.to_vec()))
}

/// What the host got, and what the guest did.
fn exchange(value: &[u8], in_body: bool, said: Pieces, answered: Pieces) -> (Vec<u8>, Vec<u8>) {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("there is an event loop");
    let holders = [
        Holder { placeholder: PLACEHOLDERS[0], value, host: HOST, in_body },
        Holder { placeholder: PLACEHOLDERS[1], value: OTHER, host: "other.example.com", in_body: true },
    ];
    let (guest, inner_guest) = duplex(64 << 10);
    let (host, inner_host) = duplex(64 << 10);
    let all = async {
        let ends = async { tokio::join!(serve(host, &answered), ask(guest, &said)) };
        let (_, ends) = tokio::join!(connection(&holders, inner_guest, inner_host), ends);
        ends
    };
    // Its clock goes on when nothing else does.
    let ended = LocalSet::new().block_on(&runtime, async { timeout(Duration::from_secs(3600), all).await });
    ended.expect("a connection ends when both sides have ended")
}

async fn write(mut stream: impl tokio::io::AsyncWrite + Unpin, pieces: &Pieces) {
    for (piece, waits) in pieces {
        if stream.write_all(piece).await.is_err() {
            return;
        }
        if *waits {
            sleep(Duration::from_millis(150)).await;
        }
    }
    _ = stream.shutdown().await;
}

async fn ask(guest: DuplexStream, said: &Pieces) -> Vec<u8> {
    let (mut from, to) = tokio::io::split(guest);
    let mut got = Vec::new();
    let (_, _) = tokio::join!(write(to, said), from.read_to_end(&mut got));
    got
}

/// Answers when nothing more comes: a guest does not wait as long, however often it waits.
async fn serve(host: DuplexStream, answered: &Pieces) -> Vec<u8> {
    let (mut from, to) = tokio::io::split(host);
    let mut got = Vec::new();
    loop {
        match timeout(Duration::from_secs(60), from.read_buf(&mut got)).await {
            Ok(Ok(1..)) => {}
            Err(_) if got.is_empty() => {}
            Ok(_) => return got,
            Err(_) => break,
        }
    }
    let mut rest = Vec::new();
    let (_, _) = tokio::join!(write(to, answered), from.read_to_end(&mut rest));
    got.extend(rest);
    got
}
