//! Owns named networks: sandboxes that are on one reach one another by name, and nobody else does.
//!
//! Each has a gateway of its own, in a process of its own. A network is a directory with a socket for each member; who may open that may
//! be on it. A connection of a guest's to a neighbour is one of its gateway's to the neighbour's socket:
//!
//! ```text
//!   guest ── SYN ──▶ gateway ── header ──▶ neighbour's gateway ── SYN ──▶ neighbour's guest
//!                       ◀──── open, refused, unreachable ────┘ ◀── its answer ──┘
//!         ◀─ the same ─┘ ═══════════════ bytes, until both have ended ═══════════════
//! ```
//! A neighbour's address stands for its id in the asker's own gateway, and is on no wire: the neighbour's guest sees the asker by the address
//! that stands for the asker. What the policy says has nothing to do with any of it: the network is what the user asked for.

mod address;
mod arrive;
mod datagrams;
mod directory;
mod header;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::sleep;

use self::address::Addresses;
use self::datagrams::Exchanges;
use self::directory::Directory;
use self::header::{Answer, Header, is_id};
use crate::address::{GUEST_V4, GUEST_V6};
use crate::gateway::{Account, Gateway};

pub(crate) use self::arrive::serve;
pub(crate) use self::datagrams::take as take_datagram;
pub(crate) use self::directory::Door;
#[cfg(fuzzing)]
pub use self::header::written_again;

/// How often a directory is looked through, at most, for somebody at an address that is nobody's so far.
const LOOK: Duration = Duration::from_millis(200);
/// After which time a neighbour is asked again whose queue is full.
const AGAIN: Duration = Duration::from_millis(20);

/// Gives the id of the sandbox that has a name, whether that is on the network or not. The name is a guest's word, in lower case. Called on
/// the gateway's thread, which waits for it.
pub type Resolve = Box<dyn Fn(&str) -> Option<String> + Send>;

/// A named network that a sandbox is on.
pub struct Neighbourhood {
    /// Its name.
    pub name: String,
    /// Where its members have their sockets. Who may write there may be on it.
    pub dir: PathBuf,
    /// The sandbox's own id, which its neighbours know it by: at most 64 of `a-z0-9_-.`, and no dot first.
    pub id: String,
    /// Who has a name.
    pub resolve: Resolve,
}

impl fmt::Debug for Neighbourhood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Neighbourhood")
            .field("name", &self.name)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// A sandbox could not be put on a network.
#[derive(Debug)]
pub(crate) struct Unjoined {
    pub(crate) network: String,
    pub(crate) error: io::Error,
}

/// Whether who has a socket in the directory of a network is there: what a killed one left behind answers nobody.
pub fn neighbour_answers(dir: &Path, id: &str) -> bool {
    let connected = Directory::open(dir).and_then(|directory| directory.reach(id));
    connected.map_or_else(|error| error.kind() == io::ErrorKind::WouldBlock, |_| true)
}

/// The networks that a sandbox is on, and who is there as far as it knows.
#[derive(Debug, Default)]
pub(crate) struct Neighbours {
    networks: Vec<Network>,
    addresses: RefCell<Addresses>,
    looked: Cell<Option<Instant>>,
    exchanges: Exchanges,
    /// Neighbours that have come and were not answered yet.
    waiting: Cell<usize>,
}

struct Network {
    /// In lower case.
    name: String,
    /// The sandbox's own.
    id: String,
    directory: Arc<Directory>,
    resolve: Resolve,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A network that a sandbox was put on. It is on it for as long as the door is kept.
#[derive(Debug)]
pub(crate) struct Joined {
    network: Network,
    door: Door,
}

/// Puts a sandbox on networks.
pub(crate) fn join(networks: Vec<Neighbourhood>) -> Result<Vec<Joined>, Unjoined> {
    let joined = |neighbourhood| {
        let Neighbourhood { name, dir, id, resolve } = neighbourhood;
        let opened = || {
            if !is_id(&id) {
                let why = format!("{id:?} is no id of a sandbox");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
            }
            let directory = Arc::new(Directory::open(&dir)?);
            Ok((Door::open(Arc::clone(&directory), &id)?, directory))
        };
        match opened() {
            Ok((door, directory)) => {
                let name = name.to_ascii_lowercase();
                Ok(Joined { network: Network { name, id, directory, resolve }, door })
            }
            Err(error) => Err(Unjoined { network: name, error }),
        }
    };
    networks.into_iter().map(joined).collect()
}

impl Neighbours {
    /// Those on these networks, and the doors, in the same order, where they come in.
    pub(crate) fn new(joined: Vec<Joined>) -> (Self, Vec<Door>) {
        let (networks, doors) = joined.into_iter().map(|Joined { network, door }| (network, door)).unzip();
        (Self { networks, ..Self::default() }, doors)
    }

