//! What clients and servers say to each other.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::raft::{Index, NodeId, RoleName, Term};

/// One request of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the client, unique on its connection; the answer carries it back.
    pub id: u64,
    /// How long the server may take, in milliseconds. When it has passed, the request ends as
    /// [`Answer::Unknown`]. The server bounds it with a limit of its own.
    pub timeout_ms: u32,
    /// What is asked.
    pub ask: Ask,
}

/// The kinds of requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// Replicate and execute a command of the state machine.
    Submit(Bytes),
    /// Answer a question from the state, linearizably.
    Query(Bytes),
    /// Tell about the node itself. Any node answers, with or without a leader.
    Status,
    /// Hand leadership over to the given node, or to the one that is furthest along.
    Transfer(Option<NodeId>),
    /// Take a snapshot now. Any node does, with or without a leader.
    Snapshot,
}

/// The answer to one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// The request's id.
    pub id: u64,
    /// How the request ended.
    pub answer: Answer,
}

/// The ways in which a request ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Executed; the reply of the state machine.
    Reply(Bytes),
    /// Refused, not executed: this node does not lead.
    NotLeader(NotLeader),
    /// Refused, not executed: the limit on what is under way is reached. Worth a try later.
    Busy,
    /// Refused, not executed, and no other node will accept it either. A sentence says why.
    Invalid(String),
    /// A write may or may not be executed yet; a read has no answer. Repeat it with the same
    /// sequence number.
    Unknown(Doubt),
    /// The answer to [`Ask::Status`].
    Status(Box<Status>),
    /// The answer to [`Ask::Transfer`]: the one that was asked for leads or is about to.
    Transferring,
    /// The answer to [`Ask::Snapshot`], before the snapshot is written.
    Snapshot {
        /// Up to which index the node has applied entries, all of which the snapshot will hold.
        up_to: Index,
        /// The newest snapshot holds all of them already: there is none to take. If not, one is to
        /// come, and [`Status`] tells when it is durable.
        is_there: bool,
    },
}

/// What a node that does not lead says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotLeader {
    /// The node that refused.
    pub id: NodeId,
    /// Its role.
    pub role: RoleName,
    /// Its term.
    pub term: Term,
    /// The leader that it follows, if it knows one: id and address for clients.
    pub leader: Option<(NodeId, String)>,
}

/// Why the outcome of a request is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Doubt {
    /// The node lost its leadership while the request was under way.
    LeadershipLost,
    /// The request's time ran out: no quorum answered in time.
    Timeout,
    /// The node is shutting down.
    ShuttingDown,
}

/// What a node knows of itself and its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The node's id.
    pub id: NodeId,
    /// The cluster's name.
    pub cluster: String,
    /// The node's role.
    pub role: RoleName,
    /// The node's term.
    pub term: Term,
    /// The leader that it follows, itself if it leads.
    pub leader: Option<NodeId>,
    /// All members by id with their addresses for clients.
    pub members: Vec<(NodeId, String)>,
    /// The voters that this node, if it leads, has heard from within an election timeout, itself
    /// included. Empty at any other node.
    pub active: Vec<NodeId>,
    /// The highest index known to be committed.
    pub commit: Index,
    /// The highest index that the state machine has applied.
    pub applied: Index,
    /// The index of the last entry in the log.
    pub last_index: Index,
    /// The index of the first entry that is still held in memory: what no snapshot of this node
    /// covers and some member lacks. One behind the last if there is none.
    pub first_index: Index,
    /// How many bytes the log takes up on disk.
    pub log_bytes: u64,
    /// The last index that the newest snapshot stands for; 0 without one.
    pub snapshot_index: Index,
    /// The size of the newest snapshot's file, in bytes.
    pub snapshot_bytes: u64,
    /// How long ago the newest snapshot was taken, in milliseconds, by this node's clock.
    pub snapshot_age_ms: u64,
    /// The snapshots that this node, if it leads, is sending: to whom, how many bytes have arrived,
    /// and how many there are.
    pub sending: Vec<(NodeId, u64, u64)>,
    /// How long the node has been running, in milliseconds.
    pub uptime_ms: u64,
    /// The state machine's own counters, such as keys and sessions.
    pub gauges: Vec<(String, u64)>,
    /// Whether a snapshot is being written, or is about to be. If none is, and `snapshot_index` is
    /// lower than an [`Answer::Snapshot`] has announced, it could not be written.
    pub snapshot_pending: bool,
    /// How large the file of that snapshot is by now, in bytes; 0 if none is being written.
    pub snapshot_written: u64,
    /// Where the time goes: how long each stage of the way of commands through the node has taken
    /// in the last 10 to 20 seconds, in the order in which a command passes them.
    pub stages: Vec<Stage>,
}

/// How long one stage has taken lately, of all the batches that have passed it: those times are
/// taken once for all commands that share a write, a message or a run of execution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// Its name, such as "sync".
    pub name: String,
    /// How many batches have passed it. The times are 0 if none has.
    pub count: u64,
    /// The time within which half of them have, in nanoseconds.
    pub p50_ns: u64,
    /// The time within which 99 of 100 have, in nanoseconds.
    pub p99_ns: u64,
    /// The longest time, in nanoseconds.
    pub max_ns: u64,
}
