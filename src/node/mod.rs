//! A running node: the threads that carry inputs to the pure core and outputs away from it.
//!
//! ```text
//!   rpc         the event loop: messages of peers and requests of clients in, messages out
//!   ticker      counts time
//!   replicator  writes the log and syncs it, sends what waited for that
//!   apply       executes what is committed, answers
//!        └────────────┴───────────┴── Mutex<Replica>, Condvar, a nudge channel of capacity one
//! ```
//!
//! Everything that decides is in [`Replica`] and below; see [`Node::start`] for the way in.

mod admissible;
mod apply;
mod config;
mod executor;
mod members;
mod outcome;
mod replica;
mod scheduling;
mod service;
mod shared;
mod snapshot_due;
mod snapshots;
mod stages;
mod sync;
#[cfg(test)]
mod tests;
mod threads;
mod unhurried;
mod waiters;
mod work;

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use crate::machine::StateMachine;
use crate::net::{self, Net, NetError, Peers};
use crate::raft::{Envelope, Fault, Index, Raft, RoleName, SnapshotMeta};
use crate::storage::{
    self, Disk, Identity, RealDisk, Recovered, SnapshotInfo, Snapshots, Storage, StorageError,
    welcomes_needed,
};
use crate::wire::client::{Answer, Ask, Status};

pub use admissible::{InadmissibleFromLeader, InadmissibleInLog};
pub use config::{Config, Timing};
pub use members::parse_members;
pub use outcome::{Outcome, Pending};
pub use replica::{End, Replica};
#[cfg(feature = "shuttle")]
pub use sync::explored::{Sabotage, sabotage};
pub use work::{Share, Takes, Work};

use apply::Machine;
pub use executor::{Executor, restore};
pub use outcome::answer;
use outcome::{Waiter, encode, receive};
use service::NodeService;
use shared::{Shared, Signals};
pub use snapshots::{Courier, Gone, Stored, in_its_place, report, stored};
use stages::Acknowledged;
use sync::bounded;
use threads::Threads;

/// Carries messages to the other nodes. May lose, repeat, delay and reorder them, but must neither
/// change them nor block.
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

/// Why a running node stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The disk failed. What is on it is not known any more; a restart reads it.
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
        /// What is wrong with it.
        reason: String,
    },
    /// A leader has sent a command that the state machine cannot execute. It was not written.
    #[error(transparent)]
    Inadmissible(InadmissibleFromLeader),
    /// The cluster's promises are broken.
    #[error(transparent)]
    Fault(Fault),
    /// The event loop failed.
    #[error(transparent)]
    Net(NetError),
    /// An invariant of our own does not hold.
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
    /// for a disk that misbehaves in a way of the caller's.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with<S: StateMachine>(
        config: Config,
        machine: S,
        open_disk: impl FnOnce(&Path) -> Result<Arc<dyn Disk>, StorageError>,
    ) -> Result<Handle<S>, StartError> {
        // Before anything is touched.
        config.raft(0)?;
        let listen = listen_address(&config)?;
        let disk = open_disk(&config.data)?;
        let identity = machine.identity();
        let mut opened = open(&config, &disk, &identity)?;
        let known = opened.storage.peers()?;
        // Where there is nobody to ask, there is nobody to deceive either.
        let needed = welcomes_needed(config.members.len());
        opened.admitted = known.admitted() || needed == 0;
        if !opened.admitted {
            log::info!(
                "this data folder is new to the cluster: the node votes and acknowledges once it \
                 has met {needed} others"
            );
        }
        let net = Net::bind(net::Config {
            listen,
            id: config.id,
            cluster: config.cluster.clone(),
            machine: identity.clone(),
            folder: known.own_folder(),
            peers: config.members.clone().into_iter().collect(),
            limits: net::Limits::default(),
        })?;
        let stopper = net.stopper();
        let on_stop = Box::new(move || stopper.stop());
        let mut handle = launch(config, machine, opened, Arc::new(net.peers()), on_stop)?;
        handle.address = Some(net.local_addr());
        let service = NodeService::new(handle.shared.clone(), identity, known);
        handle.threads.start("rpc", &handle.shared, move |_| {
            net.run(service).map_err(NodeError::Net)
        })?;
        Ok(handle)
    }

    /// Starts a node on a disk and a transport of the caller's: for clusters within one process.
    /// What arrives for it is handed to [`Handle::deliver`]. That a node which lost its disk does
    /// not come back under its id is up to the caller.
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

