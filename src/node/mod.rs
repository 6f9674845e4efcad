//! A running node: the threads that carry inputs to the pure core and outputs away from it.
//!
//! Each task is a type or a function with a step ([`steps`]). Each thread takes one step after the
//! other, and waits when there is nothing to do. A simulator takes the same steps, in an order and
//! at times that it draws.
//!
//! | thread | steps | what it does |
//! | --- | --- | --- |
//! | `rpc` | [`Intake::flush`](steps::Intake::flush) | the event loop: messages of peers and requests of clients in, messages out |
//! | `ticker` | [`Ticker::step`](steps::Ticker::step) | counts time |
//! | `replicator` | [`Replicator::step`](steps::Replicator::step) | writes the log and syncs it, sends what waited for that |
//! | `apply` | [`Hub::finish_apply`](steps::Hub::finish_apply) | executes what is committed, answers |
//! | `courier` | [`Courier::step`](steps::Courier::step) | sends and stores parts of snapshots, removes files |
//! | `snapshot` | [`Taker::step`](steps::Taker::step) | writes snapshots |
//! | `scrub` | [`Scrubber::step`](steps::Scrubber::step) | verifies the files of the log and of snapshots |
//! | `join` | | asks to be let in, if the node is new; ends when it is a member |
//! | `peers` | [`Registrar::step`](steps::Registrar::step) | writes down which founders the node has met, and whether its folder is admitted; ends when nothing of that can change any more |
//!
//! The threads share a [`Hub`](steps::Hub): the core and the requests that wait for it under one
//! lock, and the signals by which the threads wake each other. All decisions are made by
//! [`Replica`] and the modules that it uses. A program starts a node with [`Node::start`].

mod admissible;
mod announcing;
mod changing;
mod clock;
mod config;
mod consequences;
mod courier;
mod execution;
mod executor;
mod files;
mod greeter;
mod greeting;
mod handle;
mod healing;
mod hub;
mod inquiry;
mod intake;
mod joining;
mod members;
mod opened;
mod outcome;
mod own_disk;
mod register;
mod replica;
mod replicator;
mod report;
mod scheduling;
mod scrubber;
mod sending;
mod service;
mod signals;
mod snapshot_due;
mod stages;
mod status;
pub mod steps;
mod sync;
mod taker;
#[cfg(test)]
mod tests;
mod threads;
mod ticker;
mod unhurried;
mod waiters;
mod work;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::machine::StateMachine;
use crate::net::{self, Net, NetError};
use crate::raft::{Contact, Envelope, Fault, Index, NodeId};
use crate::storage::{Disk, RealDisk, StorageError, finish_interrupted};
use crate::wire::client::{Answer, Ask};
use crate::wire::handshake::PeerWelcome;
use crate::wire::members::MemberList;

pub use admissible::{InadmissibleFromLeader, InadmissibleInLog};
pub use config::{Config, Timing};
pub use consequences::{Consequences, Errands, Left, Wanted};
pub use handle::Handle;
pub use healing::can_begin_anew;
pub use members::{check_address, parse_members};
pub use outcome::{Outcome, Pending};
pub use own_disk::{DiskNotice, DiskState, Trouble};
pub use replica::{End, Replica};
pub use waiters::Read;
pub use work::{ReadyReads, Share, Shares, Takes, Work};

use clock::Clock;
use greeter::Greeter;
use greeting::{Given, founding_digest};
use hub::Surroundings;
use inquiry::Tcp;
use opened::{Opened, check_is_told, joiner, listen_address, open, resolve};
use register::{Register, Registrar};
use service::NodeService;
use signals::between_threads;
use steps::assemble;

/// The way to the other nodes. It may lose, repeat, delay and reorder messages, but must neither
/// change them nor block.
///
/// A transport that reaches every node by its id, and no address, needs [`send`](Self::send) only.
/// Nodes on it cannot change their members.
pub trait Transport: Send + Sync + 'static {
    /// Sends each message to the node that it names.
    fn send(&self, messages: Vec<Envelope>);

    /// The members are others now: `contacts` are those that this node speaks to from now on, and
    /// `list` is what clients may be told. Called in order, and soon after the start for the first
    /// time.
    fn members(&self, contacts: Vec<Contact>, list: MemberList) {
        drop((contacts, list));
    }

    /// The log has this node at this address from now on: what it tells others of itself.
    fn reached_at(&self, address: &str) {
        let _ = address;
    }

    /// Finds out who is at an address at which node `id` is expected, and calls `then` with what
    /// the node there says of itself, or a sentence. Must not block, but may call `then` at once.
    fn probe(&self, id: NodeId, address: &str, then: ProbeEnd) {
        then(Err(format!("node {id} cannot be asked at {address}")));
    }

    /// Sends a request to whoever is at an address, as a client, and waits for the answer.
    ///
    /// # Errors
    /// A sentence, if there is no answer.
    fn ask(&self, address: &str, ask: &Ask, timeout: Duration) -> Result<Answer, String> {
        let _ = (ask, timeout);
        Err(format!("nobody can be asked at {address}"))
    }
}

