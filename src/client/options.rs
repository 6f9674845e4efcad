//! The options of a Clerk, and its counters.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// How a [`Clerk`](super::Clerk) behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a call may take, from its start. Then it ends with an error.
    pub deadline: Duration,
    /// How long a server may take to answer before the next one is asked. Within a call it doubles
    /// each time that a server takes all of it, so that a slow cluster does not get ever more
    /// copies of the same requests.
    pub attempt_timeout: Duration,
    /// The name of the cluster that must answer. Empty means any, but all servers must belong to
    /// the cluster of the first one that answers.
    pub cluster: String,
    /// The seed of the jitter in the pauses between rounds. Random by default.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            deadline: Duration::from_secs(10),
            attempt_timeout: Duration::from_secs(1),
            cluster: String::new(),
            seed: RandomState::new().hash_one(0),
        }
    }
}

/// What a [`Clerk`](super::Clerk) has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Calls that have begun. Opening a session counts as one.
    pub calls: u64,
    /// Requests handed to the transport; a call makes one or more.
    pub attempts: u64,
    /// Attempts that were not the first of their call.
    pub retries: u64,
    /// Attempts that sent a write again which might already have been executed. Without a session,
    /// these could execute a write twice.
    pub repeats_in_doubt: u64,
    /// How often a server answered as the leader that was not the one before.
    pub leader_changes: u64,
    /// Sessions opened.
    pub sessions: u64,
}