/// What is on a node's disk, and the seed of its election timeouts.
struct Opened {
    storage: Storage,
    recovered: Recovered,
    /// Nodes that start together must not time out together (paper 5.2).
    seed: u64,
    /// Whether it is known that this node's folder is the only one that it ever took part with.
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
    let files = storage.snapshots();
    admissible::in_log(&machine.gate(), &config.data, &recovered.entries)?;
    let (machine, meta) = revive(machine, &files, recovered.snapshot.as_ref())?;
    let executor = Executor::behind(meta);
    let snapshot = recovered.snapshot.clone().map(stored);
    let (hard_state, entries) = (recovered.hard_state, recovered.entries);
    let mut core = config.raft(seed)?;
    core.admitted = admitted;
    let raft = Raft::restore(core, hard_state, snapshot, entries);
    log::info!(
        "node {} of cluster \"{}\" starts in term {} with a log up to {}",
        config.id,
        config.cluster,
        raft.term(),
        raft.last().index
    );
    let replica = Replica::new(raft, config.max_waiting, config.snapshot_log_bytes);
    let (signals, [to_replicator, to_courier, to_ticker]) = Signals::new(on_stop);
    let machine = Machine::new(machine, executor);
    let files = (files, storage.spares());
    let shared = Arc::new(Shared::new(
        config, replica, signals, transport, files, machine,
    ));
    let log_bytes = storage.log_bytes();
    shared.log_bytes.store(log_bytes, Ordering::Relaxed);
    // From here on a failure drops the handle, which ends the threads that exist already.
    let mut handle = Handle {
        shared: shared.clone(),
        threads: Threads::default(),
        address: None,
    };
    let threads = &mut handle.threads;
    threads.start("apply", &shared, apply::run)?;
    threads.start("replicator", &shared, move |shared| {
        threads::replicator(shared, &to_replicator, storage)
    })?;
    threads.start("courier", &shared, move |shared| {
        Courier::default().run(shared, &to_courier)
    })?;
    threads.start("ticker", &shared, move |shared| {
        threads::ticker(shared, &to_ticker)
    })?;
    Ok(handle)
}

/// The machine with the state of the snapshot, if there is one, and what that stands for.
fn revive<'a, S: StateMachine>(
    machine: S,
    files: &Snapshots,
    snapshot: Option<&'a SnapshotInfo>,
) -> Result<(S, Option<&'a SnapshotMeta>), StartError> {
    let Some(SnapshotInfo { meta, .. }) = snapshot else {
        return Ok((machine, None));
    };
    match executor::restore(&machine, files, meta) {
        Ok(restored) => Ok((restored, Some(meta))),
        Err(NodeError::Storage(error)) => Err(error.into()),
        Err(error) => Err(StartError::Restore(error)),
    }
}

/// A running node. Dropping it stops the node.
pub struct Handle<S: StateMachine> {
    shared: Arc<Shared<S>>,
    threads: Threads,
    address: Option<SocketAddr>,
}

impl<S: StateMachine> Handle<S> {
    /// Where the node listens; `None` if it was started on another transport.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Appends a command to the log and returns at once with where it stands. The command ends
    /// within `timeout`, one way or another.
    ///
    /// # Errors
    /// How it ended at once: refused, and never to be executed.
    pub fn start(
        &self,
        command: impl Into<Bytes>,
        timeout: Duration,
    ) -> Result<Pending<S::Reply>, Outcome<S::Reply>> {
        let command = command.into();
        self.shared.admit(&command).map_err(Outcome::Invalid)?;
        let (sender, outcome) = bounded(1);
        let ticks = self.shared.deadline(timeout);
        let waiter = Waiter::Local(sender);
        // The nudge goes to the replicator, which sends and writes at once.
        let id = self
            .shared
            .input(|replica| replica.submit(command, ticks, waiter));
        match id {
            Some(id) => Ok(Pending { id, outcome }),
            None => Err(receive(&outcome, Duration::ZERO)),
        }
    }

