//! The gateway with a guest that is a TCP/IP stack of its own, over the same kind of socket as a machine's card.

mod guest;
mod held;
mod hostile;
mod inbound;
mod names;
mod neighbours;
mod outbound;
mod requests;

use std::cell::RefCell;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::LocalSet;

use self::guest::Guest;
use crate::dns::{Dns, Servers};
use crate::gateway::Gateway;
use crate::limits::Limits;
use crate::link;
use crate::neighbours::{Neighbourhood, Neighbours, join, serve};
use crate::network::carry;
use crate::outbox::Outbox;
use crate::policy::{Base, Policy, Rule};
use crate::record::Record;
use crate::secrets::Secrets;

/// Nothing here takes a tenth of it.
const HANG: Duration = Duration::from_secs(60);
/// An address that is public by its form, and nobody's.
const ELSEWHERE: &str = "8.8.4.4:4000";

/// What a test has.
struct Scene {
    gateway: Rc<Gateway>,
    guest: Guest,
    records: Arc<Mutex<Vec<Record>>>,
}

#[derive(Default)]
struct Setting {
    policy: Option<Policy>,
    servers: Vec<SocketAddr>,
    /// What the guest thinks is elsewhere, and where it is.
    redirect: Vec<(&'static str, SocketAddr)>,
    limits: Limits,
    neighbourhoods: Vec<Neighbourhood>,
    secrets: Option<Rc<Secrets>>,
}

impl Scene {
    fn records(&self) -> Vec<Record> {
        self.records.lock().unwrap().clone()
    }

    /// The only record, once there is one.
    async fn record(&mut self) -> Record {
        while self.records().is_empty() {
            self.guest.rest().await;
        }
        let mut records = self.records();
        assert_eq!(records.len(), 1, "{records:?}");
        records.remove(0)
    }
}

fn public() -> Policy {
    Policy::new(Some(Base::Public), Vec::new()).unwrap()
}

fn rules(base: Option<Base>, rules: &[&str]) -> Policy {
    let rules: Vec<Rule> = rules.iter().map(|rule| rule.parse().unwrap()).collect();
    Policy::new(base, rules).unwrap()
}

/// Runs a test with a gateway and its guest.
fn scene<F: Future<Output = ()>>(setting: Setting, test: impl FnOnce(Scene) -> F) {
    stage(async || test(begin(setting)).await);
}

/// Runs a test that begins what it needs.
fn stage(test: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(HANG, test()).await.expect("a hang");
    });
}

/// Begins a gateway and its guest.
fn begin(setting: Setting) -> Scene {
    let records = Arc::new(Mutex::new(Vec::new()));
    let sink = {
        let records = Arc::clone(&records);
        Box::new(move |record| records.lock().unwrap().push(record))
    };
    let (ours, theirs) = link::pair();
    let dns = Dns::new(Servers::Given { servers: setting.servers, search: Vec::new() });
    let policy = setting.policy.unwrap_or_else(public);
    let mut gateway = Gateway::new(Outbox::new(guest::MAC), policy, dns, setting.limits, sink, 7);
    gateway.outside.redirect =
        setting.redirect.into_iter().map(|(from, to)| (from.parse().unwrap(), to)).collect();
    gateway.secrets = setting.secrets;
    let (neighbours, doors) = Neighbours::new(join(setting.neighbourhoods).unwrap());
    gateway.neighbours = neighbours;
    let gateway = Rc::new(gateway);
    let link = {
        let gateway = Rc::clone(&gateway);
        async move {
            tokio::select! {
                ended = carry(&gateway, ours) => ended,
                () = serve(&gateway, doors) => Ok(()),
            }
        }
    };
    tokio::task::spawn_local(link);
    Scene { gateway, guest: Guest::new(theirs), records }
}

/// Lets one part of a test have a place of its own that another reads.
fn shared<T>(value: T) -> Rc<RefCell<T>> {
    Rc::new(RefCell::new(value))
}
