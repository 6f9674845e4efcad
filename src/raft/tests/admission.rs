//! A node whose data folder is new: before the others have admitted it, no majority counts on it.

use super::harness::{Cluster, PARTS, take_messages, take_write};
use crate::raft::{
    Config, Configuration, Entry, EntryId, Envelope, HardState, LoggedConfiguration, Message,
    NodeId, Payload, Raft, RoleName, SnapshotMeta, StoredSnapshot, Term, WriteId,
};

/// For each size of a cluster, how many other nodes must know a node's folder before the node is
/// admitted. The rule is in `storage/voter/peers.rs`, with a test that names the same numbers.
const NEEDED: [(u64, usize); 4] = [(3, 2), (4, 2), (5, 3), (7, 5)];

/// A cluster, its leader, and a node that came up with a new folder and is not admitted.
fn with_a_new_node(size: u64) -> (Cluster, NodeId, NodeId) {
    let mut cluster = Cluster::founded(size, |config: &mut Config| {
        config.keeps_matched = false;
        config.trailing_bytes = 0;
    });
    let new = size;
    cluster.wipe(new);
    let leader = cluster.elect();
    (cluster, leader, new)
}

/// All nodes except those in `but`.
fn others(cluster: &Cluster, but: &[NodeId]) -> Vec<NodeId> {
    let ids = cluster.nodes.keys().copied();
    ids.filter(|id| !but.contains(id)).collect()
}

/// Cuts off so many nodes that the rest are a majority only together with the new node. Returns the
/// nodes that were cut off.
fn leave_a_majority_with(cluster: &mut Cluster, leader: NodeId, new: NodeId) -> Vec<NodeId> {
    let size = cluster.nodes.len();
    let witnesses = size / 2 + 1 - 2;
    let lagging = others(cluster, &[leader, new]).split_off(witnesses);
    lagging.iter().for_each(|id| cluster.isolate(*id));
    lagging
}

/// The new node has met the leader and nobody else. After the write the new node is wiped and the
/// leader fails, and the nodes that never met the new node's first folder admit its second one.
#[test]
fn what_was_acknowledged_survives_a_new_node_that_loses_its_folder() {
    for (size, needed) in NEEDED {
        let (mut cluster, leader, new) = with_a_new_node(size);
        let lagging = leave_a_majority_with(&mut cluster, leader, new);
        let written = cluster.propose(leader, "e");
        (0..20).for_each(|_| cluster.tick());
        let acknowledged = cluster.node(leader).commit() >= written;

        cluster.wipe(new);
        cluster.crash(leader);
        cluster.heal();
        let never_met_it = others(&cluster, &[leader, new]);
        if never_met_it.len() >= needed {
            cluster.admit(new);
        }
        // One of the lagging nodes asks for votes first. The nodes that hold the entry refuse.
        let first = lagging[0];
        for id in never_met_it {
            cluster.node(id).absent(leader);
        }
        for _ in 0..200 {
            cluster.node(first).tick();
            cluster.settle();
        }
        for _ in 0..200 {
            cluster.tick();
        }
        if let Some(next) = cluster.leader().filter(|_| acknowledged) {
            let executed = cluster.executed(next);
            assert_eq!(
                executed,
                ["e"],
                "{size} nodes: an acknowledged write is gone"
            );
        }
        assert!(
            !acknowledged,
            "{size} nodes: a majority counted a new folder"
        );
    }
}

#[test]
fn a_node_that_is_not_admitted_confirms_no_read_and_keeps_no_leader_in_office() {
    for (size, _) in NEEDED {
        let (mut cluster, leader, new) = with_a_new_node(size);
        leave_a_majority_with(&mut cluster, leader, new);
        cluster.node(leader).read(7).expect("it leads");
        cluster.settle();
        let ready = &cluster.nodes[&leader].decided.ready;
        assert_eq!(*ready, [], "{size} nodes");
        for _ in 0..60 {
            cluster.tick();
        }
        let role = cluster.node(leader).role();
        assert_ne!(role, RoleName::Leader, "{size} nodes: nobody else answers");
    }
}

/// What a node that is not admitted has on its disk is no reason for the others to drop entries
/// from memory: the node could lose its folder, and come back with one that is admitted.
#[test]
fn the_log_in_memory_is_kept_for_a_node_that_is_not_admitted() {
    for (size, _) in NEEDED {
        let (mut cluster, leader, new) = with_a_new_node(size);
        let before = cluster.node(leader).first_index();
        let last = cluster.propose(leader, "e");
        (0..50).for_each(|_| cluster.tick());
        assert!(cluster.node(leader).commit() >= last, "{size} nodes");
        assert_eq!(cluster.node(leader).first_index(), before, "{size} nodes");
        cluster.admit(new);
        cluster.until("all have it", |c| c.executed(new) == ["e"]);
        cluster.until("nobody holds it", |c| c.node(leader).first_index() > last);
    }
}

/// A node answers from the moment of its admission: within a heartbeat it begins to catch up.
#[test]
fn a_node_that_is_admitted_catches_up_at_once_and_counts() {
    for (size, _) in NEEDED {
        let (mut cluster, leader, new) = with_a_new_node(size);
        let lagging = leave_a_majority_with(&mut cluster, leader, new);
        let last = cluster.propose(leader, "e");
        cluster.settle();
        assert!(cluster.node(leader).commit() < last, "{size} nodes");
        cluster.admit(new);
        // The time between two heartbeats, and one tick more.
        (0..6).for_each(|_| cluster.tick());
        assert!(cluster.node(leader).commit() >= last, "{size} nodes");
        assert!(lagging.iter().all(|id| cluster.executed(*id).is_empty()));
        (0..6).for_each(|_| cluster.tick());
        assert_eq!(cluster.executed(new), ["e"], "{size} nodes");
    }
}

