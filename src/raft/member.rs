//! One member of a configuration.

use serde::{Deserialize, Serialize};

use super::types::{FolderId, NodeId};

/// What a member weighs besides its address: its id, folder, role and the lengths in between.
const MEMBER_WEIGHT: usize = 40;

/// What a member is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum MemberRole {
    /// Counts in elections and for commits.
    Voter,
    /// Receives the log and counts for nothing.
    Learner,
    /// Receives the log, counts for nothing, and is to become a voter once it has caught up. It
    /// stands in the log that it is to, so that every leader goes on with it.
    Joining,
}

/// One member of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The node.
    pub id: NodeId,
    /// The folder that counts under this id. `None` in the configuration that a cluster is founded
    /// with: each folder of the node that was admitted. `None` in a logged configuration is an
    /// *empty seat*: a voter that never says yes, whatever folder answers under its id.
    pub folder: Option<FolderId>,
    /// Where the others and clients reach it, `host:port`.
    pub address: String,
    /// What it is for.
    pub role: MemberRole,
}

impl Member {
    /// Whether it is to vote, now or once it has caught up.
    pub fn is_to_vote(&self) -> bool {
        self.role != MemberRole::Learner
    }

    pub(super) fn weight(&self) -> usize {
        MEMBER_WEIGHT + self.address.len()
    }
}
