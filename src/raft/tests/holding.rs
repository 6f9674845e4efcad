//! Entries that every member has on its disk are dropped from memory, with a snapshot or without.

use super::harness::Cluster;
use super::snapshots::all_have;
use crate::raft::{Config, NodeId};

fn cluster() -> Cluster {
    Cluster::with(3, |config: &mut Config| config.keeps_matched = false)
}

/// How many entries the node holds in memory.
fn held(cluster: &mut Cluster, id: NodeId) -> u64 {
    let raft = cluster.node(id);
    raft.last().index + 1 - raft.first_index()
}

fn nothing_is_held(cluster: &mut Cluster) -> bool {
    (1..=3).all(|id| held(cluster, id) == 0)
}

#[test]
fn what_every_member_has_is_let_go_of_and_the_work_goes_on_under_any_leader() {
    let mut cluster = cluster();
    let leader = cluster.elect();
    for command in ["a", "b", "c"] {
        cluster.propose(leader, command);
        cluster.settle();
    }
    cluster.until("nobody holds anything", nothing_is_held);
    cluster.crash(leader);
    let next = cluster.elect();
    cluster.propose(next, "d");
    cluster.settle();
    cluster.restart(leader);
    cluster.until("who was away has it too", |c| {
        all_have(c, &["a", "b", "c", "d"])
    });
    cluster.until("nobody holds anything again", nothing_is_held);
    let snapshots = (1..=3).filter_map(|id| cluster.nodes[&id].raft.newest_snapshot());
    assert_eq!(snapshots.count(), 0, "the log was enough");
}

#[test]
fn what_one_member_lacks_or_has_not_on_its_disk_is_kept_by_all_the_others() {
    let mut cluster = cluster();
    let leader = cluster.elect();
    cluster.until("nobody holds anything", nothing_is_held);
    let slow = (1..=3).find(|id| *id != leader).expect("two followers");
    cluster.hold(slow, true);
    for command in ["a", "b", "c"] {
        cluster.propose(leader, command);
        cluster.settle();
    }
    for _ in 0..50 {
        cluster.tick();
    }
    for id in (1..=3).filter(|id| *id != slow) {
        assert_eq!(held(&mut cluster, id), 3, "node {id}");
    }
    cluster.hold(slow, false);
    cluster.until("nobody holds anything", nothing_is_held);
}

#[test]
fn a_leader_keeps_what_its_own_disk_has_not() {
    let mut cluster = cluster();
    let leader = cluster.elect();
    cluster.until("nobody holds anything", nothing_is_held);
    cluster.hold(leader, true);
    cluster.propose(leader, "a");
    for _ in 0..50 {
        cluster.tick();
    }
    assert_eq!(cluster.executed(leader), ["a"], "the others' disks suffice");
    assert!((1..=3).all(|id| held(&mut cluster, id) == 1));
}

/// A disk that keeps what it has synced never loses acknowledged entries. Should one lose them, the
/// leader may hold them neither in memory nor in a snapshot: then it asks for a new snapshot.
#[test]
fn a_member_whose_disk_has_lost_what_it_acknowledged_gets_a_snapshot_that_is_taken_for_it() {
    let mut cluster = cluster();
    let leader = cluster.elect();
    cluster.propose(leader, "a");
    cluster.settle();
    cluster.take_snapshot(leader);
    cluster.propose(leader, "b");
    cluster.until("nobody holds anything", nothing_is_held);
    let forgetful = (1..=3).find(|id| *id != leader).expect("two followers");
    let other = 6 - leader - forgetful;
    let hard_state = cluster.node(forgetful).hard_state();
    // The next leader does not know what the forgetful node once acknowledged.
    cluster.crash(leader);
    cluster.restart_with(forgetful, hard_state, Vec::new());
    cluster.until("the other one leads", |c| c.leader() == Some(other));
    cluster.until("it sees that it needs a snapshot", |c| {
        c.nodes[&other].wants_snapshot
    });
    assert!(cluster.executed(forgetful).is_empty());
    cluster
        .nodes
        .get_mut(&other)
        .expect("a node")
        .wants_snapshot = false;
    cluster.take_snapshot(other);
    cluster.until("it has all", |c| c.executed(forgetful) == ["a", "b"]);
    assert!(!cluster.nodes[&other].wants_snapshot);
}
