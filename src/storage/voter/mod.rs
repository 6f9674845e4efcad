//! The node as a voter: who votes, how it voted, and whether its vote counts.
//!
//! It keeps three small files, each of which is replaced or changed as a whole, so that a crash
//! leaves the old contents or the new ones:
//!
//! | file | what it keeps | specified in |
//! | --- | --- | --- |
//! | `identity` | which cluster, node and state machine the folder belongs to | [`identity`] |
//! | `vote` | the node's term, and the candidate it voted for in that term | [`vote`] |
//! | `peers` | the folders of the other nodes, and whether this node's own folder is admitted | [`peers`] |
//!
//! # Invariants
//!
//! 1. A node never votes twice in a term: its term and vote are durable before the vote leaves,
//!    and if the file cannot be read the node does not start.
//! 2. A folder belongs to one node for good. Every other file in the folder repeats whose it is.
//! 3. Two folders of one node never both count towards a majority.

pub(super) mod identity;
pub(super) mod peers;
pub(super) mod vote;

pub use identity::Identity;
pub use peers::{Acquaintance, Peers, welcomes_needed};
