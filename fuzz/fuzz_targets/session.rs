//! A hostile guest: whatever it sends, nothing panics, every call of the host ends within its limit (on a clock that
//! jumps), an exit is never one that no process can have, and the session ends when the host drops it.
#![no_main]

use std::time::Duration;

use arbitrary::Arbitrary;
use cellule_fuzz::mux::{Step, drain, play};
use cellule_protocol::client::{Exec, ExecSpec, Exit, Limits, Session};
use cellule_protocol::preface::{PREFACE_LEN, Preface, Side};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::runtime::Builder;
use tokio::time::timeout;

/// Longer than all limits of all calls together.
const FOR_EVER: Duration = Duration::from_secs(3600);
const LIMITS: Limits =
    Limits { connect: Duration::from_secs(30), answer: Duration::from_secs(5), repeat_preface: true };

#[derive(Debug, Arbitrary)]
struct Guest {
    /// The port between them takes so much: a small one makes the sides wait for each other.
    buffer: u16,
    stale: Vec<u8>,
    versions: Option<(u16, u16)>,
    steps: Vec<Step>,
    end: End,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum End {
    HangUp,
    Silent,
    Deaf,
}

impl Guest {
    async fn run(self, mut io: DuplexStream) {
        let mut greeting = [0; PREFACE_LEN];
        if io.write_all(&self.stale).await.is_err() || io.read_exact(&mut greeting).await.is_err() {
            return;
        }
        let mut nonce = [0; 16];
        nonce.copy_from_slice(&greeting[12..]);
        let versions = self.versions.map_or(1..=1, |(lowest, highest)| lowest..=highest);
        if io.write_all(&Preface { versions, nonce }.encode(Side::Agent)).await.is_err() {
            return;
        }
        play(&mut io, &self.steps).await;
        match self.end {
            End::HangUp => {}
            End::Silent => drain(&mut io).await,
            End::Deaf => tokio::time::sleep(FOR_EVER / 4).await,
        }
    }
}

async fn host(io: DuplexStream) {
    let connected = timeout(FOR_EVER, Session::connect(io, LIMITS)).await.expect("connecting has a limit");
    let Ok(session) = connected else { return };
    let calls = async {
        drop(session.handshake(None).await);
        let spec = ExecSpec { argv: vec![b"true".into()], stdin: true, ..ExecSpec::default() };
        let exec = session.exec(spec).await;
        drop(session.status().await);
        exec
    };
    if let Ok(exec) = timeout(FOR_EVER, calls).await.expect("calls have limits") {
        use_exec(exec).await;
    }
    timeout(FOR_EVER, session.power_off(Duration::from_secs(1))).await.expect("calls have limits").ok();
}

async fn use_exec(exec: Exec) {
    let Exec { stdin, mut stdout, stderr: _stderr, mut process } = exec;
    // A program may run, write and refuse to read for ever: these have the limits that the caller sets.
    let mut output = vec![0; 4096];
    drop(timeout(LIMITS.answer, stdout.read(&mut output)).await);
    if let Some(mut stdin) = stdin {
        drop(timeout(LIMITS.answer, stdin.write_all(&output)).await);
    }
    let signaller = process.signaller();
    timeout(FOR_EVER, signaller.signal(15)).await.expect("calls have limits").ok();
    if let Ok(Ok(status)) = timeout(LIMITS.answer, process.wait()).await {
        assert!(matches!(status.exit, Exit::Code(_) | Exit::Signal(1..=64)), "{status:?}");
    }
}

fuzz_target!(|guest: Guest| {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("there is an event loop").block_on(async {
        let (near, far) = duplex(usize::from(guest.buffer) + 1);
        let guest = tokio::spawn(guest.run(far));
        host(near).await;
        timeout(FOR_EVER, guest).await.expect("the host hangs up").expect("the guest does not panic");
    });
});
