//! Why a node refuses a command or a read.

use super::configuration::{MAX_CONFIGURATION_WEIGHT, MAX_VOTERS};
use super::types::{Index, NodeId};

/// Why a command was not appended. It will not be executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This node does not lead.
    #[error("this node does not lead")]
    NotLeader,
    /// Too much is uncommitted, or leadership is being transferred.
    #[error("too much is under way")]
    Busy,
}

/// Why a read was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// This node does not lead.
    #[error("this node does not lead")]
    NotLeader,
    /// Too many reads wait to be confirmed.
    #[error("too many reads are under way")]
    Busy,
}

/// Why a change of members is not made. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// This node does not lead.
    #[error("this node does not lead")]
    NotLeader,
    /// The leader has not committed an entry of its term yet, leadership is being handed over, or
    /// the folders of the founders are not in the log yet.
    #[error("the leader cannot change members at this moment: try again")]
    Busy,
    /// This leader would lose its vote: another node takes over first, and makes the change.
    #[error("leadership is handed to node {to}, which makes the change: try again")]
    HandingOver {
        /// Who takes over.
        to: NodeId,
    },
    /// Another change is not done yet.
    #[error(
        "a change of members is under way since entry {index}; `kvcli member list` shows what it \
         waits for"
    )]
    UnderWay {
        /// The index of the configuration in force.
        index: Index,
        /// Whether it is a joint one.
        joint: bool,
    },
    /// The id belongs to a member.
    #[error(
        "node {id} is a member already, at {address}; to give it a new folder use \
         `member replace {id}`"
    )]
    AlreadyMember {
        /// The member.
        id: NodeId,
        /// Its address.
        address: String,
    },
    /// The id belongs to nobody.
    #[error("node {0} is no member")]
    NotMember(NodeId),
    /// Nobody would be left who votes.
    #[error("node {0} is the only voter: add another one first")]
    LastVoter(NodeId),
    /// More voters than a cluster may have.
    #[error("a cluster has at most {MAX_VOTERS} voters: add it with --learner")]
    TooManyVoters,
    /// The configuration would not fit into the header of a snapshot.
    #[error("the addresses are too long: {weight} of {MAX_CONFIGURATION_WEIGHT} bytes")]
    TooLarge {
        /// What the largest configuration on the way would weigh.
        weight: usize,
    },
    /// Two members would have one address.
    #[error("{address} is the address of node {by}: move that one first")]
    AddressTaken {
        /// The address.
        address: String,
        /// Whose it is.
        by: NodeId,
    },
    /// The folder at a member's new address is not the member's.
    #[error(
        "at {address} node {id} answers with another data folder: to let it take the place of its \
         former one use `member replace {id}`"
    )]
    OtherFolder {
        /// The member.
        id: NodeId,
        /// Where it answers.
        address: String,
    },
    /// The folder that is to be replaced still answers.
    #[error(
        "node {id} answers at {address} with its own folder (heard {heard_ms} ms ago), and \
         another one asks for its place at {new_address}: stop one of the two. If one is stopped \
         already, ask again in a second"
    )]
    StillAlive {
        /// The member.
        id: NodeId,
        /// Where the folder that counts answers.
        address: String,
        /// How long ago it has answered, in milliseconds of cluster time.
        heard_ms: u64,
        /// Where the new one is.
        new_address: String,
    },
    /// The voters after the change could decide nothing.
    #[error(
        "of the {voters} voters that there would be only {live} answer: start the others, or \
         repeat it with --force"
    )]
    NoLiveMajority {
        /// How many voters there would be.
        voters: usize,
        /// How many of them answer the leader.
        live: usize,
    },
}
