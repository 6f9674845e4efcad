//! The Raft consensus algorithm, pure.

pub mod membership;
mod message;
mod types;

pub use membership::{Membership, VoteResult};
pub use message::{Conflict, Envelope, Message};
pub use types::{
    Entry, EntryId, HardState, Index, NodeId, Payload, ReadId, RoleName, Term, Write, WriteId,
};
