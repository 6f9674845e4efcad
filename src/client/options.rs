//! What can be set about a Clerk, and what it counts.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// How a [`Clerk`](super::Clerk) behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// When a call gives up, counted from its start.
    pub deadline: Duration,
    /// How long one server may take before the next is asked. It doubles, within a call, each
    /// time that a server uses it up, so that a slow cluster is not drowned in
    /// repeats.
    pub attempt_timeout: Duration,
    /// The name of the cluster that must answer. Empty: any, but then all servers must belong to
    /// the one that answers first.
    pub cluster: String,
    /// Seeds the jitter of the pauses between attempts. Random by default.
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
    /// Calls begun, whatever became of them. Opening a session counts as one.
    pub calls: u64,
    /// Requests handed to the transport.
    pub attempts: u64,
    /// Attempts that were not their call's first.
    pub retries: u64,
    /// Attempts that repeated a write which may already have been executed: the ones that the
    /// session turns from duplicates into repeats of the first answer.
    pub repeats_in_doubt: u64,
    /// How often another server answered as the leader than the last time.
    pub leader_changes: u64,
    /// Sessions opened.
    pub sessions: u64,
}
