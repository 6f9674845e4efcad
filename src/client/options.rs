//! The options of a Clerk, and its counters.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The settings of a [`Clerk`](super::Clerk).
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a call may take, all attempts included. After that time it ends with an error.
    pub deadline: Duration,
    /// How long a server may take to answer before the next server is asked. If a server lets this
    /// time pass, the later attempts of the call wait twice as long, so that a slow cluster does
    /// not get ever more copies of the same requests.
    pub attempt_timeout: Duration,
    /// The name of the cluster that must answer. Empty means any cluster, but all servers must
    /// belong to the cluster of the first one that answers.
    pub cluster: String,
    /// The seed of the jitter in the pauses between rounds. The default is drawn at random.
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

/// Counters of a [`Clerk`](super::Clerk), from when it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// How many calls have begun. Opening a session counts as a call.
    pub calls: u64,
    /// How many requests were handed to the transport; a call makes one or more.
    pub attempts: u64,
    /// How many of these attempts were not the first of their call.
    pub retries: u64,
    /// How many attempts sent a write again although an earlier copy might have been executed. The
    /// session keeps these from executing the write twice.
    pub repeats_in_doubt: u64,
    /// How many changes of leader this client has noticed: how often the server that answered as
    /// the leader was another one than the time before.
    pub leader_changes: u64,
    /// How many sessions this Clerk has opened.
    pub sessions: u64,
}
