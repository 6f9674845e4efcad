//! The messages about the members of a cluster: lists, changes, reports.

use serde::{Deserialize, Serialize};

use crate::raft::{FolderId, Index, LoggedConfiguration, MemberRole, NodeId, Term};

/// The members of a cluster, as a server tells its clients: whom they can ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberList {
    /// The index of the committed configuration that the list is made of. Of two lists of one
    /// lineage the one with the greater index is the newer one.
    pub index: Index,
    /// The lineage of the cluster: a random number that was drawn when it was founded. Lists of
    /// another lineage are of another cluster, even if it has the same name.
    pub lineage: u64,
    /// The members: their ids and their addresses.
    pub members: Vec<(NodeId, String)>,
}

/// A change of members that an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChangeRequest {
    /// A node comes in.
    Add {
        /// The id of the new node.
        id: NodeId,
        /// Where it is reached, as `host:port`.
        address: String,
        /// [`MemberRole::Voter`] or [`MemberRole::Joining`]: it votes as soon as it has caught up;
        /// [`MemberRole::Learner`]: it does not.
        role: MemberRole,
    },
    /// A learner is to vote as soon as it has caught up.
    Promote(NodeId),
    /// A voter is to vote no longer.
    Demote(NodeId),
    /// A member goes.
    Remove(NodeId),
    /// A node with another data folder takes the place of a member.
    Replace {
        /// The member.
        id: NodeId,
        /// Where the new node is reached; `None`: where the old one was.
        address: Option<String>,
    },
    /// A member is reached at another address from now on.
    Move {
        /// The member.
        id: NodeId,
        /// The new address, as `host:port`.
        address: String,
    },
}

/// A node asks to be let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The id of the node.
    pub id: NodeId,
    /// The random number of its data folder.
    pub folder: FolderId,
    /// Where it is reached, as `host:port`.
    pub address: String,
    /// What it is to become if its id is new. A node that takes its former place becomes what it
    /// was.
    pub role: MemberRole,
    /// Whether the node only wants back the place that its id has. If its id has none any more it
    /// was removed, and does not come in again by itself: only a node that an operator told to join
    /// is added.
    pub only_back: bool,
}

/// What a node knows of the members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembersReport {
    /// The node that reports.
    pub id: NodeId,
    /// The leader that it follows or, if it leads, itself.
    pub leader: Option<NodeId>,
    /// Its term.
    pub term: Term,
    /// The highest index that it knows to be committed.
    pub commit: Index,
    /// The last index of its log.
    pub last_index: Index,
    /// The configuration in force, committed or not.
    pub configuration: LoggedConfiguration,
    /// The index of the newest committed configuration.
    pub committed: Index,
    /// What a change that is under way waits for, as a sentence.
    pub blocker: Option<String>,
    /// How far each other member is. Empty at a node that does not lead.
    pub members: Vec<MemberReport>,
}

/// How far a member is, as its leader knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberReport {
    /// The member.
    pub id: NodeId,
    /// The folder that the leader follows.
    pub folder: Option<FolderId>,
    /// The member's log is on its disk up to here.
    pub matched: Index,
    /// How long the member has not answered, in milliseconds, counted from the begin of the
    /// leader's office at the earliest.
    pub silent_ms: u64,
    /// The snapshot that it is being sent: how many bytes have arrived, of how many.
    pub snapshot: Option<(u64, u64)>,
    /// The round in which it catches up, if it is to become a voter; `None` too if it is too slow
    /// for that and the leader lets it rest.
    pub round: Option<u32>,
    /// Whether it has left, and is only told so.
    pub is_departing: bool,
}