    /// Whether an address is one that neighbours have. Without a network there are none.
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        !self.networks.is_empty() && address::is_neighbours(address)
    }

    /// The addresses of who has a name, in lower case, on one of the networks: as the user gave it, or with the network's name behind it.
    pub(crate) fn find(&self, name: &str) -> Option<[IpAddr; 2]> {
        self.networks.iter().find_map(|network| {
            let within = name.strip_suffix(&network.name).and_then(|name| name.strip_suffix('.'));
            [Some(name), within].into_iter().flatten().find_map(|called| {
                let id = (network.resolve)(called).filter(|id| is_id(id))?;
                if id == network.id {
                    return Some([GUEST_V4.into(), GUEST_V6.into()]);
                }
                if !network.directory.has(&id) {
                    return None;
                }
                let mut addresses = self.addresses.borrow_mut();
                let found = addresses.of(&id);
                addresses.call(&id, name.parse().ok());
                Some(found)
            })
        })
    }

    /// Who is at an address.
    fn at(&self, address: IpAddr) -> Option<Rc<str>> {
        let known = self.addresses.borrow().at(address);
        known.or_else(|| {
            // A copy of a guest knows addresses that its own gateway has told nobody.
            self.look_round();
            self.addresses.borrow().at(address)
        })
    }

    fn look_round(&self) {
        if self.looked.get().is_some_and(|at| at.elapsed() < LOOK) {
            return;
        }
        self.looked.set(Some(Instant::now()));
        for network in &self.networks {
            let mut members = network.directory.members();
            // Those of whom two would have the same address come in the same order everywhere.
            members.sort_unstable();
            for id in members {
                self.addresses.borrow_mut().of(&id);
            }
        }
    }

    /// Why who is at an address may be reached; none if nobody is there.
    pub(crate) fn reason(&self, address: IpAddr) -> Option<String> {
        let id = self.at(address)?;
        self.networks.iter().find(|network| network.directory.has(&id)).map(Network::reason)
    }

    /// Connects to the gateway of who is at an address, over the first network where it takes that.
    fn connect(&self, address: IpAddr) -> io::Result<(&Network, UnixStream)> {
        let unreachable = io::Error::from(io::ErrorKind::HostUnreachable);
        let Some(id) = self.at(address) else { return Err(unreachable) };
        let mut failed = unreachable;
        for network in &self.networks {
            match network.directory.connect(&id) {
                Ok(stream) => return Ok((network, stream)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => failed = error,
                // It is gone; what was left of it refuses.
                Err(_) => {}
            }
        }
        Err(failed)
    }

    /// Whether a neighbour can be reached now. That tells of its gateway; whether its guest answers is another matter.
    pub(crate) fn answers(&self, address: IpAddr) -> bool {
        // A queue that is full is somebody's.
        self.connect(address).map_or_else(|error| error.kind() == io::ErrorKind::WouldBlock, |_| true)
    }
}

impl Network {
    fn reason(&self) -> String {
        format!("on the network {}", self.name)
    }
}

/// Asks a neighbour for its guest's port: bytes go both ways once it has said that somebody listens there. The account is told who it is.
pub(crate) async fn ask(gateway: &Gateway, account: &mut Account) -> io::Result<UnixStream> {
    let (neighbours, address) = (&gateway.neighbours, account.remote.ip());
    account.name = neighbours.at(address).and_then(|id| neighbours.addresses.borrow().name(&id));
    let (network, mut stream) = loop {
        match neighbours.connect(address) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(AGAIN).await,
            connected => break connected?,
        }
    };
    account.reason = network.reason();
    let header = Header {
        protocol: account.protocol,
        is_v6: address.is_ipv6(),
        port: account.remote.port(),
        from: account.guest_port,
        id: network.id.clone(),
    };
    let answered = async {
        stream.write_all(&header.bytes()).await?;
        Answer::read(&mut stream).await
    };
    match answered.await {
        Ok(Answer::Open) => Ok(stream),
        Ok(Answer::Refused) => Err(io::ErrorKind::ConnectionRefused.into()),
        // It has ended, or is of another version.
        Ok(Answer::Unreachable) | Err(_) => Err(io::ErrorKind::HostUnreachable.into()),
    }
}
