//! The contract between the replicated log and the state machine that it replicates.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::raft::Index;

/// Tells whether a command may enter the log. It is called from many threads, and has no access to
/// the state. So it judges the form of the command only, not what the command would do.
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

    /// A copy of the state at one moment. A snapshot is written from it while the machine goes on.
    /// A copy must be made in O(1), however large the state is: no command is executed meanwhile.
    type Snapshot: Send + 'static;

    /// Whether each command and each query takes microseconds and never waits for anything. If so,
    /// the thread that has committed a command executes it, without waking the apply thread. That
    /// thread also answers heartbeats or writes the log: a machine that says so wrongly delays
    /// both, and may cost the leader its leadership.
    const QUICK: bool = false;

    /// The name of the kind of machine, and each setting that its results depend on. Replicas that
    /// differ in these would diverge. So two nodes with different identities refuse to talk to each
    /// other, and a data folder refuses a machine whose identity differs from the one that the
    /// folder was made with.
    fn identity(&self) -> String;

    /// The check that every command passes before it enters the log.
    fn gate(&self) -> Gate;

    /// Executes a committed command. Called once for each, in log order, on every replica.
    fn apply(&mut self, at: At, command: &Bytes) -> Self::Reply;

    /// Answers a question from the present state without changing it. The node calls this only when
    /// the state is known to hold every write that was acknowledged before the question came. The
    /// bytes come from a client unchecked.
    fn query(&self, query: &Bytes) -> Self::Reply;

    /// As [`query`](Self::query), but `None` if the answer would [weigh](Self::weight) more than
    /// `room`. The machine must find that out without gathering much more than `room`: the thread
    /// that asks answers heartbeats, and leaves a question with a large answer to the apply thread.
    /// The default is for a machine whose answers are all small.
    fn query_within(&self, query: &Bytes, room: usize) -> Option<Self::Reply> {
        let _ = room;
        Some(self.query(query))
    }

    /// How much work a reply is to gather, to encode and to send, as a number of bytes. The node
    /// bounds by this how much it answers at a time.
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

    /// A machine with the settings of this one and the state that
    /// [`write_snapshot`](Self::write_snapshot) wrote. All of `input` is the state. The new machine
    /// has the same digest as the one from which the copy was made.
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

/// Where in the log a command stands, and when in cluster time it was proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// The index of the command's entry.
    pub index: Index,
    /// The cluster time that the leader wrote into the entry, in milliseconds. Never goes back.
    pub time_ms: u64,
}
