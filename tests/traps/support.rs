//! What these tests have in common.

use std::time::{Duration, Instant};

use bytes::Bytes;
use raftkv::kv::{Command, Kv, Op, Query, Reply, SessionId};
use raftkv::machine::StateMachine;
use raftkv::node::{Handle, Outcome};
use raftkv::raft::{Message, NodeId};
use raftkv::testkit::{Cluster, Journal, Recorder};

/// Longer than anything here takes on a slow machine, unless it never ends.
pub const LONG: Duration = Duration::from_secs(20);

/// A cluster of recorders, and their journal.
pub fn recorders(size: u64) -> (Cluster<Recorder>, Journal) {
    let journal = Journal::default();
    let machines = journal.clone();
    let cluster = Cluster::start(size, move || machines.machine());
    (cluster, journal)
}

/// All nodes but this one.
pub fn others<S: StateMachine>(cluster: &Cluster<S>, id: NodeId) -> Vec<NodeId> {
    cluster.ids().filter(|other| *other != id).collect()
}

/// Loses every acknowledgement of entries that come from now on: followers get them, but none is
/// committed. All else passes, so the leader remains.
pub fn hold_back_commits<S: StateMachine>(cluster: &Cluster<S>) {
    let present = cluster.ids().map(|id| cluster.node(id).status().last_index);
    let present = present.max().unwrap_or(0);
    cluster.network().set_filter(move |envelope| {
        !matches!(envelope.message, Message::Accepted { matched } if matched > present)
    });
}

/// Waits for a leader among these nodes that has committed an entry of its term.
pub fn wait_for_leader_among<S: StateMachine>(cluster: &Cluster<S>, ids: &[NodeId]) -> NodeId {
    cluster.wait_for("a leader among some", |cluster| {
        let leads = |id: &&NodeId| cluster.node(**id).wait_until(Duration::ZERO, is_settled);
        ids.iter().find(leads).copied()
    })
}

fn is_settled(raft: &raftkv::raft::Raft) -> bool {
    raft.role() == raftkv::raft::RoleName::Leader
        && raft.term_at(raft.commit()) == Some(raft.term())
}

/// An operation as the command of a session.
pub fn execute(session: SessionId, seq: u64, lowest_unanswered: u64, op: Op) -> Bytes {
    Command::Execute {
        session,
        seq,
        lowest_unanswered,
        op,
    }
    .to_bytes()
}

pub fn append(key: &str, value: &str) -> Op {
    Op::Append {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
    }
}

/// Submits a command to one node and returns the reply.
pub fn submit(node: &Handle<Kv>, command: &Bytes) -> Reply {
    let pending = node.start(command.clone(), LONG);
    let pending = pending.unwrap_or_else(|end| panic!("refused: {end:?}"));
    match pending.wait(LONG) {
        Outcome::Reply(reply) => reply,
        other => panic!("{other:?} instead of a reply"),
    }
}

pub fn open_session(node: &Handle<Kv>) -> SessionId {
    match submit(node, &Command::OpenSession.to_bytes()) {
        Reply::Opened(session) => session,
        other => panic!("{other:?} instead of a session"),
    }
}

/// A get in the form of a question that does not enter the log.
pub fn get(key: &str) -> Bytes {
    let key = Bytes::copy_from_slice(key.as_bytes());
    Query::Get { key }.to_bytes()
}

/// Asserts that something ends within its deadline, with time to spare for a busy machine.
#[track_caller]
pub fn within<T>(deadline: Duration, act: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = act();
    let (took, most) = (started.elapsed(), deadline + Duration::from_secs(3));
    assert!(
        took < most,
        "took {took:?} where {deadline:?} was the deadline"
    );
    result
}
