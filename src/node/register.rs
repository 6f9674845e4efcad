//! The other nodes that the event loop has met, and what it has learned of them that is not on disk
//! yet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::NodeError;
use super::hub::Hub;
use super::replica::Replica;
use super::sync::{Mutex, Nudged};
use crate::machine::StateMachine;
use crate::raft::NodeId;
use crate::storage::{Peers, welcomes_needed};

/// What the event loop and the thread `peers` share: which folders are on disk, and which are to be
/// written.
pub struct Register {
    state: Mutex<State>,
    /// Wakes the thread `peers`.
    nudge: Box<dyn Fn() + Send + Sync>,
    /// The other members of the cluster, and how many of them have to know this node's folder.
    others: BTreeSet<NodeId>,
    needed: usize,
}

struct State {
    /// For each node of which a folder number is on disk, that number.
    known: BTreeMap<NodeId, u128>,
    /// Folder numbers that are to be written, at most one for each node that is not known.
    wanted: BTreeMap<NodeId, u128>,
    /// The nodes that have welcomed this node since it started.
    welcomed_by: BTreeSet<NodeId>,
    admitted: bool,
}

/// What is known of a node that calls with a folder number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acquainted {
    /// The number of this folder is on disk.
    Known,
    /// The number of another folder of the same node is on disk.
    OtherFolder,
    /// No folder number of the node is on disk yet. The event loop is woken when one is.
    NotYet,
}

/// The next item for the peers file.
enum Entry {
    Folder(NodeId, u128),
    Admission,
}

impl Register {
    /// A register of what is on disk. `nudge` wakes the [`Registrar`].
    pub fn new(
        peers: &Peers,
        others: BTreeSet<NodeId>,
        nudge: Box<dyn Fn() + Send + Sync>,
    ) -> Arc<Self> {
        let needed = welcomes_needed(others.len() + 1);
        let state = State {
            known: peers.known().clone(),
            wanted: BTreeMap::new(),
            welcomed_by: BTreeSet::new(),
            // A node that needs no welcome is the only member: if it loses its folder, it misleads
            // no other.
            admitted: peers.admitted() || needed == 0,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            nudge,
            needed,
            others,
        })
    }

    /// Whether this node's folder is durably admitted. Only then the core may be told so
    /// ([`Config::admitted`](crate::raft::Config::admitted)).
    pub fn is_admitted(&self) -> bool {
        self.state.lock().admitted
    }

    /// How many other nodes have to know this node's folder before it is admitted.
    pub(super) fn needed(&self) -> usize {
        self.needed
    }

    /// Looks up a node that calls with this folder number. If none of the node is known, this
    /// number will be written, unless another folder of the same node waits to be written already:
    /// the first folder that a node calls with is the one that counts.
    pub fn meet(&self, peer: NodeId, folder: u128) -> Acquainted {
        let mut state = self.state.lock();
        match state.known.get(&peer) {
            Some(known) if *known == folder => Acquainted::Known,
            Some(_) => Acquainted::OtherFolder,
            None => {
                state.wanted.entry(peer).or_insert(folder);
                (self.nudge)();
                Acquainted::NotYet
            }
        }
    }

    /// Another node has welcomed this one, so it has this node's folder number on its disk.
    pub fn welcomed_by(&self, peer: NodeId) {
        let mut state = self.state.lock();
        if !state.admitted {
            state.welcomed_by.insert(peer);
            (self.nudge)();
        }
    }

    /// Wakes the thread `peers`, which then sees that the node stops.
    pub fn stop(&self) {
        (self.nudge)();
    }

    fn next(&self) -> Option<Entry> {
        let state = self.state.lock();
        if let Some((peer, folder)) = state.wanted.first_key_value() {
            return Some(Entry::Folder(*peer, *folder));
        }
        let is_due = !state.admitted && state.welcomed_by.len() >= self.needed;
        is_due.then_some(Entry::Admission)
    }

    fn is_complete(&self) -> bool {
        let state = self.state.lock();
        state.admitted && self.others.iter().all(|id| state.known.contains_key(id))
    }

    fn written(&self, entry: &Entry) {
        let mut state = self.state.lock();
        match entry {
            Entry::Folder(peer, folder) => {
                state.wanted.remove(peer);
                state.known.insert(*peer, *folder);
            }
            Entry::Admission => state.admitted = true,
        }
    }
}

/// Writes to the peers file what the event loop asks for.
pub struct Registrar {
    register: Arc<Register>,
    peers: Peers,
}

/// What a [`Registrar`] has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// Nothing, because nothing was to be written.
    Nothing,
    /// The folder number of a node. The event loop can answer the callers for which
    /// [`meet`](Register::meet) has returned [`Acquainted::NotYet`].
    Folder,
    /// That this node's folder is admitted. The core has been told.
    Admission,
}

impl Registrar {
    /// Writes to the peers file from which the register was made.
    pub fn new(register: Arc<Register>, peers: Peers) -> Self {
        Self { register, peers }
    }

    /// Whether a folder number or the admission is to be written.
    pub fn is_busy(&self) -> bool {
        self.register.next().is_some()
    }

    /// Writes the next item, and only then lets it take effect.
    ///
    /// # Errors
    /// [`NodeError::Storage`] if the file cannot be written. The item has no effect then.
    pub fn step<S: StateMachine>(&mut self, hub: &Hub<S>) -> Result<Written, NodeError> {
        let Some(entry) = self.register.next() else {
            return Ok(Written::Nothing);
        };
        let written = match entry {
            Entry::Folder(peer, folder) => self.peers.meet(peer, folder).map(drop),
            Entry::Admission => self.peers.admit(),
        };
        written.map_err(NodeError::Storage)?;
        self.register.written(&entry);
        if let Entry::Folder(..) = entry {
            return Ok(Written::Folder);
        }
        let needed = self.register.needed;
        log::info!(
            "{needed} others know this node with this data folder: it may vote and acknowledge"
        );
        hub.input(Replica::admit);
        Ok(Written::Admission)
    }
}

/// Takes the steps of a registrar until all peers are known and this node is admitted, or the node
/// stops. `wake` makes the event loop look again.
pub(super) fn write<S: StateMachine>(
    hub: &Hub<S>,
    mut registrar: Registrar,
    nudged: &Nudged,
    wake: impl Fn(),
) -> Result<(), NodeError> {
    while !registrar.register.is_complete() && !hub.is_stopping() {
        match registrar.step(hub)? {
            Written::Nothing => nudged.wait(),
            Written::Folder => wake(),
            Written::Admission => {}
        }
    }
    Ok(())
}
