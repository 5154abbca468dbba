//! Calls to a guest that answers what it likes, and to one that serves them.

use std::convert::Infallible;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::sync::mpsc;
use tonic::{Code, Status};

use super::*;
use crate::call::serve::serve;
use crate::client::{CallError, ExecError, ExecSpec, Limits, Lost, Session};
use crate::mux::MuxStream;
use crate::preface::{PREFACE_LEN, Preface, Side};
use crate::server::Streams;

const HANG: Duration = Duration::from_secs(60);
const ACCEPTED: [u8; 5] = [0x40, 0, 0, 0, 0];
const DONE: [u8; 5] = [0x80, 0, 0, 0, 0];
/// The answer to a call for the guest's status: three programs run.
const STATUS: [u8; 7] = [0, 0, 0, 0, 2, 8, 3];

/// A session with a guest that does this with each stream that is opened.
async fn session<F>(see_to: impl Fn(MuxStream) -> F + Send + 'static) -> Session
where
    F: Future<Output = ()> + Send + 'static,
{
    let (host, guest) = duplex(1 << 16);
    tokio::spawn(guest_of(guest, see_to));
    tokio::time::timeout(HANG, Session::connect(host, Limits::default())).await.unwrap().unwrap()
}

async fn guest_of<F>(mut io: DuplexStream, see_to: impl Fn(MuxStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut greeting = [0; PREFACE_LEN];
    io.read_exact(&mut greeting).await.unwrap();
    let mut nonce = [0; 16];
    nonce.copy_from_slice(&greeting[12..]);
    io.write_all(&Preface { versions: 1..=1, nonce }.encode(Side::Agent)).await.unwrap();
    let mut streams = Streams::new(io);
    while let Ok(Some(stream)) = streams.next().await {
        tokio::spawn(see_to(stream));
    }
}

#[derive(Clone, Copy)]
enum Then {
    End,
    Cut,
}

/// What becomes of a call for the guest's status that is answered with these pieces.
async fn answered(pieces: Vec<Vec<u8>>, then: Then) -> Result<u32, CallError> {
    let session = session(move |mut stream| {
        let pieces = pieces.clone();
        async move {
            for piece in pieces {
                // The host may have had enough.
                if stream.write_all(&piece).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
            if let Then::End = then {
                _ = stream.shutdown().await;
            }
        }
    })
    .await;
    let answer = tokio::time::timeout(HANG, session.status()).await.unwrap();
    answer.map(|status| status.running_execs)
}

fn lost(answer: &Result<u32, CallError>) -> bool {
    matches!(answer, Err(CallError::Lost(Lost::Protocol(_))))
}

#[tokio::test]
async fn an_answer_is_the_same_in_whatever_pieces_it_comes() {
    let whole = [&ACCEPTED[..], &STATUS, &DONE].concat();
    assert_eq!(answered(vec![whole.clone()], Then::End).await.unwrap(), 3);
    let bytes = whole.iter().map(|byte| vec![*byte]).collect();
    assert_eq!(answered(bytes, Then::End).await.unwrap(), 3);
}

#[tokio::test]
async fn an_answer_without_an_outcome_is_none_however_it_ends() {
    for pieces in [vec![], vec![ACCEPTED.to_vec()], vec![[&ACCEPTED[..], &STATUS].concat()]] {
        for then in [Then::End, Then::Cut] {
            let answer = answered(pieces.clone(), then).await;
            assert!(lost(&answer), "{answer:?}");
        }
    }
}

#[tokio::test]
async fn what_breaks_the_rules_is_no_answer() {
    let long_outcome = [&[0x80, 0xFF, 0, 0, 0][..], &[0; 4096]].concat();
    for bad in [
        // A message that was not announced; flags that nobody has; an outcome without end, and one that is none.
        [&STATUS[..], &DONE].concat(),
        [&ACCEPTED[..], &[2, 0, 0, 0, 0]].concat(),
        [&ACCEPTED[..], &long_outcome].concat(),
        [&ACCEPTED[..], &STATUS, &[0x80, 0, 0, 0, 1, 0xFF]].concat(),
    ] {
        let answer = answered(vec![bad], Then::End).await;
        assert!(lost(&answer), "{answer:?}");
    }
}

#[tokio::test]
async fn a_message_that_is_larger_than_any_is_refused_before_it_comes() {
    let endless = [&ACCEPTED[..], &[0, 0xFF, 0xFF, 0xFF, 0xFF], &[0; 100]].concat();
    let answer = answered(vec![endless], Then::End).await;
    assert!(matches!(answer, Err(CallError::Refused { code: Code::OutOfRange, .. })), "{answer:?}");
}

#[tokio::test]
async fn a_refusal_has_its_code_and_reason() {
    let refusal = [&[0x80, 0, 0, 0, 7, 8, 5][..], &[0x12, 3], b"why"].concat();
    match answered(vec![refusal], Then::End).await {
        Err(CallError::Refused { code: Code::NotFound, message }) => assert_eq!(message, "why"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_call_that_is_given_up_is_cut_for_who_answers_it() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let session = session(move |mut stream| {
        let tell = tell.clone();
        async move {
            let mut request = [0; 64];
            stream.write_all(&ACCEPTED).await.unwrap();
            while stream.read(&mut request).await.is_ok_and(|count| count > 0) {}
            tell.send(stream.is_reset()).unwrap();
        }
    })
    .await;
    let mut call = Box::pin(session.status());
    tokio::select! {
        biased;
        answer = &mut call => panic!("{answer:?}"),
        () = tokio::time::sleep(Duration::from_millis(50)) => {}
    }
    drop(call);
    assert!(tokio::time::timeout(HANG, told.recv()).await.unwrap().unwrap());
}

/// Refuses every call by its path.
#[derive(Clone)]
struct Refusing;

impl Service<Request<Body>> for Refusing {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        std::future::ready(Ok(Status::unimplemented(request.uri().path()).into_http()))
    }
}

async fn served() -> Session {
    session(|mut stream| async move {
        let header = StreamHeader::read(&mut stream).await.unwrap();
        if header == StreamHeader::CALLS {
            _ = serve(stream, Refusing).await;
        } else {
            std::future::pending::<()>().await;
        }
    })
    .await
}

#[tokio::test]
async fn who_is_called_is_asked() {
    match served().await.status().await {
        Err(CallError::Refused { code: Code::Unimplemented, message }) => {
            assert_eq!(message, "/cellule.agent.v1.Agent/Status");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_request_that_is_too_large_is_refused_with_the_limit() {
    let spec = ExecSpec { argv: vec![vec![b'x'; 5 << 20]], ..ExecSpec::default() };
    match served().await.exec(spec).await {
        Err(ExecError::Call(CallError::Refused { code: Code::ResourceExhausted, message })) => {
            assert!(message.contains("4194304"), "{message}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn far_more_calls_than_there_are_places_for_are_all_answered() {
    let session = served().await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..2 * crate::mux::MAX_CALLS {
        let session = session.clone();
        calls.spawn(async move { session.status().await });
    }
    while let Some(answer) = tokio::time::timeout(HANG, calls.join_next()).await.unwrap() {
        assert!(matches!(answer.unwrap(), Err(CallError::Refused { code: Code::Unimplemented, .. })));
    }
}
