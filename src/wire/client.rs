//! The messages that clients and servers send to each other.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::members::{ChangeRequest, JoinRequest, MemberList, MembersReport};
use crate::raft::{Index, NodeId, RoleName, Term};

/// A request that a client sends to a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// A number that the client chooses, unique on its connection. The response repeats it.
    pub id: u64,
    /// How long the server may take, in milliseconds. After that time the request ends as
    /// [`Answer::Unknown`]. If the server's own limit is shorter, that limit counts.
    pub timeout_ms: u32,
    /// The index of the newest list of members that the client has; 0 if it has none. If the server
    /// knows a newer one, its response brings it.
    pub known: Index,
    /// What the client asks the server to do.
    pub ask: Ask,
}

/// What a client can ask a server to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// Replicates and executes a command of the state machine.
    Submit(Bytes),
    /// Answers a query from the state machine, linearizably.
    Query(Bytes),
    /// Asks a node for its [`Status`]. Any node answers, with or without a leader.
    Status,
    /// Transfers leadership to the given voter; with `None`, to the voter whose log is furthest
    /// along.
    Transfer(Option<NodeId>),
    /// Asks a node to take a snapshot of its state now. Any node does so, with or without a leader.
    Snapshot,
    /// Asks a node what it knows of the members. Any node answers; the leader knows most.
    Members,
    /// Asks the leader to change the members. It answers as soon as the change is in its log;
    /// [`Ask::Members`] shows when the change is done.
    Change {
        /// The change.
        change: ChangeRequest,
        /// Whether to make the change although too few of the new voters answer.
        force: bool,
    },
    /// Asks the leader, for a node itself, to let the node in or to give the node its place back.
    Join(JoinRequest),
}

/// A server's response to one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// The id of the request that this response is for.
    pub id: u64,
    /// The answer: how the request ended.
    pub answer: Answer,
    /// The committed list of members, if it is newer than the one that the client has.
    pub members: Option<Box<MemberList>>,
}

/// The ways in which a request can end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The request was executed; this is the state machine's reply.
    Reply(Bytes),
    /// The request was refused and not executed, because this node does not lead.
    NotLeader(NotLeader),
    /// The request was refused and not executed, because too much is under way. The client may try
    /// again later.
    Busy,
    /// The request was refused and not executed, and no other node will accept it either. The text
    /// says why.
    Invalid(String),
    /// The outcome of the request is unknown: a write may have been executed, may be executed
    /// later, or never; a read has no result. The client may repeat the request with the same
    /// sequence number.
    Unknown(Doubt),
    /// The answer to [`Ask::Status`].
    Status(Box<Status>),
    /// The answer to [`Ask::Transfer`]: the transfer has begun, or the wanted node leads already.
    Transferring,
    /// The answer to [`Ask::Snapshot`], sent before the snapshot is written.
    Snapshot {
        /// The last index that this node has applied. The snapshot will hold all entries up to it.
        up_to: Index,
        /// Whether the newest snapshot covers all entries up to `up_to` already, so that none is
        /// taken. If false, a snapshot will be taken, and [`Status`] shows when it is durable.
        is_there: bool,
    },
    /// The answer to [`Ask::Members`].
    Members(Box<MembersReport>),
    /// The answer to [`Ask::Change`] and [`Ask::Join`]: the change is in the leader's log.
    Changed {
        /// The index of the configuration that has the change. The change is done when that is
        /// committed and no change is under way any more.
        index: Index,
        /// Whether this request made the change. If false, it was so already: the request is the
        /// repeat of one whose answer was lost.
        is_new: bool,
    },
    /// The request was refused and not executed, because the disk of the leader is full. The text
    /// says on which node, and what to do. The client may try again: leadership goes to a node that
    /// has space, and this one accepts commands again as soon as it has space.
    NoSpace(String),
}

/// The reply of a node that refuses a request because it does not lead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotLeader {
    /// The id of the node that refused the request.
    pub id: NodeId,
    /// The role of the node that refused the request.
    pub role: RoleName,
    /// The term of the node that refused the request.
    pub term: Term,
    /// The leader that this node follows, by id and address for clients; `None` if it knows no
    /// leader.
    pub leader: Option<(NodeId, String)>,
}