/// A core that is not admitted, and to which a test sends one message after the other.
struct Newcomer {
    raft: Raft,
    writes: Vec<WriteId>,
}

impl Newcomer {
    fn new() -> Self {
        let config = Config {
            admitted: false,
            ..Config::new(1, founding(), 1)
        };
        Self {
            raft: Raft::new(config, HardState::default(), Vec::new()),
            writes: Vec::new(),
        }
    }

    /// Hands the core a message of node 2. Its disk takes the write that follows, and reports it
    /// only in [`sync`](Self::sync).
    fn hears(&mut self, term: Term, message: Message) {
        self.raft.step(Envelope {
            from: 2,
            from_folder: 2,
            to: 1,
            // Whose folder nobody knows yet.
            to_folder: None,
            term,
            message,
        });
        self.writes
            .extend(take_write(&mut self.raft).map(|write| write.id));
    }

    /// The disk reports all writes that it was given as durable.
    fn sync(&mut self) {
        for write in self.writes.drain(..) {
            self.raft.durable(write);
        }
    }

    /// The messages that the core sends now.
    fn says(&mut self) -> Vec<Message> {
        let envelopes = take_messages(&mut self.raft).into_iter();
        envelopes.map(|envelope| envelope.message).collect()
    }
}

fn append(term: Term) -> Message {
    let id = EntryId { term, index: 1 };
    Message::Append {
        prev: EntryId::ZERO,
        entries: vec![Entry {
            id,
            time_ms: 0,
            payload: Payload::Command("a".into()),
        }],
        commit: 0,
    }
}

fn heartbeat() -> Message {
    Message::Heartbeat {
        commit: 0,
        matched_by_all: 0,
        round: 3,
    }
}

/// What all nodes are told: five voters.
fn founding() -> Configuration {
    Configuration::founding((1..=5).map(|id| (id, format!("node-{id}"))))
}

fn snapshot(term: Term) -> StoredSnapshot {
    let meta = SnapshotMeta {
        last: EntryId { term, index: 9 },
        time_ms: 0,
        configuration: LoggedConfiguration::founding(founding()),
    };
    StoredSnapshot { meta, bytes: 10 }
}

#[test]
fn a_node_that_is_not_admitted_takes_in_all_and_says_only_that_a_term_has_passed() {
    let mut new = Newcomer::new();
    let last = EntryId { term: 3, index: 9 };
    let vote = |transfer| Message::Vote { last, transfer };
    let pre_vote = Message::PreVote { next_term: 9, last };
    for message in [pre_vote, vote(false), vote(true), heartbeat(), append(4)] {
        new.hears(4, message);
        new.sync();
        assert_eq!(new.says(), []);
    }
    let unknown = Message::Append {
        prev: EntryId { term: 4, index: 7 },
        entries: Vec::new(),
        commit: 0,
    };
    new.hears(4, unknown);
    new.hears(4, Message::TimeoutNow);
    (0..100).for_each(|_| new.raft.tick());
    let StoredSnapshot { meta, bytes } = snapshot(4);
    let data = "a part".into();
    let part = Message::Snapshot {
        meta,
        bytes,
        offset: 0,
        data,
    };
    new.hears(4, part);
    new.raft.part_stored(snapshot(4).meta.last, 6);
    new.sync();
    assert_eq!((new.raft.term(), new.raft.role()), (4, RoleName::Follower));
    let received = new.raft.output(PARTS).to_store;
    assert_eq!((new.raft.last().index, received.len()), (1, 1));
    assert!(new.raft.install(snapshot(4)));
    assert_eq!(new.raft.last().index, 9);
    new.sync();
    assert_eq!(new.says(), []);
    // No majority counts `Outdated`: a node that hears it only leaves its term.
    new.hears(3, heartbeat());
    assert_eq!(new.says(), [Message::Outdated]);
}

/// A message from before the admission is never answered. A message that comes after the admission
/// is answered by what is on the disk, and only once it is on the disk.
#[test]
fn an_acknowledgement_waits_for_the_disk_across_the_admission() {
    let mut new = Newcomer::new();
    new.hears(4, append(4));
    new.hears(4, heartbeat());
    new.raft.admit();
    assert_eq!(new.says(), []);
    new.hears(4, append(4));
    assert_eq!(new.says(), [], "neither term nor entry is on disk");
    new.sync();
    assert_eq!(new.says(), [Message::Accepted { matched: 1 }]);
    new.hears(4, heartbeat());
    assert_eq!(new.says(), [Message::HeartbeatReply { round: 3 }]);
}

/// A leader counts only nodes as active that have answered it. `Outdated` of a node that is not
/// admitted may arrive late, when its term is the leader's own.
#[test]
fn that_a_term_has_passed_keeps_no_leader_in_office() {
    let (mut cluster, leader, new) = with_a_new_node(3);
    let term = cluster.node(leader).term();
    others(&cluster, &[leader])
        .iter()
        .for_each(|id| cluster.isolate(*id));
    for _ in 0..60 {
        cluster.node(leader).step(Envelope {
            from: new,
            from_folder: new.into(),
            to: leader,
            to_folder: Some(leader.into()),
            term,
            message: Message::Outdated,
        });
        cluster.tick();
    }
    assert_ne!(cluster.node(leader).role(), RoleName::Leader);
}