/// Takes what a probed node says of itself, or why nothing is known of it.
pub type ProbeEnd = Box<dyn FnOnce(Result<PeerWelcome, String>) + Send>;

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings contradict each other.
    #[error("the settings cannot work: {0}")]
    Config(String),
    /// The data folder cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The node cannot listen, or not reach its peers' addresses.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The state machine cannot take over the snapshot in the data folder.
    #[error(transparent)]
    Restore(NodeError),
    /// The log in the data folder holds a command that the state machine cannot execute.
    #[error(transparent)]
    Inadmissible(#[from] InadmissibleInLog),
    /// The system refused a thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// Why a node that was running stopped without being told to.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The disk failed. It is not known any more what the disk holds; a restart reads it.
    #[error(transparent)]
    Storage(StorageError),
    /// A snapshot is whole, but the state machine cannot take it over.
    #[error(
        "the state of the snapshot up to {index} cannot be taken over: {reason}. Do all nodes run \
         the same version?"
    )]
    Restore {
        /// The last index that the snapshot stands for.
        index: Index,
        /// What is wrong with the snapshot.
        reason: String,
    },
    /// A leader has sent a command that the state machine cannot execute. It was not written.
    #[error(transparent)]
    Inadmissible(InadmissibleFromLeader),
    /// A [`Fault`]: proof that the promises of the cluster are broken.
    #[error(transparent)]
    Fault(Fault),
    /// Another folder has taken the place of this node's.
    #[error(
        "another data folder has taken the place of this one: since entry {index} of the cluster's \
         log, node {id} is the one at {address}. This folder counts for nothing any more: move it \
         away; to let this machine in again, start it on an empty folder with another --id and \
         --join"
    )]
    Replaced {
        /// The id of both.
        id: NodeId,
        /// Where the other one is reached.
        address: String,
        /// The index of the configuration that has the other one.
        index: Index,
    },
    /// The event loop failed.
    #[error(transparent)]
    Net(NetError),
    /// A thread of the node panicked, which is a bug.
    #[error("the thread \"{0}\" panicked; the lines above say where and why. This is a bug")]
    Panicked(&'static str),
}

/// Starts nodes.
///
/// ```no_run
/// use raftkv::kv::{Kv, Limits};
/// use raftkv::node::{Config, Node};
///
/// let members = (1..=3).map(|id| (id, format!("127.0.0.1:{}", 7000 + id)));
/// let node = Node::start(Config::new(1, members, "data/1"), Kv::new(Limits::default()))?;
/// node.wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Node;

impl Node {
    /// Starts a node that keeps its log in the folder `config.data` and talks to its peers and
    /// clients over TCP.
    ///
    /// # Errors
    /// [`StartError`]: nothing has been started, and nothing on disk was changed but for what a
    /// crash had left unfinished.
    pub fn start<S: StateMachine>(config: Config, machine: S) -> Result<Handle<S>, StartError> {
        Self::start_with(config, machine, |folder| {
            Ok(Arc::new(RealDisk::open(folder)?))
        })
    }

