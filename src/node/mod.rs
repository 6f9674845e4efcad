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
//! | `peers` | [`Registrar::step`](steps::Registrar::step) | writes down which founders the node has met, and whether its folder is admitted; ends when nothing of that can change any more |
//!
//! The threads share a [`Hub`](steps::Hub): the core and the requests that wait for it under one
//! lock, and the signals by which the threads wake each other. All decisions are made by
//! [`Replica`] and the modules that it uses. A program starts a node with [`Node::start`].

mod admissible;
mod clock;
mod config;
mod consequences;
mod courier;
mod execution;
mod executor;
mod files;
mod handle;
mod hub;
mod intake;
mod members;
mod outcome;
mod register;
mod replica;
mod replicator;
mod scheduling;
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

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;

use crate::machine::StateMachine;
use crate::net::{self, Net, NetError, Peers};
use crate::raft::{Envelope, Fault, Index};
use crate::storage::{self, Disk, Identity, RealDisk, Recovered, Storage, StorageError};

pub use admissible::{InadmissibleFromLeader, InadmissibleInLog};
pub use config::{Config, Timing};
pub use consequences::{Consequences, Errands, Left, Wanted};
pub use handle::Handle;
pub use members::parse_members;
pub use outcome::{Outcome, Pending};
pub use replica::{End, Replica};
pub use waiters::Read;
pub use work::{ReadyReads, Share, Shares, Takes, Work};

use clock::Clock;
use hub::Surroundings;
use register::{Register, Registrar};
use service::NodeService;
use signals::between_threads;
use steps::assemble;

/// Carries messages to the other nodes. It may lose, repeat, delay and reorder messages, but must
/// neither change them nor block.
pub trait Transport: Send + Sync + 'static {
    /// Sends each message to the node that it names.
    fn send(&self, messages: Vec<Envelope>);
}

impl Transport for Peers {
    fn send(&self, messages: Vec<Envelope>) {
        Peers::send(self, &messages);
    }
}

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
        listen_address(&config)?;
        let disk = open_disk(&config.data)?;
        Self::serve(config, machine, &disk)
    }

    /// Starts a node that talks over TCP, on a disk that the caller has opened.
    fn serve<S: StateMachine>(
        config: Config,
        machine: S,
        disk: &Arc<dyn Disk>,
    ) -> Result<Handle<S>, StartError> {
        let listen = listen_address(&config)?;
        let identity = machine.identity();
        let mut opened = open(&config, disk, &identity)?;
        let known = opened.storage.peers()?;
        let founders = config.members.keys().copied();
        let (nudger, nudged) = sync::nudges();
        let register = Register::new(&known, founders, Box::new(move || nudger.nudge()));
        opened.admitted = register.is_admitted();
        if !opened.admitted {
            log::info!(
                "this data folder is new to the cluster: the node votes and acknowledges once it \
                 has met {} others",
                register.needed()
            );
        }
        let net = Net::bind(net::Config {
            listen,
            id: config.id,
            cluster: config.cluster.clone(),
            machine: identity.clone(),
            folder: known.own_folder(),
            peers: config.dialled_members(),
            limits: net::Limits::default(),
        })?;
        let (stopper, writer) = (net.stopper(), register.clone());
        let on_stop = Box::new(move || {
            stopper.stop();
            writer.stop();
        });
        let mut handle = launch(config, machine, opened, Arc::new(net.peers()), on_stop)?;
        handle.address = Some(net.local_addr());
        let (registrar, wake) = (Registrar::new(register.clone(), known), net.waker());
        handle.threads.start("peers", &handle.hub, move |hub| {
            register::write(hub, registrar, &nudged, wake)
        })?;
        let service = NodeService::new(handle.hub.clone(), identity, register);
        handle.threads.start("rpc", &handle.hub, move |_| {
            net.run(service).map_err(NodeError::Net)
        })?;
        Ok(handle)
    }

    /// Starts a node on a disk and a transport that the caller brings: for clusters within one
    /// process. The caller hands the node's incoming messages to [`Handle::deliver`], and must not
    /// start a node that has lost its disk under the same id.
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

/// What a node found on its disk, and the seed of its election timeouts.
struct Opened {
    storage: Storage,
    recovered: Recovered,
    /// The seed, drawn for each start: nodes that start together must not time out together (paper
    /// 5.2).
    seed: u64,
    /// Whether this data folder is admitted, so that the node is known never to have voted or
    /// acknowledged with another folder.
    admitted: bool,
}

fn open(config: &Config, disk: &Arc<dyn Disk>, machine: &str) -> Result<Opened, StorageError> {
    let identity = Identity {
        cluster: config.cluster.clone(),
        node: config.id,
        machine: machine.to_string(),
    };
    let options = storage::Options::default();
    let (storage, recovered) = Storage::open(disk.clone(), &identity, options)?;
    for note in &recovered.notes {
        log::warn!("{note}");
    }
    Ok(Opened {
        storage,
        recovered,
        seed: disk.unique_id(),
        admitted: true,
    })
}

fn listen_address(config: &Config) -> Result<SocketAddr, StartError> {
    let own = config.members.get(&config.id);
    let text = config.listen.as_ref().or(own).ok_or_else(|| {
        StartError::Config(format!("the members do not include node {}", config.id))
    })?;
    let resolved = text.to_socket_addrs().ok().and_then(|mut all| all.next());
    resolved.ok_or_else(|| {
        StartError::Config(format!(
            "cannot listen on \"{text}\": this is no HOST:PORT of this machine"
        ))
    })
}

/// Puts the parts of a node together and starts its threads, but for the event loop.
fn launch<S: StateMachine>(
    config: Config,
    machine: S,
    opened: Opened,
    transport: Arc<dyn Transport>,
    on_stop: Box<dyn Fn() + Send + Sync>,
) -> Result<Handle<S>, StartError> {
    let Opened {
        storage,
        recovered,
        seed,
        admitted,
    } = opened;
    let mut core = config.raft(seed)?;
    core.admitted = admitted;
    let (wake, sleepers) = between_threads();
    let surroundings = Surroundings {
        transport,
        wake,
        on_stop,
        clock: Clock::default(),
        shares: Shares::default(),
    };
    let opened = (storage, recovered);
    let parts = assemble(config, core, machine, opened, surroundings, sync::now())?;
    Handle::start_threads(parts, sleepers)
}
