//! Changes of role, term or leader, for the operator who reads a node's diagnostic log, and the
//! faults that stop a node.

use std::fmt;

use super::configuration::LoggedConfiguration;
use super::types::{Index, NodeId, RoleName, Term};

/// A change of role, term or leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The role after the change.
    pub role: RoleName,
    /// The term after the change.
    pub term: Term,
    /// The leader after the change, as far as this node knows; this node itself if it leads.
    pub leader: Option<NodeId>,
    /// What brought the change about.
    pub reason: Reason,
}

/// Why a role, a term or a leader changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No leader was heard before the election timer ran out.
    NoLeaderHeard,
    /// Nobody listens at the address of the leader.
    LeaderAbsent,
    /// A quorum would vote for this node, or it is the only voter.
    PreVoteWon,
    /// A quorum voted for this node.
    VotesWon,
    /// A quorum would not vote, or did not vote, for this node.
    VotesLost,
    /// Votes or pre-votes were still undecided when the election timer ran out again.
    VotesMissing,
    /// A message came from a node of a higher term.
    HigherTerm {
        /// The node that sent the message.
        from: NodeId,
    },
    /// A message of the leader came.
    LeaderHeard,
    /// No quorum of voters has answered this leader for an election timeout (thesis 6.2).
    QuorumSilent,
    /// The leader asked this node to take over (thesis 3.10).
    AskedToLead,
    /// A committed change of members has taken this leader's vote (thesis 4.2.2).
    VoteTaken,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::NoLeaderHeard => f.write_str("no leader heard for an election timeout"),
            Reason::LeaderAbsent => f.write_str("nobody listens at the address of the leader"),
            Reason::PreVoteWon => f.write_str("a quorum would vote for this node"),
            Reason::VotesWon => f.write_str("a quorum voted for this node"),
            Reason::VotesLost => f.write_str("a quorum refused its vote"),
            Reason::VotesMissing => f.write_str("no quorum answered the candidate in time"),
            Reason::HigherTerm { from } => write!(f, "node {from} is in a higher term"),
            Reason::LeaderHeard => f.write_str("the leader of the term was heard"),
            Reason::QuorumSilent => f.write_str("no quorum answered for an election timeout"),
            Reason::VoteTaken => f.write_str("a change of members has taken this leader's vote"),
            Reason::AskedToLead => f.write_str("the leader asked this node to take over"),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in term {}", self.role, self.term)?;
        match self.leader {
            Some(leader) if self.role == RoleName::Follower => write!(f, " of node {leader}")?,
            _ => {}
        }
        write!(f, ": {}", self.reason)
    }
}

/// What happened to the members of the cluster, as far as this node knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigurationEvent {
    /// A message came for another folder of this node. Reported once for each sender.
    WrongFolder {
        /// Who sent it.
        from: NodeId,
    },
    /// Another configuration is in force: its entry has come into the log, or a snapshot.
    InForce(LoggedConfiguration),
    /// The configuration in force is an earlier one again: the entry of the later one was replaced.
    TakenBack(LoggedConfiguration),
    /// The configuration at this index is committed.
    Committed(Index),
    /// A member that is to become a voter needs another round to catch up.
    Round {
        /// The member.
        id: NodeId,
        /// The round that begins.
        round: u32,
        /// How many entries it lacks.
        behind: u64,
    },
    /// A member that is to become a voter does not catch up. It is tried again after a while.
    TooSlow {
        /// The member.
        id: NodeId,
    },
    /// A committed configuration does not have this node with this folder any more.
    Removed,
    /// Leadership is handed over, because a change of members takes this leader's vote.
    HandingOver {
        /// Who is to take over.
        to: NodeId,
    },
}

impl fmt::Display for ConfigurationEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigurationEvent::WrongFolder { from } => write!(
                f,
                "node {from} speaks to this node as it was with another data folder: it is not \
                 answered"
            ),
            ConfigurationEvent::InForce(LoggedConfiguration {
                index,
                configuration,
            }) => write!(f, "since entry {index} the members are {configuration}"),
            ConfigurationEvent::TakenBack(LoggedConfiguration {
                index,
                configuration,
            }) => write!(
                f,
                "a change of members was taken back: those of entry {index} count again, \
                 {configuration}"
            ),
            ConfigurationEvent::Committed(index) => {
                write!(f, "the members of entry {index} are committed")
            }
            ConfigurationEvent::Round { id, round, behind } => write!(
                f,
                "node {id} catches up: round {round}, {behind} entries to come"
            ),
            ConfigurationEvent::TooSlow { id } => write!(
                f,
                "node {id} is too slow to become a voter at present; it is tried again after a \
                 while"
            ),
            ConfigurationEvent::Removed => {
                f.write_str("this node with this data folder is no member of the cluster any more")
            }
            ConfigurationEvent::HandingOver { to } => write!(
                f,
                "leadership is handed to node {to}, because this node is to lose its vote"
            ),
        }
    }
}

/// Proof that the cluster's promises are broken, by a disk or by a faulty node. The node must stop:
/// to go on could make it worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The leader holds this node's acknowledgement for entries that this node's log does not have.
    #[error(
        "this node acknowledged the log up to {acknowledged} but holds it up to {last} only: its \
         disk lost writes that it had reported as synced. Check the disk, and do not let this \
         data folder vote again"
    )]
    AcknowledgedEntriesLost {
        /// The commit index that the leader has sent: never beyond what this node has acknowledged
        /// to it.
        acknowledged: Index,
        /// The last index of this node's log.
        last: Index,
    },
    /// The leader's log contradicts an entry that is committed here.
    #[error(
        "the leader, node {leader}, has another entry at index {index}, which is committed here: \
         a node of this cluster has lost or changed its log. Compare the data folders before any \
         node is started again"
    )]
    CommittedEntryContradicted {
        /// The node that leads the present term.
        leader: NodeId,
        /// The index of the committed entry.
        index: Index,
    },
    /// Two nodes lead the same term.
    #[error(
        "nodes {known} and {other} both lead term {term}: a node has voted twice, as it would if \
         it lost its data folder and came back under the same id"
    )]
    TwoLeaders {
        /// The leader that this node knew.
        known: NodeId,
        /// The other node that acts as the leader of the term.
        other: NodeId,
        /// The term that both lead.
        term: Term,
    },
}
