//! The other founders that the event loop has met, and what it has learned of them that is not on
//! disk yet. The rules and the reasons for them are in `storage/voter/peers.rs`.
//!
//! | a greeting says | call | and then |
//! | --- | --- | --- |
//! | a caller's folder | [`Register::meet`] | only [`Acquainted::Known`] makes this node a witness; with [`Acquainted::NotYet`] the caller waits, and with the others it is told where it stands in the configuration |
//! | who was called is a witness of this node's folder | [`Register::welcomed_by`] | it may be admitted |
//! | this node's folder does not stand in the configuration of who was called | [`Register::stranger_at`] | it may have to join |

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::NodeError;
use super::hub::Hub;
use super::replica::Replica;
use super::sync::{Mutex, Nudged};
use crate::machine::StateMachine;
use crate::raft::{Index, NodeId};
use crate::storage::{Grounds, Peers, StorageError, may_witness, welcomes_needed};

/// What the event loop and the thread `peers` share: which folders are on disk, and which are to be
/// written.
pub struct Register {
    state: Mutex<State>,
    /// Wakes the thread `peers`.
    nudge: Box<dyn Fn() + Send + Sync>,
    /// The other founders of the cluster, and how many of them have to know this node's folder.
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
    /// Whether the disk lets this node help to found its cluster.
    founding: bool,
    /// This node, which is not admitted, was told that the cluster exists without its folder.
    is_stranger: bool,
    /// A configuration of the log is committed here.
    is_settled: bool,
}

/// What a greeting is judged by, besides the caller's folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeted {
    /// The newest configuration of the node that is greeted is one of the log, committed or not:
    /// its index is not 0.
    pub logged_here: bool,
    /// The caller was given the same founders: it sent the same digest of their ids.
    pub same_founders: bool,
}

/// What is known of a node that calls with a folder number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acquainted {
    /// The number of this folder is on disk: this node is a witness of it.
    Known,
    /// The number of another folder of the same node is on disk. This node is no witness.
    OtherFolder,
    /// No folder number of the node is on disk yet. The event loop is woken when one is.
    NotYet,
    /// This node is nobody's witness, or not this caller's: it is not founding, or the caller is no
    /// founder of the same cluster. Nothing was written down.
    NoWitness,
}

/// The next item for the peers file.
enum Entry {
    Folder(NodeId, u128),
    Admission,
    FoundsNoMore,
}