    /// As [`start`](Self::start), on the disk that `open_disk` makes of the folder `config.data`:
    /// for tests with a disk that misbehaves.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with<S: StateMachine>(
        config: Config,
        machine: S,
        open_disk: impl FnOnce(&Path) -> Result<Arc<dyn Disk>, StorageError>,
    ) -> Result<Handle<S>, StartError> {
        // The settings are judged before any file is touched.
        config.raft(0)?;
        finish_interrupted(&config.data)?;
        match config.data.exists() {
            // There is no log that could say it.
            false => {
                check_is_told(&config, true)?;
                listen_address(&config, None)?;
            }
            true => {
                let listens = config.listens_at(None);
                listens.as_deref().map(resolve).transpose()?;
            }
        }
        let disk = open_disk(&config.data)?;
        Self::serve(config, machine, &disk)
    }

    /// Starts a node that talks over TCP, on a disk that the caller has opened.
    fn serve<S: StateMachine>(
        config: Config,
        machine: S,
        disk: &Arc<dyn Disk>,
    ) -> Result<Handle<S>, StartError> {
        let identity = machine.identity();
        let mut opened = open(&config, disk, &identity)?;
        let listen = listen_address(&config, opened.own_address(&config))?;
        let known = opened.storage.peers()?;
        let founders = config.members.keys().copied();
        let (nudger, nudged) = sync::nudges();
        let register = Register::new(&known, founders, Box::new(move || nudger.nudge()));
        opened.admitted_by(&register);
        let given = given(&config, &opened, identity, &register);
        let net = Net::bind(net::Config {
            listen,
            id: config.id,
            cluster: given.cluster.clone(),
            machine: given.machine.clone(),
            folder: known.own_folder(),
            address: given.address.clone(),
            founding: given.founding,
            peers: opened.contacts(&config),
            reach: config.reach.clone(),
            limits: net::Limits::default(),
        })?;
        let (stopper, writer) = (net.stopper(), register.clone());
        let on_stop = Box::new(move || {
            stopper.stop();
            writer.stop();
        });
        let transport = Tcp {
            peers: net.peers(),
            announced: net.announced(),
            lists: sync::AtomicU64::new(0),
            register: register.clone(),
            cluster: config.cluster.clone(),
            reach: config.reach.clone(),
        };
        let mut handle = launch(config, machine, opened, Arc::new(transport), on_stop)?;
        handle.address = Some(net.local_addr());
        if !register.is_founding() {
            handle.hub.founds_no_more();
        }
        let (registrar, wake) = (Registrar::new(register.clone(), known), net.waker());
        handle.threads.start("peers", &handle.hub, move |hub| {
            register::write(hub, registrar, &nudged, wake)
        })?;
        let on_estranged = handle.hub.on_estranged();
        let greeter = Greeter::new(given, register, net.announced(), on_estranged);
        let service = NodeService::new(handle.hub.clone(), greeter);
        handle.threads.start("rpc", &handle.hub, move |_| {
            net.run(service).map_err(NodeError::Net)
        })?;
        Ok(handle)
    }

    /// Starts a node on a disk and a transport that the caller brings: for clusters within one
    /// process. The caller hands the node's incoming messages to [`Handle::deliver`]. A node that
    /// has lost its disk may come back under the same id only without [`Config::members`]: then it
    /// counts for nothing before it has its place again.
    ///
    /// # Errors
    /// [`StartError`]: nothing has been started.
    pub fn start_on<S: StateMachine>(
        config: Config,
        machine: S,
        disk: Arc<dyn Disk>,
        transport: Arc<dyn Transport>,
    ) -> Result<Handle<S>, StartError> {
        let opened = open(&config, &disk, &machine.identity())?;
        launch(config, machine, opened, transport, Box::new(|| {}))
    }
}

/// What the node tells others of itself.
fn given(config: &Config, opened: &Opened, machine: String, register: &Register) -> Given {
    let address = config.told_address(opened.own_address(config));
    let founders = config.members.keys().copied();
    Given {
        cluster: config.cluster.clone(),
        machine,
        founding: founding_digest(founders.filter(|_| register.is_founding())),
        address: address.unwrap_or_default(),
        seated: opened.seated,
        begins_anew: opened.anew.is_some(),
    }
}

/// Puts the parts of a node together and starts its threads, but for the event loop.
fn launch<S: StateMachine>(
    config: Config,
    machine: S,
    opened: Opened,
    transport: Arc<dyn Transport>,
    on_stop: Box<dyn Fn() + Send + Sync>,
) -> Result<Handle<S>, StartError> {
    let mut core = config.raft(opened.seed)?;
    core.admitted = opened.admitted;
    let joiner = joiner(&config, &opened)?;
    let (wake, sleepers) = between_threads();
    let surroundings = Surroundings {
        transport,
        wake,
        on_stop,
        clock: Clock::default(),
        shares: Shares::default(),
    };
    let opened = (opened.storage, opened.recovered);
    let parts = assemble(config, core, machine, opened, surroundings, sync::now())?;
    let mut handle = Handle::start_threads(parts, sleepers)?;
    if let Some(joiner) = joiner {
        let hub = handle.hub.clone();
        handle.threads.start("join", &hub, |hub| joiner.run(hub))?;
    }
    Ok(handle)
}
