//! Owns an open connection: it carries bytes between the guest's stack and the far end until both have ended.
//!
//! No byte waits anywhere but in the two rings of the stack: what the far end does not take stays there, the window closes, and
//! the guest waits; what the guest does not take is not read from the far end, whose own window closes then.
//!
//! ```text
//!   guest's FIN ──▶ far end's write side is shut             far end's FIN ──▶ a FIN for the guest
//!   both ──▶ Closed       guest's RST ──▶ far end is reset   far end's RST ──▶ a RST for the guest ──▶ Reset
//! ```

mod far;

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use smoltcp::socket::tcp::{Socket, State};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub(crate) use self::far::Far;
use crate::gateway::{Account, Gateway};
use crate::held::Held;
use crate::inspect::{Inspection, Spoken, Verdict, hold};
use crate::policy::Name;
use crate::record::{Outcome, REVOKED};
use crate::requests::{Ending, Requests};
use crate::secrets::{InterceptError, Target, intercept};
use crate::stack::Sent;
use crate::tcp::Connection;

/// How long what puts secrets in may take to say why it ended.
const SETTLE: Duration = Duration::from_millis(100);
/// How long a guest may take to answer the answer to its first segment.
const OPENING: Duration = Duration::from_secs(60);
/// How often a guest that has ended is asked whether it is still there to read.
const STILL_THERE: Duration = if cfg!(test) { Duration::from_millis(200) } else { Duration::from_secs(60) };
/// How often a ring is filled or emptied before others have their turn.
const TURNS: usize = 8;

/// Which of the two directions has ended.
#[derive(Debug, Default, Clone, Copy)]
struct Ended {
    guest: bool,
    far: bool,
}

/// Carries bytes until the connection is over, and tells what became of it.
pub(crate) async fn run(
    gateway: &Rc<Gateway>,
    connection: &Connection,
    far: Far,
    account: Account,
    inspection: Option<Inspection>,
) {
    let mut relay = Relay {
        gateway,
        connection,
        far,
        account,
        inspection,
        intercepted: None,
        requests: None,
        ended: Ended::default(),
        held_until: None,
        opening: Some(Instant::now() + OPENING),
        ask_at: None,
    };
    let (outcome, why) = relay.carry().await;
    let Relay { far, mut account, intercepted, requests, .. } = relay;
    // What the interception says is why the service ended, if it did.
    let why = match intercepted {
        Some(intercepted) => intercepted.why().await.or(why),
        None => why,
    };
    if outcome != Outcome::Closed {
        far.abort();
        let mut stack = connection.stack.borrow_mut();
        stack.socket_mut().abort();
        stack.send(&gateway.outbox);
    }
    // A request that was refused had an answer, so that the guest may have ended it as if nothing were wrong.
    let (outcome, why) = match requests.and_then(|requests| requests.ending()) {
        Some(Ending::Refused((name, why))) => {
            account.name = name.or(account.name);
            (Outcome::Denied, Some(why))
        }
        Some(Ending::Broken) | None => (outcome, why),
    };
    gateway.record(account, outcome, why);
}

struct Relay<'a> {
    gateway: &'a Rc<Gateway>,
    connection: &'a Connection,
    far: Far,
    account: Account,
    inspection: Option<Inspection>,
    intercepted: Option<Intercepted>,
    /// What goes between the guest and all else, where each request is held to the rules.
    requests: Option<Requests>,
    ended: Ended,
    /// More may pass then.
    held_until: Option<Instant>,
    /// When it must be established, until it is.
    opening: Option<Instant>,
    /// When a guest that has ended is asked whether it is there, for the first time: it may be gone without a word.
    ask_at: Option<Instant>,
}

/// A connection to a host that gets secrets, which goes through something that puts them in. It ends with this.
struct Intercepted(JoinHandle<Result<(), InterceptError>>);

impl Intercepted {
    /// Why it ended, if that was its own doing.
    async fn why(mut self) -> Option<String> {
        match timeout(SETTLE, &mut self.0).await {
            Ok(Ok(Err(error))) => Some(chain(&error)),
            _ => None,
        }
    }
}