impl Register {
    /// A register of what is on disk. `founders` are the ids of all nodes that the cluster is
    /// founded with, as this node was told: with its own id, or none at a node that is to join a
    /// cluster. `nudge` wakes the [`Registrar`].
    pub fn new(
        peers: &Peers,
        founders: impl IntoIterator<Item = NodeId>,
        nudge: Box<dyn Fn() + Send + Sync>,
    ) -> Arc<Self> {
        let mut others: BTreeSet<NodeId> = founders.into_iter().collect();
        // A node that is no founder never witnesses, and is never admitted.
        let founding = others.remove(&peers.own_id()) && peers.is_founding();
        let needed = welcomes_needed(others.len() + 1);
        let state = State {
            known: peers.known().clone(),
            wanted: BTreeMap::new(),
            welcomed_by: BTreeSet::new(),
            // A founder that needs no welcome is the only one: if it loses its folder, it misleads
            // no other.
            admitted: peers.admitted() || founding && needed == 0,
            founding,
            is_stranger: false,
            is_settled: false,
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

    /// Whether this node may help to found its cluster, as far as the disk tells. If it may not and
    /// is not [admitted](Self::is_admitted), it can become a member only by a change of members.
    pub fn is_founding(&self) -> bool {
        self.state.lock().founding
    }

    /// The number of the folder that is on disk for a node, if one is.
    pub fn folder_of(&self, peer: NodeId) -> Option<u128> {
        self.state.lock().known.get(&peer).copied()
    }

    /// Looks up a node that calls with this folder number. If this node may be a witness and knows
    /// no folder of the caller, this number will be written, unless another folder of the caller
    /// waits to be written already: the first folder that a node calls with is the one that counts.
    pub fn meet(&self, peer: NodeId, folder: u128, greeted: Greeted) -> Acquainted {
        let mut state = self.state.lock();
        let is_witness = may_witness(Grounds {
            logged_here: greeted.logged_here,
            is_founding: state.founding && !state.is_stranger,
            same_founders: greeted.same_founders && self.others.contains(&peer),
        });
        if !is_witness {
            return Acquainted::NoWitness;
        }
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

    /// Another founder has said that it is a witness: it has this node's folder number on its disk.
    pub fn welcomed_by(&self, peer: NodeId) {
        let mut state = self.state.lock();
        if !state.admitted && self.others.contains(&peer) {
            state.welcomed_by.insert(peer);
            (self.nudge)();
        }
    }

    /// Another node of this cluster has said that this node's folder does not stand in its newest
    /// configuration, which has this index. If that is a configuration of the log, the cluster
    /// exists: unless it is admitted, this node is nobody's witness any more and is never admitted.
    pub fn stranger_at(&self, configuration: Index) {
        let mut state = self.state.lock();
        if configuration > 0 && state.founding && !state.admitted {
            state.is_stranger = true;
            (self.nudge)();
        }
    }

    /// A configuration of the log is committed at this node, so it is nobody's witness any more.
    /// The thread `peers` ends, unless the node has yet to learn whether it is admitted.
    pub fn settled(&self) {
        self.state.lock().is_settled = true;
        (self.nudge)();
    }

    /// Wakes the thread `peers`, which then sees that the node stops.
    pub fn stop(&self) {
        (self.nudge)();
    }

    fn next(&self) -> Option<Entry> {
        let state = self.state.lock();
        if !state.founding {
            return None;
        }
        if state.is_stranger && !state.admitted {
            return Some(Entry::FoundsNoMore);
        }
        if let Some((peer, folder)) = state.wanted.first_key_value() {
            return Some(Entry::Folder(*peer, *folder));
        }
        let is_due = !state.admitted && state.welcomed_by.len() >= self.needed;
        is_due.then_some(Entry::Admission)
    }

    /// Whether nothing will ever be written any more.
    fn is_complete(&self) -> bool {
        let state = self.state.lock();
        let knows_all = self.others.iter().all(|id| state.known.contains_key(id));
        !state.founding || state.admitted && (state.is_settled || knows_all)
    }

    fn written(&self, entry: &Entry) {
        let mut state = self.state.lock();
        match entry {
            Entry::Folder(peer, folder) => {
                state.wanted.remove(peer);
                state.known.insert(*peer, *folder);
            }
            Entry::Admission => (state.admitted, state.is_stranger) = (true, false),
            Entry::FoundsNoMore => state.founding = false,
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
    /// That this node, which is not admitted, takes no part in the founding of its cluster: it has
    /// to join. Nothing more will be written.
    FoundsNoMore,
}

impl Registrar {
    /// Writes to the peers file from which the register was made.
    pub fn new(register: Arc<Register>, peers: Peers) -> Self {
        Self { register, peers }
    }

    /// Whether there is something to write.
    pub fn is_busy(&self) -> bool {
        self.register.next().is_some()
    }

    /// Writes the next item, and only then lets it take effect.
    ///
    /// # Errors
    /// [`NodeError::Storage`] if the file cannot be written. The item has no effect then.
    pub fn step<S: StateMachine>(&mut self, hub: &Hub<S>) -> Result<Written, NodeError> {
        let written = self.write().map_err(NodeError::Storage)?;
        match written {
            Written::Nothing | Written::Folder => {}
            Written::Admission => {
                log::info!(
                    "{} others know this node with this data folder: it may vote and acknowledge",
                    self.register.needed
                );
                hub.input(Replica::admit);
            }
            Written::FoundsNoMore => {
                log::info!(
                    "the cluster exists, and this data folder is no member's: the node may vote \
                     and acknowledge once a change of members has let it in"
                );
                hub.founds_no_more();
            }
        }
        Ok(written)
    }

    fn write(&mut self) -> Result<Written, StorageError> {
        let Some(entry) = self.register.next() else {
            return Ok(Written::Nothing);
        };
        let written = match entry {
            Entry::Folder(peer, folder) => self.peers.meet(peer, folder).map(|_| Written::Folder),
            Entry::Admission => self.peers.admit().map(|()| Written::Admission),
            Entry::FoundsNoMore => self.peers.found_no_more().map(|()| Written::FoundsNoMore),
        }?;
        self.register.written(&entry);
        Ok(written)
    }
}

/// Takes the steps of a registrar until nothing will be written any more, or the node stops. `wake`
/// makes the event loop look again: for callers that wait, and for what this node is itself.
pub(super) fn write<S: StateMachine>(
    hub: &Hub<S>,
    mut registrar: Registrar,
    nudged: &Nudged,
    wake: impl Fn(),
) -> Result<(), NodeError> {
    while !registrar.register.is_complete() && !hub.is_stopping() {
        match registrar.step(hub)? {
            Written::Nothing => nudged.wait(),
            Written::Folder | Written::FoundsNoMore => wake(),
            Written::Admission => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
