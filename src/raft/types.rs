//! The words of the paper as types: terms, indexes, entries, the durable term and vote.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::configuration::{Configuration, LoggedConfiguration};

/// Names a node of the cluster. Zero is not a valid id.
pub type NodeId = u64;

/// The number of a data folder: random, and drawn when the folder is made.
pub type FolderId = u128;

/// What counts in a majority: a node with the folder in which it remembers its votes and entries.
/// The same node with another folder is another member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MemberId {
    /// The node.
    pub id: NodeId,
    /// Its folder.
    pub folder: FolderId,
}

impl MemberId {
    /// A node whose folder has the same number as itself; see
    /// [`Configuration::of_voters`].
    pub fn plain(id: NodeId) -> Self {
        Self {
            id,
            folder: id.into(),
        }
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = (self.folder >> 96) as u32;
        write!(f, "node {} (folder {short:08x})", self.id)
    }
}

/// An election term (paper 5.1). Zero is the term before the first election.
pub type Term = u64;

/// A position in the log. The first entry has index 1; zero stands for "before the log".
pub type Index = u64;

/// Identifies one entry: two logs that hold the same id are equal up to it (paper 5.3).
///
/// The order is the one of "at least as up-to-date" (paper 5.4.1): term first, then index.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct EntryId {
    /// The term of the leader that created the entry.
    pub term: Term,
    /// The entry's place in the log.
    pub index: Index,
}

impl EntryId {
    /// The id that stands before the first entry.
    pub const ZERO: Self = Self { term: 0, index: 0 };
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

/// One entry of the replicated log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The entry's term and index.
    pub id: EntryId,
    /// Cluster time in milliseconds: how long leaders have led, all added up. It never goes back
    /// along the log, and no wall clock enters it, so every replica expires the same sessions.
    pub time_ms: u64,
    /// What the entry does when it is applied.
    pub payload: Payload,
}

impl Entry {
    /// What the entry weighs against limits on bytes: its payload and a fixed number of bytes for
    /// the rest.
    pub fn weight(&self) -> usize {
        const OVERHEAD: usize = 32;
        match &self.payload {
            Payload::Empty => OVERHEAD,
            Payload::Command(command) => OVERHEAD + command.len(),
            Payload::Configuration(configuration) => OVERHEAD + configuration.weight(),
        }
    }
}

/// What an entry carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    /// A new leader's first entry, which lets it commit what its predecessors left (paper 5.4.2).
    Empty,
    /// A command of the state machine, opaque to consensus.
    Command(Bytes),
    /// The members from this entry on (thesis 4.1). The state machine does not see it.
    Configuration(Box<Configuration>),
}

/// What must survive a crash besides the log (paper figure 2, "persistent state").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HardState {
    /// The latest term this node has seen.
    pub term: Term,
    /// Whom this node voted for in that term. With its folder: to the same node with another one
    /// the vote was not given, and is not repeated.
    pub vote: Option<MemberId>,
}

/// The number of a write that the core hands out; later writes have higher numbers.
/// [`Raft::durable`](super::Raft::durable) reports that a write is done.
pub type WriteId = u64;

/// One write for the disk. Writes are executed in the order of their ids, each one whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// This write's number.
    pub id: WriteId,
    /// The term and vote, where they changed since the last write. To be made durable before the
    /// entries, so that no log ever holds an entry of a term that the node does not know.
    pub hard_state: Option<HardState>,
    /// Entries with consecutive indexes. The first one's index may lie within the log: then it and
    /// all that follow it are replaced, in one step that a crash cannot split.
    pub entries: Vec<Entry>,
    /// Set when a snapshot from the leader took the place of the whole log: the log begins anew
    /// after this entry, and `entries` follow it. The snapshot itself is durable already.
    pub restart: Option<EntryId>,
}

/// What a snapshot stands for: all entries up to and including `last` (paper section 7).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotMeta {
    /// The last entry whose effect the snapshot holds.
    pub last: EntryId,
    /// The cluster time of the entry `last`, in milliseconds.
    pub time_ms: u64,
    /// The members of the cluster as of the entry `last`: never a configuration that is not
    /// committed.
    pub configuration: LoggedConfiguration,
}

/// Identifies a linearizable read; chosen by the caller and never used twice.
pub type ReadId = u64;

/// A node's role, as log lines, statuses and answers to clients name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RoleName {
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks whether an election could be won, without disturbing anybody (thesis 9.6).
    PreCandidate,
    /// Asks for votes (paper 5.2).
    Candidate,
    /// Leads its term.
    Leader,
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            RoleName::Follower => "follower",
            RoleName::PreCandidate => "pre-candidate",
            RoleName::Candidate => "candidate",
            RoleName::Leader => "leader",
        })
    }
}
