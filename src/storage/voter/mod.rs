//! The node as a voter: who votes, how the node voted, and whether its vote counts.
//!
//! This module keeps four small files. Each is replaced or changed as a whole, so that a crash
//! leaves the old contents or the new ones:
//!
//! | file | what it keeps | specified in |
//! | --- | --- | --- |
//! | `identity` | which cluster, node and state machine the folder belongs to | [`identity`] |
//! | `vote` | the node's term, and the candidate that the node voted for in that term | [`vote`] |
//! | `peers` | the folders of the other nodes, and whether this node's own folder is admitted | [`peers`] |
//! | `members` | the members of the cluster and their addresses; decides nothing | [`members`] |
//!
//! # Invariants
//!
//! 1. A node never votes twice in a term. Its term and vote are durable before the vote is sent,
//!    and a node whose vote file cannot be read does not start.
//! 2. A folder belongs to one node for good. The other files in the folder, except snapshots, name
//!    this node as well.
//! 3. Two folders of the same node never both count towards a majority.

pub(super) mod identity;
pub(super) mod members;
pub(super) mod peers;
pub(super) mod vote;

pub use identity::Identity;
pub use members::AddressBook;
pub use peers::{Acquaintance, Grounds, Peers, may_witness, welcomes_needed};
