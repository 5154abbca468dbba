//! A hostile host, in the agent's library without a machine: whatever it sends, nothing panics, and the next host is
//! served. Programs are not run and files not changed: this process can neither execute anything nor touch what has a name.
#![no_main]

use std::collections::BTreeMap;
use std::future::pending;
use std::io;
use std::sync::Once;
use std::time::Duration;

use arbitrary::Arbitrary;
use cellule_fuzz::mux::{Step, play};
use cellule_guest_agent::port::Port;
use cellule_guest_agent::session::Agent;
use cellule_protocol::client::{Limits, Session};
use cellule_protocol::preface::{Preface, Side};
use libfuzzer_sys::fuzz_target;
use seccompiler::{
    SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
    apply_filter_all_threads,
};
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use tokio::runtime::Builder;
use tokio::time::timeout;

/// Longer than all limits together, on a clock that jumps.
const FOR_EVER: Duration = Duration::from_secs(3600);

#[derive(Debug, Arbitrary)]
struct Host {
    buffer: u16,
    stale: Vec<u8>,
    versions: Option<(u16, u16)>,
    steps: Vec<Step>,
}

/// The hosts that come, the last one first; then none ever.
struct Hosts(Vec<DuplexStream>);

impl Port for Hosts {
    type Io = DuplexStream;

    async fn next(&mut self) -> io::Result<Option<DuplexStream>> {
        match self.0.pop() {
            Some(host) => Ok(Some(host)),
            None => pending().await,
        }
    }
}

/// Refuses to execute programs and to change anything that has a name: what a host asks for is asked of this very machine.
fn confine() {
    let mut rules: BTreeMap<_, _> = REFUSED.into_iter().map(|call| (call, Vec::new())).collect();
    // How the agent opens what it writes to, and the fuzzer does not.
    let flags = (libc::O_WRONLY | libc::O_NOFOLLOW).unsigned_abs().into();
    let writing = SeccompCondition::new(2, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(flags), flags);
    let writing = writing.and_then(|flags| SeccompRule::new(vec![flags])).expect("the rule is right");
    rules.insert(libc::SYS_openat, vec![writing]);
    let refuse = SeccompAction::Errno(libc::EACCES.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, TargetArch::x86_64)
        .and_then(seccompiler::BpfProgram::try_from);
    apply_filter_all_threads(&filter.expect("the filter is right")).expect("this host has seccomp");
    // SAFETY: no handler runs. As in any Rust program that has its own main, unlike the fuzzer's.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

const REFUSED: [i64; 30] = [
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_mkdir,
    libc::SYS_mkdirat,
    libc::SYS_mknod,
    libc::SYS_mknodat,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_rmdir,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_link,
    libc::SYS_linkat,
    libc::SYS_symlink,
    libc::SYS_symlinkat,
    libc::SYS_chmod,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchmodat2,
    libc::SYS_chown,
    libc::SYS_fchown,
    libc::SYS_lchown,
    libc::SYS_fchownat,
    libc::SYS_truncate,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
    libc::SYS_utimensat,
    libc::SYS_openat2,
];

async fn hostile(host: Host, mut io: DuplexStream) {
    let versions = host.versions.map_or(1..=1, |(lowest, highest)| lowest..=highest);
    let greeting = Preface { versions, nonce: [7; 16] }.encode(Side::Host);
    if io.write_all(&host.stale).await.is_ok() && io.write_all(&greeting).await.is_ok() {
        play(&mut io, &host.steps).await;
    }
}

fuzz_target!(|host: Host| {
    static CONFINED: Once = Once::new();
    // Not before the first input, since the fuzzer makes directories when it starts.
    CONFINED.call_once(confine);
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("there is an event loop").block_on(async {
        let (near, far) = duplex(usize::from(host.buffer) + 1);
        let (friendly, next) = duplex(1 << 16);
        let mut hosts = Hosts(vec![next, far]);
        let agent = Agent::new(None);
        let talk = async {
            timeout(FOR_EVER, hostile(host, near)).await.expect("a host waits no longer than it likes");
            let session = timeout(FOR_EVER, Session::connect(friendly, Limits::default())).await;
            let session = session.expect("connecting has a limit").expect("the next host is served");
            session.handshake(None).await.expect("the next host is answered");
        };
        tokio::select! {
            () = talk => {}
            () = agent.serve(&mut hosts) => unreachable!("the port never ends"),
        }
    });
});