/// Why a node does not know the outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Doubt {
    /// The node lost its leadership while the request was under way.
    LeadershipLost,
    /// The time for the request ran out, because no quorum answered in time.
    Timeout,
    /// The node is shutting down.
    ShuttingDown,
}

/// The status that a node reports about itself and its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The id of this node.
    pub id: NodeId,
    /// The name of the cluster that this node is a member of.
    pub cluster: String,
    /// The role of this node.
    pub role: RoleName,
    /// The term of this node.
    pub term: Term,
    /// The leader of this term, as far as the node knows. If the node leads, this is its own id.
    pub leader: Option<NodeId>,
    /// All members of the cluster, by the newest committed list that this node knows: their ids and
    /// their addresses.
    pub members: Vec<(NodeId, String)>,
    /// The members that do not vote.
    pub learners: Vec<NodeId>,
    /// The members from which this node, if it leads, has heard within an election timeout. The
    /// list includes the leader itself, and is empty at every other node.
    pub active: Vec<NodeId>,
    /// The highest index that this node knows to be committed.
    pub commit: Index,
    /// The highest index that the state machine has applied.
    pub applied: Index,
    /// The index of the last entry in the log.
    pub last_index: Index,
    /// The index of the first log entry that is in memory. Earlier entries are covered by a
    /// snapshot, or all members have them. If no entry is in memory, this is one more than
    /// `last_index`.
    pub first_index: Index,
    /// How many bytes the log takes on disk.
    pub log_bytes: u64,
    /// The last index that the newest snapshot covers; 0 without a snapshot.
    pub snapshot_index: Index,
    /// The length of the newest snapshot's file in bytes.
    pub snapshot_bytes: u64,
    /// How long ago the newest snapshot was taken, in milliseconds, by this node's clock.
    pub snapshot_age_ms: u64,
    /// The snapshots that this node, if it leads, is sending to followers: to which node, how many
    /// bytes have arrived there, and how many bytes the snapshot has.
    pub sending: Vec<(NodeId, u64, u64)>,
    /// How long the node has been running, in milliseconds.
    pub uptime_ms: u64,
    /// Numbers that the state machine reports about itself, such as how many keys and sessions it
    /// has.
    pub gauges: Vec<(String, u64)>,
    /// Whether a snapshot is being written, or is about to be. If not, and `snapshot_index` is
    /// lower than an [`Answer::Snapshot`] has announced, writing that snapshot has failed.
    pub snapshot_pending: bool,
    /// How many bytes of the snapshot that is being written are written so far; 0 if none is being
    /// written.
    pub snapshot_written: u64,
    /// How long each stage of a command's way through the node has taken in the last 10 to 20
    /// seconds. The stages are in the order in which a command passes them.
    pub stages: Vec<Stage>,
    /// How the node's disk is.
    pub disk: DiskStatus,
}

/// How the disk of a node is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStatus {
    /// How long the present write of the log has been under way, in milliseconds, counted in ticks;
    /// 0 if none is, or it has just begun.
    pub write_ms: u64,
    /// Why the log cannot grow; `None` while there is space.
    pub no_space: Option<String>,
    /// How many bytes of the log and of snapshots have been read again and verified since the node
    /// started.
    pub verified_bytes: u64,
    /// How many times all of the log and all snapshots have been verified since the node started.
    pub verified_times: u64,
    /// The damage that was found in them, with its file and offset; `None` if none was.
    pub damage: Option<String>,
}

/// How long one stage of a command's way through the node has taken lately. The time is measured
/// once for each batch: the commands that are written, sent or executed together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// The name of the stage, such as "sync".
    pub name: String,
    /// How many batches have passed the stage. If there were none, all times are 0.
    pub count: u64,
    /// The median time that a batch took, in nanoseconds.
    pub p50_ns: u64,
    /// The 99th percentile of the time that a batch took, in nanoseconds.
    pub p99_ns: u64,
    /// The longest time that a batch took, in nanoseconds.
    pub max_ns: u64,
}
