//! The contract between the replicated log and what it replicates.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::raft::Index;

/// Tells whether a command may enter the log. Called from many threads and without the state
/// machine at hand, so it can judge the command's form only, not what it would do.
///
/// The error is a sentence for the person who sent the command.
pub type Gate = Arc<dyn Fn(&[u8]) -> Result<(), String> + Send + Sync>;

/// A deterministic state machine that the cluster replicates.
///
/// Every replica applies the same commands at the same indexes, so [`apply`](Self::apply) must
/// depend on nothing but the state, the command and [`At`]: no clock, no random number, no
/// iteration over an unordered map.
pub trait StateMachine: Send + 'static {
    /// What a command or a query answers. Cheap to clone.
    type Reply: Clone + Send + 'static;

    /// A copy of the state at one moment, from which a snapshot is written while the machine goes
    /// on. To make one must be quick, whatever the size of the state: an O(1) clone.
    type Snapshot: Send + 'static;

    /// Whether a command or a query takes microseconds and never waits for anything. Then it is
    /// executed by whichever thread of the node has committed it, without the detour over the
    /// apply thread: a thread that also has to answer heartbeats, or to write the log.
    const QUICK: bool = false;

    /// Names the kind of machine and every setting that its results depend on. Two nodes whose
    /// identities differ refuse to talk to each other, and a data folder refuses a machine with
    /// another identity than the one that it was made with.
    fn identity(&self) -> String;

    /// The check that every command passes before it enters the log.
    fn gate(&self) -> Gate;

    /// Executes a committed command. Called once for each, in log order, on every replica.
    fn apply(&mut self, at: At, command: &Bytes) -> Self::Reply;

    /// Answers a question from the present state without changing it. The node calls this only
    /// once the state is known to be current. The bytes come from a client unchecked.
    fn query(&self, query: &Bytes) -> Self::Reply;

    /// As [`query`](Self::query); but `None` if the answer would [weigh](Self::weight) more than
    /// `room`, which is to be found out without gathering much more than that. So a question with a
    /// large answer keeps nobody waiting who is short of time. As it is here: for a machine whose
    /// answers are all small.
    fn query_within(&self, query: &Bytes, room: usize) -> Option<Self::Reply> {
        let _ = room;
        Some(self.query(query))
    }

    /// About how much work it is to gather a reply, to write it and to send it, in bytes. The node
    /// bounds by this what it answers at a time.
    fn weight(reply: &Self::Reply) -> usize {
        let _ = reply;
        0
    }

    /// Writes a reply in the form that travels to the client.
    fn encode_reply(reply: &Self::Reply, out: &mut Vec<u8>);

    /// The state as it is now.
    fn snapshot(&self) -> Self::Snapshot;

    /// Writes the whole state. Equal states give equal bytes; the state is streamed, so that
    /// writing it does not take its size in memory a second time.
    ///
    /// # Errors
    /// Only what `out` returns.
    fn write_snapshot(snapshot: &Self::Snapshot, out: &mut dyn io::Write) -> io::Result<()>;

    /// A machine with the settings of this one and the state that was written. All of `input` is
    /// the state; a machine restored from it has the digest of the one that it was taken from.
    ///
    /// # Errors
    /// What `input` returns, or [`io::ErrorKind::InvalidData`] with a sentence if the bytes are no
    /// state of this machine.
    fn restore(&self, input: &mut dyn io::Read) -> io::Result<Self>
    where
        Self: Sized;

    /// A hash over the whole state: equal on all replicas that applied the same entries.
    fn digest(&self) -> u64;

    /// Named counters for the status of a node, such as the number of keys.
    fn gauges(&self) -> Vec<(&'static str, u64)>;
}

/// Where in the log, and when in cluster time, a command is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// The index of the command's entry.
    pub index: Index,
    /// The cluster time that the leader wrote into the entry, in milliseconds. Never goes back.
    pub time_ms: u64,
}
