//! The interface between the replicated log and a state machine: a program that implements it can
//! replicate any deterministic machine.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::raft::Index;

/// Tells whether a command may enter the log. Many threads call it, and it has no access to the
/// state, so it judges only the form of the command and not what the command would do.
///
/// The error is a sentence for the person who sent the command.
pub type Gate = Arc<dyn Fn(&[u8]) -> Result<(), String> + Send + Sync>;

/// A deterministic state machine that the cluster replicates.
///
/// Every replica applies the same commands at the same indexes, so [`apply`](Self::apply) must
/// depend on nothing but the state, the command and [`At`]: no clock, no random number, no
/// iteration over an unordered map.
pub trait StateMachine: Send + 'static {
    /// The machine's answer to a command or a query, which is sent to the client. Cheap to clone.
    type Reply: Clone + Send + 'static;

    /// A copy of the state at one moment. A snapshot is written from it while the machine goes on.
    /// A copy must be made in O(1), however large the state is: no command is executed while it is
    /// made.
    type Snapshot: Send + 'static;

    /// Whether each command and each query takes microseconds and never waits for anything. If so,
    /// the thread that has committed a command executes it, without waking the apply thread. That
    /// thread also answers heartbeats or writes the log: a slow machine that sets `QUICK` delays
    /// both, and may cost the leader its leadership.
    const QUICK: bool = false;

    /// The name of the kind of machine, and each setting that its results depend on. Replicas that
    /// differ in these would diverge. So two nodes with different identities refuse to talk to each
    /// other, and a node does not start with a machine whose identity differs from the one that its
    /// data folder was made with.
    fn identity(&self) -> String;

    /// Returns the check that every command must pass before it enters the log.
    fn gate(&self) -> Gate;

    /// Executes a committed command. The node calls this once for each command, in log order, on
    /// every replica.
    fn apply(&mut self, at: At, command: &Bytes) -> Self::Reply;

    /// Answers a query from the present state without changing it. The node calls this only when
    /// the state is known to hold every write that was acknowledged before the query came. The
    /// bytes come from a client unchecked.
    fn query(&self, query: &Bytes) -> Self::Reply;

    /// Like [`query`](Self::query), but returns `None` if the answer would [weigh](Self::weight)
    /// more than `room`. The machine must find that out without gathering much more than `room`:
    /// the thread that asks answers heartbeats, and leaves a query with a large answer to the apply
    /// thread. The default is for a machine whose answers are all small.
    fn query_within(&self, query: &Bytes, room: usize) -> Option<Self::Reply> {
        let _ = room;
        Some(self.query(query))
    }

    /// About how much work it is to gather, to encode and to send a reply, in bytes. The node
    /// answers waiting queries one after the other, and lets other work come in between when the
    /// sum of their weights has reached a limit.
    fn weight(reply: &Self::Reply) -> usize {
        let _ = reply;
        0
    }

    /// Appends a reply to `out`, in the form in which it is sent to the client.
    fn encode_reply(reply: &Self::Reply, out: &mut Vec<u8>);

    /// Returns a copy of the present state, made in O(1).
    fn snapshot(&self) -> Self::Snapshot;

    /// Writes the whole state. Equal states give equal bytes. The state is streamed, so writing it
    /// does not take the memory for a second copy.
    ///
    /// # Errors
    /// Only an error that `out` returns.
    fn write_snapshot(snapshot: &Self::Snapshot, out: &mut dyn io::Write) -> io::Result<()>;

    /// Makes a machine with the settings of this one and the state that
    /// [`write_snapshot`](Self::write_snapshot) wrote. The state must take up all of `input`. The
    /// new machine has the same digest as the one from which the snapshot was taken.
    ///
    /// # Errors
    /// An error that `input` returns, or [`io::ErrorKind::InvalidData`] with a sentence if the
    /// bytes are no state of this machine.
    fn restore(&self, input: &mut dyn io::Read) -> io::Result<Self>
    where
        Self: Sized;

    /// A hash over the whole state: equal on all replicas that applied the same entries.
    fn digest(&self) -> u64;

    /// Named counters for the status of a node, such as the number of keys.
    fn gauges(&self) -> Vec<(&'static str, u64)>;
}

/// The index of a command in the log, and the cluster time at which it was proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// The index of the log entry that holds the command.
    pub index: Index,
    /// The cluster time that the leader wrote into the entry, in milliseconds. Never lower than
    /// that of an earlier entry.
    pub time_ms: u64,
}