    /// Answers a question linearizably.
    pub fn query(&self, query: impl Into<Bytes>, timeout: Duration) -> Outcome<S::Reply> {
        let (sender, outcome) = bounded(1);
        let ticks = self.shared.deadline(timeout);
        let query = query.into();
        self.shared
            .exchange(|replica| replica.query(query, ticks, Waiter::Local(sender)));
        receive(&outcome, timeout)
    }

    /// Serves one request as the node would serve it on a connection, and waits for its end.
    pub fn ask(&self, ask: &Ask, timeout: Duration) -> Answer {
        let outcome = match ask {
            Ask::Submit(command) => match self.start(command.clone(), timeout) {
                Ok(pending) => pending.wait(timeout),
                Err(outcome) => outcome,
            },
            Ask::Query(query) => self.query(query.clone(), timeout),
            Ask::Status => return Answer::Status(Box::new(self.status())),
            Ask::Transfer(to) => return service::transfer(&self.shared, *to),
            Ask::Snapshot => return service::snapshot(&self.shared),
        };
        match outcome {
            Outcome::Reply(reply) => encode::<S>(&reply),
            Outcome::Invalid(sentence) => Answer::Invalid(sentence),
            Outcome::Ended(end) => self.shared.answer(end),
        }
    }

    /// Hands over messages that have arrived for this node by another way than its own sockets.
    pub fn deliver(&self, messages: impl IntoIterator<Item = Envelope>) {
        let messages = messages.into_iter();
        let messages: Vec<Envelope> = messages.filter(|m| self.shared.takes(m)).collect();
        let acknowledged = messages.iter().filter_map(Acknowledged::by);
        let acknowledged: Vec<Acknowledged> = acknowledged.collect();
        self.shared.stages.acknowledged(&acknowledged, sync::now());
        let messages = messages.into_iter();
        self.shared
            .exchange(|replica| messages.for_each(|message| replica.step(message)));
    }

    /// Begins to take a snapshot, or will as soon as the one that is being taken is done. Returns
    /// whether one is to come: there is none to take if nothing has happened since the last one.
    pub fn take_snapshot(&self) -> bool {
        self.shared.input(|replica| replica.want_snapshot())
    }

    /// Lets one tick pass, for a test whose clock stands still.
    #[cfg(feature = "shuttle")]
    pub fn tick(&self) {
        self.shared.exchange(Replica::tick);
    }

    /// What the node knows of itself.
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// Looks at the state machine, between two commands.
    pub fn with_machine<T>(&self, look: impl FnOnce(&S) -> T) -> T {
        look(&self.shared.machine.lock().state)
    }

    /// Waits until the node's core satisfies a condition that a change of role or of the applied
    /// index can bring about. Returns whether it does before the time is up.
    pub fn wait_until(&self, timeout: Duration, mut holds: impl FnMut(&Raft) -> bool) -> bool {
        self.shared
            .wait_until(timeout, |replica| holds(replica.raft()))
    }

    /// Hands leadership over, if this node leads and another can take it. Returns whether this
    /// node does not lead any more when `timeout` has passed.
    pub fn resign(&self, timeout: Duration) -> bool {
        let successor = self.shared.exchange(|replica| replica.transfer(None));
        // With nobody to hand over to there is nothing to wait for.
        let timeout = successor.map_or(Duration::ZERO, |_| timeout);
        self.wait_until(timeout, |raft| raft.role() != RoleName::Leader)
    }

    /// Stops the node and waits for its threads, unless it is one of them that calls. Requests
    /// that are under way end as unknown, and so does at once whatever is asked from then on.
    pub fn shutdown(&self) {
        self.shared.stop(None);
        self.join();
    }

    /// Waits until the node stops.
    ///
    /// # Errors
    /// [`NodeError`] if it stopped for another reason than [`shutdown`](Self::shutdown).
    pub fn wait(&self) -> Result<(), NodeError> {
        self.shared.wait_for_end();
        self.join();
        self.shared.failure().map_or(Ok(()), Err)
    }

    fn join(&self) {
        self.threads.join();
        // Nobody is left to begin another one.
        if let Some(snapshot) = self.shared.take_snapshot_thread() {
            // What went wrong in it is in the log.
            let _ = snapshot.join();
        }
    }
}

impl<S: StateMachine> Drop for Handle<S> {
    fn drop(&mut self) {
        self.shutdown();
    }
}