impl Drop for Intercepted {
    fn drop(&mut self) {
        // The host may be waited for without an end, by a guest that is long gone.
        self.0.abort();
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

type End = (Outcome, Option<String>);

/// What a turn leaves to wait for.
#[derive(Debug, Clone, Copy)]
struct Wait {
    read: bool,
    write: bool,
    sent: Sent,
    alarm: Option<Instant>,
}

impl Relay<'_> {
    async fn carry(&mut self) -> End {
        loop {
            let wait = match self.turn() {
                Ok(wait) => wait,
                Err(end) => return end,
            };
            let inspected = self.inspection.as_ref().and_then(Inspection::deadline);
            let alarm = [wait.alarm, self.held_until, self.opening, self.ask_at, inspected];
            let alarm = alarm.into_iter().flatten().min();
            let outbox = &self.gateway.outbox;
            tokio::select! {
                () = self.connection.woken.notified() => {}
                () = self.connection.revoked.notified() => {
                    return (Outcome::Reset, Some(REVOKED.to_owned()));
                }
                () = self.far.ready(wait.read, wait.write) => {}
                () = sleep_until(alarm), if alarm.is_some() => {}
                () = outbox.room(), if wait.sent == Sent::NoRoom => {}
                () = tokio::task::yield_now(), if wait.sent == Sent::Burst => {}
            }
        }
    }

    /// Does what can be done without waiting.
    fn turn(&mut self) -> Result<Wait, End> {
        self.held_until = None;
        let mut stack = self.connection.stack.borrow_mut();
        let established = stack.is_established();
        let socket = stack.socket_mut();
        let mut write = false;
        if established {
            self.opening = None;
            self.inspect(socket)?;
            write = self.inspection.is_none() && self.take_from_guest(socket)?;
        }
        if self.ask_at.is_some_and(|at| at <= Instant::now()) {
            self.ask_at = None;
            socket.set_keep_alive(Some(STILL_THERE.into()));
        }
        if self.opening.is_some_and(|until| until <= Instant::now()) {
            return Err((Outcome::Reset, Some("the guest did not go on with it".to_owned())));
        }
        let read = self.take_from_far(socket)?;
        let sent = stack.send(&self.gateway.outbox);
        if stack.is_over() {
            return Err(match self.ended {
                Ended { guest: true, far: true } => (Outcome::Closed, None),
                // Whoever has let go of TLS does not hear its end, which is said all the same.
                Ended { guest: true, .. } if self.intercepted.is_some() => (Outcome::Closed, None),
                _ => (Outcome::Reset, Some("the guest broke it off".to_owned())),
            });
        }
        let alarm = if sent == Sent::NoRoom { None } else { stack.alarm() };
        Ok(Wait { read, write, sent, alarm })
    }

    /// Looks at what the guest says first, where it must not say everything.
    fn inspect(&mut self, socket: &mut Socket<'static>) -> Result<(), End> {
        let Some(inspection) = &mut self.inspection else { return Ok(()) };
        let has_ended =
            matches!(socket.state(), State::CloseWait | State::LastAck | State::Closing | State::TimeWait);
        let is_whole = has_ended || socket.recv_queue() == socket.recv_capacity();
        let seen = socket.peek(socket.recv_capacity()).unwrap_or_default();
        let remote = self.account.remote;
        match inspection.look(seen, is_whole, |shown| self.gateway.judge(remote, shown)) {
            Verdict::Wait => {}
            Verdict::Passes(spoken) => {
                let of_requests = inspection.of_requests();
                self.inspection = None;
                self.go_on(spoken, of_requests, socket.recv_capacity())?;
            }
            Verdict::Refused((name, why)) => {
                self.account.name = name.or(self.account.name.take());
                return Err((Outcome::Denied, Some(why)));
            }
        }
        Ok(())
    }

    /// Puts between the two ends what has to be there.
    fn go_on(&mut self, spoken: Spoken, of_requests: Option<bool>, window: usize) -> Result<(), End> {
        let is_http = matches!(spoken, Spoken::Http(_));
        let held = match &spoken {
            Spoken::Tls(Some(name)) => Some(Held::To(name.clone())),
            Spoken::Http(_) if of_requests.is_some() => Some(Held::ByRequest),
            Spoken::Tls(None) | Spoken::Http(_) | Spoken::Other => None,
        };
        if let Some(held) = held {
            self.connection.held.replace(held);
        }
        if let Spoken::Tls(Some(name)) | Spoken::Http(Some(name)) = spoken {
            // A server that has spoken already does not wait for the client that would get secrets.
            if self.account.received == 0 {
                self.intercept(&name, !is_http)?;
            }
            self.account.name = Some(name);
        }
        match of_requests.filter(|_| is_http) {
            Some(by_name) => self.hold_requests(by_name, window),
            None => Ok(()),
        }
    }

    /// Has each request held to the rules, as they are then.
    fn hold_requests(&mut self, by_name: bool, window: usize) -> Result<(), End> {
        let (ours, theirs) = UnixStream::pair().map_err(|error| broken(&error))?;
        let (gateway, remote) = (Rc::clone(self.gateway), self.account.remote);
        let judge = move |host: Option<&Name>| {
            let by_name = by_name || host.is_none() && gateway.wants_name(remote);
            hold(host, by_name, |name| gateway.judge(remote, name))
        };
        match std::mem::replace(&mut self.far, Far::Service(ours)) {
            Far::Host(host) => self.requests = Some(Requests::carry(theirs, host, window, judge)),
            Far::Service(service) => self.requests = Some(Requests::carry(theirs, service, window, judge)),
            far @ Far::Neighbour(_) => self.far = far,
        }
        Ok(())
    }

    /// Has secrets put in on the way to a host that gets some.
    fn intercept(&mut self, name: &Name, tls: bool) -> Result<(), End> {
        let Some(secrets) = self.gateway.secrets.as_ref().filter(|secrets| secrets.wants(name)) else {
            return Ok(());
        };
        let (ours, theirs) = UnixStream::pair().map_err(|error| broken(&error))?;
        match std::mem::replace(&mut self.far, Far::Service(ours)) {
            Far::Host(host) => {
                let target = Target { name: name.clone(), tls };
                let task = tokio::task::spawn_local(intercept(Rc::clone(secrets), theirs, host, target));
                self.intercepted = Some(Intercepted(task));
            }
            far => self.far = far,
        }
        Ok(())
    }

    /// Passes on what the guest sent; the result is whether more waits for the far end.
    fn take_from_guest(&mut self, socket: &mut Socket<'static>) -> Result<bool, End> {
        let rate = &self.gateway.rates.sent;
        for _ in 0..TURNS {
            if !socket.can_recv() {
                break;
            }
            let allowed = rate.allows();
            if allowed == 0 {
                self.hold(rate.wait());
                return Ok(false);
            }
            let far = &self.far;
            let passed = socket.recv(|data| {
                let data = &data[..data.len().min(allowed)];
                match far.write(data) {
                    Ok(count) => (count, Ok(count)),
                    Err(error) => (0, Err(error)),
                }
            });
            match passed {
                Ok(Ok(count)) => {
                    rate.spend(count);
                    self.account.sent += count as u64;
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Ok(Err(error)) => return Err(broken(&error)),
                Err(_) => break,
            }
        }
        if !socket.may_recv() && !self.ended.guest {
            self.ended.guest = true;
            self.ask_at = Some(Instant::now() + STILL_THERE);
            self.far.shut_write().map_err(|error| broken(&error))?;
        }
        Ok(socket.can_recv())
    }

    /// Passes on what the far end sent; the result is whether more would be taken.
    fn take_from_far(&mut self, socket: &mut Socket<'static>) -> Result<bool, End> {
        let rate = &self.gateway.rates.received;
        for _ in 0..TURNS {
            if self.ended.far || !socket.can_send() {
                return Ok(false);
            }
            let allowed = rate.allows();
            if allowed == 0 {
                self.hold(rate.wait());
                return Ok(false);
            }
            let far = &self.far;
            let passed = socket.send(|space| {
                let length = space.len().min(allowed);
                match far.read(&mut space[..length]) {
                    Ok(count) => (count, Ok(count)),
                    Err(error) => (0, Err(error)),
                }
            });
            match passed {
                // After the guest's own end the socket cannot tell: an end is what it hears of then, whatever it was.
                Ok(Ok(0)) if !self.ended.guest && far.is_gone() => {
                    return Err(broken(&io::ErrorKind::ConnectionReset.into()));
                }
                Ok(Ok(0)) if self.requests.as_ref().is_some_and(Requests::is_broken) => {
                    return Err(broken(&io::ErrorKind::ConnectionReset.into()));
                }
                Ok(Ok(0)) => {
                    self.ended.far = true;
                    socket.close();
                }
                Ok(Ok(count)) => {
                    rate.spend(count);
                    self.account.received += count as u64;
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Ok(Err(error)) => return Err(broken(&error)),
                Err(_) => return Ok(false),
            }
        }
        Ok(true)
    }

    fn hold(&mut self, time: Duration) {
        let until = Instant::now() + time;
        self.held_until = Some(self.held_until.map_or(until, |other| other.min(until)));
    }
}

fn broken(error: &io::Error) -> End {
    (Outcome::Reset, Some(error.to_string()))
}

/// Sleeps until then, if there is such a time.
pub(crate) async fn sleep_until(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at.into()).await;
    }
}
